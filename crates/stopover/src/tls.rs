//! Certificates of the pull port: made, read, checked, and read again when their files change.
//!
//! It promises that files which cannot be used are refused with their reason, at the start and later; that later the
//! pair in force stays in force then; and that a new pair touches no connection that is open. It knows nothing of
//! sockets.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use rustls::ServerConfig;

use crate::{config::Tls, metrics::Metrics};

mod development;
mod facts;
mod files;

pub use development::{DevelopmentError, Made, make as make_for_development};
pub use files::TlsError;

use files::{Ready, Stamp, read, stamps};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When somebody should do something about a certificate that runs out.
const WARN_BEFORE: Duration = Duration::from_secs(14 * DAY.as_secs());
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The certificate in force.
pub struct Certificates {
    tls: Tls,
    http2: bool,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

struct State {
    ready: Ready,
    /// The files as they were when they were last read, and as they were when last looked at.
    tried: Vec<Option<Stamp>>,
    seen: Vec<Option<Stamp>>,
    warned: Option<SystemTime>,
}

impl Certificates {
    /// Reads the files; `None` where no certificate is configured.
    pub fn read(tls: &Tls, http2: bool, metrics: &Arc<Metrics>) -> Result<Option<Self>, TlsError> {
        let tried = stamps(tls);
        let Some(ready) = ready(tls, http2)? else { return Ok(None) };
        let state = Mutex::new(State { ready, seen: tried.clone(), tried, warned: None });
        let certificates = Self { tls: tls.clone(), http2, metrics: Arc::clone(metrics), state };
        certificates.note(&mut certificates.lock());
        Ok(Some(certificates))
    }

    /// Returns what a new connection is greeted with.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.lock().ready.config)
    }

    /// Looks at the files now and then, and reads them when they changed, until the future is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let certificates = Arc::clone(&self);
            // It does not panic, and if it did, the next look is as good.
            let _ = tokio::task::spawn_blocking(move || certificates.look()).await;
        }
    }

    /// Reads the files now.
    pub async fn reload(self: &Arc<Self>) {
        let certificates = Arc::clone(self);
        let _ = tokio::task::spawn_blocking(move || {
            let now = stamps(&certificates.tls);
            certificates.read_again(now);
        })
        .await;
    }

    /// Reads the files if they changed and have been left alone since: certificate and key are seldom replaced in one.
    fn look(&self) {
        let now = stamps(&self.tls);
        let mut state = self.lock();
        self.warn_of_expiry(&mut state);
        let is_settled = state.seen == now;
        state.seen.clone_from(&now);
        if is_settled && state.tried != now {
            drop(state);
            self.read_again(now);
        }
    }

    fn read_again(&self, now: Vec<Option<Stamp>>) {
        let read = ready(&self.tls, self.http2);
        let mut state = self.lock();
        (state.seen, state.tried) = (now.clone(), now);
        match read {
            Ok(Some(ready)) if ready.content != state.ready.content => {
                state.ready = ready;
                state.warned = None;
                self.metrics.tls_reloads.inc();
                self.note(&mut state);
            }
            Ok(_) => {}
            Err(error) => {
                self.metrics.tls_reload_failures.inc();
                tracing::error!("{error}; the certificate that was read before stays in force");
            }
        }
    }

    /// Says what is in force now.
    fn note(&self, state: &mut State) {
        let since_1970 = state.ready.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.tls_certificate_not_after(since_1970);
        for warning in &state.ready.warnings {
            tracing::warn!("{warning}");
        }
        tracing::info!(
            names = state.ready.names.join(","),
            not_after = httpdate::fmt_http_date(state.ready.not_after),
            "a certificate is in force"
        );
        self.warn_of_expiry(state);
    }

    /// Warns once a day of a certificate that runs out.
    fn warn_of_expiry(&self, state: &mut State) {
        let now = SystemTime::now();
        let is_due = |warned: SystemTime| now.duration_since(warned).is_ok_and(|since| since >= DAY);
        if state.ready.not_after > now + WARN_BEFORE || !state.warned.is_none_or(is_due) {
            return;
        }
        state.warned = Some(now);
        let file = self.tls.certificate.as_deref().unwrap_or(std::path::Path::new("")).display();
        let not_after = httpdate::fmt_http_date(state.ready.not_after);
        match state.ready.not_after.duration_since(now) {
            Ok(left) => {
                let days = left.as_secs() / DAY.as_secs();
                tracing::warn!(%file, not_after, days, "tls.certificate expires soon");
            }
            Err(_) => tracing::error!(%file, not_after, "tls.certificate has expired; clients refuse it"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ready(tls: &Tls, http2: bool) -> Result<Option<Ready>, TlsError> {
    match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => read(tls, certificate, key, http2).map(Some),
        _ => Ok(None),
    }
}
