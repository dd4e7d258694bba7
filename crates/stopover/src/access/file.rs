//! The htpasswd file: read, looked at, and made where there is none.
//!
//! It promises that only bcrypt hashes of a bearable cost are taken from it, that whatever else stands in it is named
//! by its line, and that no hash stands in a message. It knows nothing of passwords that clients send.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    ops::RangeInclusive,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bcrypt::HashParts;

use super::fill_with_chance;

/// The most that is read of the file.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// The costs that there are.
const COSTS: RangeInclusive<u32> = 4..=31;
/// The highest cost of a hash: each step doubles the time, and this one takes seconds.
const COST_MAX: u32 = 16;
/// The user in a file that is made, as with registry:2.
const MADE_USER: &str = "docker";
const MADE_PASSWORD_BYTES: usize = 32;
/// What `htpasswd` would not do by itself, but everybody else does.
const MADE_COST: u32 = 10;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}{at}: {what}", path.display())]
pub struct FileError {
    path: PathBuf,
    /// The line, as `:3`.
    at: String,
    what: String,
}

impl FileError {
    pub(super) fn new(path: &Path, error: io::Error) -> Self {
        Self { path: path.to_owned(), at: String::new(), what: error.to_string() }
    }
}

/// The state of the file: any change of it, or another in its place, changes this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What the file says.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// The bcrypt hash of each user.
    pub(super) hashes: HashMap<String, String>,
    /// The highest cost among them.
    pub(super) cost_max: u32,
    pub(super) stamp: Stamp,
}

/// Returns the state of the file.
pub(super) fn stamp(path: &Path) -> Result<Stamp, FileError> {
    fs::metadata(path).map(|metadata| Stamp::of(&metadata)).map_err(|error| FileError::new(path, error))
}

/// Reads the file. What it holds that is not accepted is warned of, once.
pub(super) fn read(path: &Path) -> Result<Entries, FileError> {
    let failed = |error| FileError::new(path, error);
    let file = File::open(path).map_err(failed)?;
    let stamp = Stamp::of(&file.metadata().map_err(failed)?);
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "longer than 4 MiB")));
    }
    let (entries, warnings) = parse(&bytes).map_err(|line| FileError {
        path: path.to_owned(),
        at: format!(":{line}"),
        what: "expected user:hash, as `htpasswd -B` writes it".to_owned(),
    })?;
    for (line, why) in warnings {
        tracing::warn!("{}:{line}: this user cannot log in: {why}", path.display());
    }
    if entries.hashes.is_empty() {
        tracing::warn!("{}: no user in it can log in, so nobody can pull", path.display());
    }
    Ok(Entries { stamp, ..entries })
}

/// Returns what the file says and what of it is not accepted, by line; the line that is neither a user's nor a comment.
fn parse(bytes: &[u8]) -> Result<(Entries, Vec<(usize, String)>), usize> {
    let (mut entries, mut warnings) = (Entries::default(), Vec::new());
    for (line, text) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let (line, text) = (line + 1, text.trim_ascii());
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let text = String::from_utf8_lossy(text);
        let (user, hash) = text.split_once(':').ok_or(line)?;
        match cost(hash) {
            Ok(cost) => {
                entries.cost_max = entries.cost_max.max(cost);
                entries.hashes.insert(user.to_owned(), hash.to_owned());
            }
            Err(why) => warnings.push((line, why)),
        }
    }
    Ok((entries, warnings))
}

/// Returns the cost of a bcrypt hash, or why it is none.
fn cost(hash: &str) -> Result<u32, String> {
    let kind = match hash {
        _ if hash.starts_with("$apr1$") => "MD5 (apr1)",
        _ if hash.starts_with("{SHA}") => "SHA-1",
        _ if hash.starts_with("$5$") || hash.starts_with("$6$") => "SHA-crypt",
        _ if hash.starts_with("$2") => "",
        _ => "no bcrypt hash",
    };
    if !kind.is_empty() {
        return Err(format!("found {kind}, expected bcrypt, as `htpasswd -B` makes it"));
    }
    let broken = || "its bcrypt hash is broken".to_owned();
    // What does not parse here would be refused at once later, and the time tell that there is such a user.
    let cost = hash.parse::<HashParts>().map_err(|_| broken())?.get_cost();
    if !COSTS.contains(&cost) {
        return Err(broken());
    }
    if cost > COST_MAX {
        return Err(format!(
            "found a cost of {cost}, expected at most {COST_MAX}: to verify it would take too long"
        ));
    }
    Ok(cost)
}

/// Makes the file where there is none, as registry:2 does: with one user, whose password stands once in the log.
pub(super) fn make_if_missing(path: &Path) -> Result<(), FileError> {
    let failed = |error| FileError::new(path, error);
    if path.try_exists().map_err(failed)? {
        return Ok(());
    }
    let mut chance = [0; MADE_PASSWORD_BYTES + 16];
    fill_with_chance(&mut chance).map_err(failed)?;
    let (password, salt) = chance.split_at(MADE_PASSWORD_BYTES);
    let password = URL_SAFE_NO_PAD.encode(password);
    let salt = salt.try_into().expect("16 bytes are left");
    let hash = bcrypt::hash_with_salt(&password, MADE_COST, salt);
    let hash = hash.map_err(|error| failed(io::Error::other(error)))?.to_string();
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(format!("{MADE_USER}:{hash}\n").as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    tracing::warn!(
        path = %path.display(), user = MADE_USER, password,
        "access.htpasswd is missing; it was made with a user, whose password is not shown again"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$2y$05$LhayLxezLhK1LhWvKxCyLOj0j1u.Kj0jZ0pEmm134uzrQlFvQJLF6";

    #[test]
    fn users_with_a_bcrypt_hash_are_taken_and_all_others_named() {
        let text = format!(
            "# people\n\nann:{HASH}\r\n  bob : x\ncarl:$apr1$a$b\ndora:{{SHA}}x\nemil:$2y$05$short\nfay:hunter2\n\
             gus:{}\nhal:{}\nann2:{HASH}",
            HASH.replace("$05$", "$31$"),
            HASH.replace("CyLO", "CyLP"),
        );
        let (entries, warnings) = parse(text.as_bytes()).unwrap();
        let mut users: Vec<&str> = entries.hashes.keys().map(String::as_str).collect();
        users.sort();
        assert_eq!((users, entries.cost_max), (vec!["ann", "ann2"], 5));
        let warnings: Vec<String> = warnings.iter().map(|(line, why)| format!("{line}: {why}")).collect();
        let expected = "expected bcrypt, as `htpasswd -B` makes it";
        let want = [
            format!("4: found no bcrypt hash, {expected}"),
            format!("5: found MD5 (apr1), {expected}"),
            format!("6: found SHA-1, {expected}"),
            "7: its bcrypt hash is broken".to_owned(),
            format!("8: found no bcrypt hash, {expected}"),
            "9: found a cost of 31, expected at most 16: to verify it would take too long".to_owned(),
            "10: its bcrypt hash is broken".to_owned(),
        ];
        assert_eq!(warnings, want);
    }

    #[test]
    fn a_line_that_is_no_users_is_a_mistake() {
        assert_eq!(parse(b"ann:x\n\nhunter2\n").unwrap_err(), 3);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users");
        fs::write(&path, "hunter2").unwrap();
        let want = format!("{}:1: expected user:hash, as `htpasswd -B` writes it", path.display());
        assert_eq!(read(&path).unwrap_err().to_string(), want);
        assert!(stamp(&folder.path().join("none")).is_err());
    }

    #[test]
    fn a_missing_file_is_made_for_its_owner_alone_and_is_left_alone_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("auth/htpasswd");
        make_if_missing(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let entries = read(&path).unwrap();
        assert_eq!(entries.hashes.keys().collect::<Vec<_>>(), [MADE_USER]);
        let before = stamp(&path).unwrap();
        make_if_missing(&path).unwrap();
        assert_eq!(stamp(&path).unwrap(), before);
        assert_eq!(entries.stamp, before);
    }
}
