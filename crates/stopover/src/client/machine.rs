//! The machine that is looked at and written to: a folder that stands for `/`, and an environment.
//!
//! It promises that no symbolic link leads out of that folder, that a file is written whole or not at all, with the mode
//! and owner that it had, and that nothing is written over that was there before but with its contents kept beside it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, chown},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

/// The most that is read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Symbolic links that are followed, as in Linux.
const LINKS_MAX: usize = 40;
/// Backups made of one file within a second.
const BACKUPS_MAX: usize = 100;
/// Mode of files that are made anew.
const MODE: u32 = 0o644;

/// A machine, or the image of one.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    root: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Machine {
    /// Returns the machine below `root`, seen with `environment`.
    pub(super) fn new(root: &Path, environment: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { root: root.to_owned(), environment: environment.into_iter().collect() }
    }

    /// Returns a variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Returns what stands in `path`, `None` where there is no such file.
    pub(super) fn read(&self, path: &str) -> Result<Option<String>, String> {
        let failed = |error: io::Error| format!("{}: cannot be read: {error}", self.shown(path));
        let place = self.place(path).map_err(failed)?;
        let file = match File::open(&place) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let mut text = String::new();
        let count = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if count as u64 > FILE_BYTES_MAX {
            return Err(format!("{}: longer than 1 MiB", self.shown(path)));
        }
        Ok(Some(text))
    }

    /// Returns whether there is anything at `path`.
    pub(super) fn exists(&self, path: &str) -> bool {
        self.place(path).is_ok_and(|place| place.exists())
    }

    /// Returns the names in the folder `path`, in order; none where it cannot be read.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = self.place(path).and_then(fs::read_dir);
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Returns `path` as it is shown to people: with the folder that stands for `/` before it.
    pub(super) fn shown(&self, path: &str) -> String {
        if self.root == Path::new("/") { path.to_owned() } else { format!("{}{path}", self.root.display()) }
    }

    /// Writes `text` to `path` in one step. Returns the folders that were made for it, the outermost first.
    pub(super) fn write(&self, path: &str, text: &str, new_mode: u32) -> Result<Vec<String>, String> {
        let failed = |error: io::Error| format!("{}: cannot be written: {error}", self.shown(path));
        let place = self.place(path).map_err(failed)?;
        let made = self.make_folders(path).map_err(failed)?;
        write_whole(&place, text, new_mode).map_err(failed)?;
        Ok(made)
    }

    /// Copies `path` beside itself, under a name that is free. Returns that name.
    pub(super) fn back_up(&self, path: &str, now: SystemTime) -> Result<String, String> {
        let failed = |error: io::Error| format!("{}: no backup can be made: {error}", self.shown(path));
        let place = self.place(path).map_err(failed)?;
        for attempt in 0..BACKUPS_MAX {
            let again = if attempt == 0 { String::new() } else { format!("-{attempt}") };
            let ending = format!(".stopover-{}{again}", compact(now));
            let mut name = place.clone().into_os_string();
            name.push(&ending);
            match copy_new(&place, Path::new(&name)) {
                Ok(()) => return Ok(format!("{path}{ending}")),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Err(failed(io::ErrorKind::AlreadyExists.into()))
    }

    /// Removes the file `path`; one that is not there is as good.
    pub(super) fn remove(&self, path: &str) -> Result<(), String> {
        let removed = self.place(path).and_then(fs::remove_file);
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("{}: cannot be removed: {error}", self.shown(path)))
            }
            _ => Ok(()),
        }
    }

    /// Removes the folder `path` if it is empty.
    pub(super) fn remove_folder(&self, path: &str) {
        // One that is in use, or gone, stays as it is.
        let _in_use = self.place(path).and_then(fs::remove_dir);
    }

    fn make_folders(&self, path: &str) -> io::Result<Vec<String>> {
        let mut made = Vec::new();
        for (at, _) in path.match_indices('/').skip(1) {
            let place = self.place(&path[..at])?;
            match fs::create_dir(&place) {
                Ok(()) => made.push(path[..at].to_owned()),
                Err(_) if place.is_dir() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(made)
    }

    /// Returns where `path` really is. Links are followed as if the root were `/`, so that none leads out of it.
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let mut rest: Vec<PathBuf> = vec![PathBuf::from(path)];
        let mut within = PathBuf::new();
        let mut links = 0;
        while let Some(next) = rest.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            rest.push(parts.as_path().to_owned());
            match part {
                Component::RootDir | Component::Prefix(_) => within = PathBuf::new(),
                Component::CurDir => {}
                Component::ParentDir => {
                    within.pop();
                }
                Component::Normal(name) => {
                    let place = self.root.join(&within).join(name);
                    match fs::read_link(&place) {
                        Ok(target) => {
                            links += 1;
                            if links > LINKS_MAX {
                                return Err(io::Error::other("too many symbolic links"));
                            }
                            rest.push(target);
                        }
                        Err(_) => within.push(name),
                    }
                }
            }
        }
        Ok(self.root.join(within))
    }
}

/// Writes a file beside its place, with the mode and owner of the one that it takes the place of, and moves it there.
fn write_whole(place: &Path, text: &str, new_mode: u32) -> io::Result<()> {
    let folder = place.parent().ok_or(io::ErrorKind::IsADirectory)?;
    let name = place.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_string_lossy().into_owned();
    let before = match fs::metadata(place) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let beside = folder.join(format!(".{name}.{}.stopover", std::process::id()));
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(new_mode & 0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        let mode = before.as_ref().map_or(new_mode, |before| before.mode() & 0o7777);
        if let Some(before) = &before {
            keep_owner(&beside, &file.metadata()?, before)?;
        }
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&beside, place)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The error that counts is the one above.
        let _gone = fs::remove_file(&beside);
    }
    written
}

fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let before = fs::metadata(from)?;
    let text = fs::read(from)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    file.write_all(&text)?;
    keep_owner(to, &file.metadata()?, &before)?;
    file.set_permissions(before.permissions())?;
    file.sync_all()
}

fn keep_owner(path: &Path, now: &fs::Metadata, before: &fs::Metadata) -> io::Result<()> {
    if (now.uid(), now.gid()) == (before.uid(), before.gid()) {
        return Ok(());
    }
    chown(path, Some(before.uid()), Some(before.gid()))
}

/// Returns a time as in `20261124T061500Z`, which sorts by itself.
fn compact(now: SystemTime) -> String {
    // "Tue, 24 Nov 2026 06:15:00 GMT"
    let text = httpdate::fmt_http_date(now);
    let parts: Vec<&str> = text.split([' ', ',', ':']).filter(|part| !part.is_empty()).collect();
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    match parts[..] {
        [_, day, month, year, hour, minute, second, _] => {
            let month = months.iter().position(|name| *name == month).map_or(0, |at| at + 1);
            format!("{year}{month:02}{day}T{hour}{minute}{second}Z")
        }
        _ => text.replace([' ', ',', ':'], ""),
    }
}

/// Mode of files that only their owner may read.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of files that anybody may read.
pub(super) const PUBLIC: u32 = MODE;

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;

    fn machine(folder: &tempfile::TempDir) -> Machine {
        Machine::new(folder.path(), [])
    }

    #[test]
    fn links_are_followed_and_none_leads_out_of_the_root() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        fs::create_dir_all(folder.path().join("srv/docker")).unwrap();
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        symlink("/srv/docker", folder.path().join("etc/docker")).unwrap();
        symlink("../../../../../real.json", folder.path().join("srv/docker/daemon.json")).unwrap();
        machine.write("/etc/docker/daemon.json", "{}", PUBLIC).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("real.json")).unwrap(), "{}");
        assert!(folder.path().join("srv/docker/daemon.json").is_symlink(), "the link stays");
        assert_eq!(machine.read("/etc/docker/daemon.json"), Ok(Some("{}".to_owned())));
        symlink("loop", folder.path().join("loop")).unwrap();
        assert!(machine.read("/loop").is_err());
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_backup_is_never_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        assert_eq!(machine.write("/etc/a/b.json", "1", PUBLIC).unwrap(), ["/etc", "/etc/a"]);
        let place = folder.path().join("etc/a/b.json");
        fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_500_900);
        let first = machine.back_up("/etc/a/b.json", now).unwrap();
        assert!(machine.write("/etc/a/b.json", "2", PUBLIC).unwrap().is_empty());
        let second = machine.back_up("/etc/a/b.json", now).unwrap();
        assert_eq!(first, "/etc/a/b.json.stopover-20261124T061500Z");
        assert_eq!(second, "/etc/a/b.json.stopover-20261124T061500Z-1");
        assert_eq!(machine.read(&first), Ok(Some("1".to_owned())));
        assert_eq!(machine.read(&second), Ok(Some("2".to_owned())));
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(folder.path().join(&first[1..])).unwrap().mode() & 0o7777, 0o640);
        assert_eq!(machine.names("/etc/a").len(), 3, "nothing else is left");
    }

    #[test]
    fn what_cannot_be_read_is_said_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let machine = machine(&folder);
        fs::write(folder.path().join("x"), [0xff, 0xfe]).unwrap();
        let error = machine.read("/x").unwrap_err();
        assert!(error.contains("/x: cannot be read: ") && error.contains("UTF-8"), "{error}");
        fs::write(folder.path().join("y"), vec![b' '; (FILE_BYTES_MAX + 1) as usize]).unwrap();
        assert!(machine.read("/y").unwrap_err().ends_with("/y: longer than 1 MiB"));
        assert_eq!(machine.read("/x/z"), Ok(None));
    }
}
