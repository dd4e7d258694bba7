//! A file that is read when it is needed, and again when it changed.
//!
//! It promises that reading happens off the way of requests, once for all who wait and for a bounded time; that what is
//! wrong is said once in the log and not with each pull; and that nothing of the file's content stands there.

use std::{
    fs::{self, File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::timeout;

use super::token::locked;
use crate::flight::Flights;

/// How long reading may take: a file on a network's disk may hang for ever.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// The most that is read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Makes something of a file's bytes, or says what is wrong with them without a word of what they are.
type Parse<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// A file, and what it last held.
pub(super) struct Watched<T> {
    path: PathBuf,
    /// The account that it is for, as the log names it.
    account: Arc<str>,
    parse: Parse<T>,
    last: Mutex<Last<T>>,
    trouble: Trouble,
    flights: Arc<Flights<(), Option<Arc<T>>>>,
}

struct Last<T> {
    stamp: Option<Stamp>,
    content: Option<Arc<T>>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Returns the file of that path, which need not be there yet; looks at it once, so that the log says at the start
    /// what is wrong with it.
    pub(super) fn new(path: &Path, account: Arc<str>, parse: Parse<T>) -> Arc<Self> {
        let last = Mutex::new(Last { stamp: None, content: None });
        let (trouble, flights) = (Trouble::default(), Flights::new());
        let watched = Self { path: path.to_owned(), account, parse, last, trouble, flights };
        watched.look();
        Arc::new(watched)
    }

    /// Returns what the file holds now; `None` where that is nothing of use.
    pub(super) async fn read(self: &Arc<Self>) -> Option<Arc<T>> {
        let watched = Arc::clone(self);
        let look = async move { tokio::task::spawn_blocking(move || watched.look()).await.ok().flatten() };
        match timeout(READ_WITHIN, self.flights.run((), || look)).await {
            Ok(landed) => landed?.value,
            Err(_) => {
                let error = format!("cannot be read within {} s", READ_WITHIN.as_secs());
                self.trouble.tell(&self.path, &self.account, Some(error));
                locked(&self.last).content.clone()
            }
        }
    }

    fn look(&self) -> Option<Arc<T>> {
        let before = locked(&self.last).stamp;
        let found = self.load(before);
        let mut last = locked(&self.last);
        let error = match found {
            Ok(None) => return last.content.clone(),
            Ok(Some((stamp, Ok(content)))) => {
                *last = Last { stamp: Some(stamp), content: Some(Arc::new(content)) };
                None
            }
            Ok(Some((stamp, Err(error)))) => {
                *last = Last { stamp: Some(stamp), content: None };
                Some(error)
            }
            Err(error) => {
                *last = Last { stamp: None, content: None };
                Some(error)
            }
        };
        let content = last.content.clone();
        drop(last);
        self.trouble.tell(&self.path, &self.account, error);
        content
    }

    /// Returns what the file holds and by what it is known again; `None` where that is still `before`.
    #[expect(clippy::type_complexity, reason = "either may fail, for reasons of its own")]
    fn load(&self, before: Option<Stamp>) -> Result<Option<(Stamp, Result<T, String>)>, String> {
        let cannot = |error: std::io::Error| format!("cannot be read: {error}");
        // Asked before it is opened, since opening what is no file may hang or do something.
        let metadata = fs::metadata(&self.path).map_err(cannot)?;
        if !metadata.is_file() {
            return Err("is no file".to_owned());
        }
        if before == Some(Stamp::of(&metadata)) {
            return Ok(None);
        }
        let file = File::open(&self.path).map_err(cannot)?;
        // Of what is open: the name may stand for another file by now.
        let stamp = Stamp::of(&file.metadata().map_err(cannot)?);
        let mut bytes = Vec::new();
        let len = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if len as u64 > FILE_BYTES_MAX {
            return Ok(Some((stamp, Err("is longer than 1 MiB".to_owned()))));
        }
        Ok(Some((stamp, (self.parse)(&bytes))))
    }
}

/// By what a file's content is known again without reading it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is wrong with a file, so that the log says it when that changes and not each time.
#[derive(Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Logs what is wrong, or that nothing is any more, where it was not so before.
    pub(super) fn tell(&self, file: &Path, account: &str, error: Option<String>) {
        let mut told = locked(&self.0);
        if *told == error {
            return;
        }
        let file = file.display();
        match &error {
            Some(error) => tracing::error!(
                %file, account, error, "the account's file cannot be used; the account is left out until it can"
            ),
            None => tracing::info!(%file, account, "the account's file can be used again"),
        }
        *told = error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &Path) -> Arc<Watched<String>> {
        let parse = |bytes: &[u8]| match bytes {
            b"" => Err("is empty".to_owned()),
            bytes => Ok(String::from_utf8_lossy(bytes).into_owned()),
        };
        Watched::new(path, "ann".into(), Box::new(parse))
    }

    #[tokio::test]
    async fn a_file_is_read_again_when_it_changed_in_whatever_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let watched = text(&path);
        let now = async || watched.read().await.map(|text| text.as_str().to_owned());
        assert_eq!(now().await, None, "it is not there yet");
        fs::write(&path, "one").unwrap();
        assert_eq!(now().await.as_deref(), Some("one"));
        // Replaced, with the times of the first.
        let beside = folder.path().join("beside");
        fs::write(&beside, "two").unwrap();
        let time = fs::metadata(&path).unwrap().modified().unwrap();
        File::options().write(true).open(&beside).unwrap().set_modified(time).unwrap();
        fs::rename(&beside, &path).unwrap();
        assert_eq!(now().await.as_deref(), Some("two"));
        // Through a link that is turned, as Kubernetes does with its secrets.
        fs::write(folder.path().join("three"), "three").unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("three"), &path).unwrap();
        assert_eq!(now().await.as_deref(), Some("three"));
        fs::write(&path, "").unwrap();
        assert_eq!(now().await, None, "empty is nothing");
        fs::write(&path, "four!").unwrap();
        assert_eq!(now().await.as_deref(), Some("four!"));
        fs::remove_file(&path).unwrap();
        assert_eq!(now().await, None, "what is gone is not used on");
    }

    #[tokio::test]
    async fn what_is_no_file_or_too_long_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert!(text(folder.path()).read().await.is_none());
        assert!(text(Path::new("/dev/zero")).read().await.is_none());
        let long = folder.path().join("long");
        fs::write(&long, vec![b'x'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(text(&long).read().await.is_none());
    }

    #[tokio::test]
    async fn an_unchanged_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, "one").unwrap();
        let watched = text(&path);
        let (first, second) = (watched.read().await.unwrap(), watched.read().await.unwrap());
        assert!(Arc::ptr_eq(&first, &second));
    }
}
