//! Who may pull: everybody, or whoever has a password in an htpasswd file, as with registry:2.
//!
//! It promises that nobody is let in by anything but a bcrypt hash in the file as it is now, or was a second ago; that
//! no password is kept, written or handed on; and that those whose password is remembered are let in at once, however
//! many try wrong ones. It knows neither what is asked for nor how a refusal is answered.

use std::{
    io, mem,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::HeaderValue;
use oci::{Algorithm, Digest, Hasher};

use crate::{
    clock::Clock,
    config,
    metrics::{AccessRefusal, Metrics},
};

mod basic;
mod file;
mod users;

pub use file::FileError;

use basic::Credentials;
use users::{Desk, Users, Verdict};

/// How often the file is looked at.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// When to come back where too many wait: some of them have been verified by then.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// The bytes of the key that what is remembered is hashed with.
const KEY_BYTES: usize = 32;

/// Decides who may pull.
pub struct Access {
    door: Option<Arc<Door>>,
    metrics: Arc<Metrics>,
}

/// Why somebody may not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No user and password came with the request.
    #[error("authentication required")]
    Anonymous,
    /// They are not right.
    #[error("authentication required: the user or the password is wrong")]
    Wrong,
    /// Too many wait for their passwords to be verified.
    #[error("too many passwords wait to be verified")]
    Busy {
        /// When to come back.
        retry_after: Duration,
    },
}

/// What stands between clients and the rest, where not everybody may pull.
struct Door {
    path: PathBuf,
    challenge: HeaderValue,
    /// Replaced as a whole, with all that was remembered of passwords, when the file changes.
    users: RwLock<Arc<Users>>,
    key: [u8; KEY_BYTES],
    desk: Arc<Desk>,
}

impl Access {
    /// Returns access as it is configured. Reads the file, or makes it where there is none.
    pub fn new(options: &config::Access, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, FileError> {
        let Some(path) = &options.htpasswd else { return Ok(Self { door: None, metrics }) };
        file::make_if_missing(path)?;
        let users = Users::new(file::read(path)?);
        tracing::info!(path = %path.display(), users = users.count(), "whoever pulls must be a user of the file");
        let mut key = [0; KEY_BYTES];
        fill_with_chance(&mut key).map_err(|error| FileError::new(path, error))?;
        let door = Door {
            path: path.clone(),
            challenge: challenge(options.realm.as_deref().unwrap_or_default()),
            users: RwLock::new(Arc::new(users)),
            key,
            desk: Arc::new(Desk::new(clock, Arc::clone(&metrics))),
        };
        Ok(Self { door: Some(Arc::new(door)), metrics })
    }

    /// Returns the user who asks, by what the request says of itself; nobody where everybody may pull.
    pub async fn admit(&self, authorization: Option<&HeaderValue>) -> Result<Option<Arc<str>>, Denied> {
        let Some(door) = &self.door else { return Ok(None) };
        let denied = match authorization {
            None => Denied::Anonymous,
            Some(header) => match door.admit(header).await {
                Ok(user) => return Ok(Some(user)),
                Err(denied) => denied,
            },
        };
        self.metrics.access_refused(match denied {
            Denied::Anonymous => AccessRefusal::Anonymous,
            Denied::Wrong => AccessRefusal::Wrong,
            Denied::Busy { .. } => AccessRefusal::Busy,
        });
        Err(denied)
    }

    /// Returns what tells a client how to say who it is (RFC 7617); `None` where everybody may pull.
    pub fn challenge(&self) -> Option<&HeaderValue> {
        self.door.as_ref().map(|door| &door.challenge)
    }

    /// Returns a future that never ends: it reads the file again whenever that has changed.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + 'static {
        let door = self.door.clone();
        async move {
            let Some(door) = door else { return std::future::pending().await };
            let mut complained = String::new();
            loop {
                tokio::time::sleep(LOOK_EACH).await;
                let looked = Arc::clone(&door);
                let looked = tokio::task::spawn_blocking(move || looked.read_again()).await;
                let complaint = match looked {
                    Ok(Err(error)) => error.to_string(),
                    _ => String::new(),
                };
                let before = mem::replace(&mut complained, complaint);
                if !complained.is_empty() && complained != before {
                    tracing::error!(
                        error = complained,
                        "access.htpasswd cannot be read; the users that it had last are let in"
                    );
                }
            }
        }
    }
}

impl Door {
    async fn admit(&self, header: &HeaderValue) -> Result<Arc<str>, Denied> {
        let users = Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner));
        let key = self.keyed(header);
        let verdict = match users.recall(&key, self.desk.clock.now()) {
            Some(verdict) => verdict,
            None => {
                let credentials = Credentials::read(header).ok_or(Denied::Wrong)?;
                users.verify(key, credentials, &self.desk).await
            }
        };
        match verdict {
            Verdict::Right(user) => Ok(user),
            Verdict::Wrong => Err(Denied::Wrong),
            Verdict::Busy => Err(Denied::Busy { retry_after: RETRY_AFTER }),
        }
    }

    /// Returns by what the credentials in a header are remembered: a hash that tells nothing of them without the key,
    /// which is of this process alone.
    fn keyed(&self, header: &HeaderValue) -> Digest {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(&self.key);
        hasher.update(header.as_bytes());
        hasher.finish()
    }

    fn read_again(&self) -> Result<(), FileError> {
        let before = Arc::clone(&self.users.read().unwrap_or_else(PoisonError::into_inner));
        if file::stamp(&self.path)? == before.stamp() {
            return Ok(());
        }
        let users = Users::new(file::read(&self.path)?);
        tracing::info!(path = %self.path.display(), users = users.count(), "access.htpasswd has changed and was read again");
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(users);
        Ok(())
    }
}

/// Returns the value of `WWW-Authenticate`; the realm is quoted as RFC 9110, section 5.6.4, has it.
fn challenge(realm: &str) -> HeaderValue {
    let quoted = realm.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("Basic realm=\"{quoted}\"").as_bytes())
        .expect("the configuration lets no control character into a text")
}

/// Fills `bytes` with what nobody can guess.
fn fill_with_chance(bytes: &mut [u8]) -> io::Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::io::retry_on_intr(|| rustix::rand::getrandom(&mut bytes[filled..], flags))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
