//! A disk of a few megabytes, which can be filled up.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// A filesystem in memory, mounted on a folder of its own; unmounted when dropped. Mounting needs root.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts a disk of `size_bytes`, made to whole pages by the system.
    pub(crate) fn mount(size_bytes: u64) -> Self {
        let folder = tempfile::tempdir().expect("the folder for temporary files is writable");
        let options = format!("size={size_bytes},mode=0755");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder.path()).output();
        let mount = mount.expect("mount is there");
        assert!(
            mount.status.success(),
            "this test fills up a disk, so it has to mount one: run it as root ({})",
            String::from_utf8_lossy(&mount.stderr).trim()
        );
        Self { folder }
    }

    /// Returns where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Takes all that is free but about `left_bytes`.
    pub(crate) fn fill_up(&self, left_bytes: u64) {
        let mut ballast = File::create(self.ballast()).expect("the disk has room for a name");
        let page = [1; 4096];
        while ballast.write_all(&page).is_ok() {}
        let len = ballast.metadata().expect("the file is open").len();
        ballast.set_len(len.saturating_sub(left_bytes)).expect("a file can be cut");
    }

    /// Gives back what [`SmallDisk::fill_up`] took.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.ballast()).expect("the disk was filled up before");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that was killed a moment ago may still have a file open.
        let unmounted = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("{} is still mounted", self.folder.path().display());
        }
    }
}
