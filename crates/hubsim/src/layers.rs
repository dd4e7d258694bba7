//! Layers of images: tar archives of busybox, of small files, and of noise that does not compress.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use oci::{Algorithm, Digest, Hasher};

use crate::blob::Blob;

/// Where Debian's busybox-static puts its one file.
const BUSYBOX: &str = "/bin/busybox";
/// The commands that are links to it.
const APPLETS: [&str; 12] =
    ["cat", "echo", "env", "false", "ls", "mkdir", "sh", "sha256sum", "sleep", "true", "uname", "wc"];
/// The block of noise that large layers repeat: not a power of two, so that offsets that are off show.
const NOISE_BLOCK_BYTES: usize = (1 << 20) + 4099;
/// What an archive ends with.
const TAR_END: [u8; 1024] = [0; 1024];
const TAR_BLOCK: u64 = 512;

/// One layer.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) blob: Blob,
    pub(crate) digest: Digest,
    /// The digest of the archive without compression.
    pub(crate) diff_id: Digest,
    pub(crate) is_gzip: bool,
    pub(crate) made_of: String,
}

/// Returns the layer that all images begin with.
///
/// # Panics
///
/// Where the machine has no static busybox.
pub(crate) fn busybox() -> &'static Layer {
    static LAYER: OnceLock<Layer> = OnceLock::new();
    LAYER.get_or_init(|| {
        let program = std::fs::read(BUSYBOX)
            .unwrap_or_else(|error| panic!("images are made of {BUSYBOX}, install busybox-static: {error}"));
        let archive = archive(|tar| {
            for directory in ["bin", "etc", "proc", "root", "sys", "tmp"] {
                let mode = if directory == "tmp" { 0o1777 } else { 0o755 };
                tar.append(&entry(directory, tar::EntryType::Directory, mode, 0)?, io::empty())?;
            }
            append_file(tar, "bin/busybox", 0o755, &program)?;
            for applet in APPLETS {
                let mut header = tar::Header::new_gnu();
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                header.set_size(0);
                header.set_mtime(0);
                tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
            }
            append_file(tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
            append_file(tar, "etc/group", 0o644, b"root:x:0:\n")
        });
        gzip(archive, Compression::fast(), "busybox".to_owned())
    })
}

/// Returns a layer of one small file.
pub(crate) fn of_file(path: &str, content: &str) -> Layer {
    let archive = archive(|tar| append_file(tar, path, 0o644, content.as_bytes()));
    gzip(archive, Compression::fast(), path.to_owned())
}

/// Returns a layer of one file of noise under `/noise`; the noise is another one for each seed.
pub(crate) fn of_noise(seed: u64, size: usize) -> Layer {
    let name = format!("noise/{seed}");
    let archive = archive(|tar| append_file(tar, &name, 0o644, &noise(seed, size)));
    gzip(archive, Compression::none(), name)
}

/// Returns an uncompressed layer of one file `/large` of noise that repeats.
pub(crate) fn of_repeated_noise(size: u64) -> Layer {
    let header = entry("large", tar::EntryType::Regular, 0o644, size).expect("the name is short");
    let padding = (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK;
    let blob = Blob::default()
        .then(header.as_bytes().to_vec())
        .then_repeated(noise_block(), size)
        .then(vec![0; padding as usize])
        .then(TAR_END.to_vec());
    let mut hasher = Hasher::new(Algorithm::Sha256);
    blob.pieces().for_each(|piece| hasher.update(&piece));
    let digest = hasher.finish();
    Layer { blob, digest, diff_id: digest, is_gzip: false, made_of: format!("{size} bytes of noise") }
}

/// Returns blobs of noise that differ in their last eight bytes.
pub(crate) fn similar_blobs(count: usize, size: u64) -> Vec<(Digest, Blob)> {
    let common = Blob::default().then_repeated(noise_block(), size.saturating_sub(8));
    let mut hasher = Hasher::new(Algorithm::Sha256);
    common.pieces().for_each(|piece| hasher.update(&piece));
    let tails = (0..count as u64).map(|number| Bytes::copy_from_slice(&number.to_be_bytes()));
    tails
        .map(|tail| {
            let mut hasher = hasher.clone();
            hasher.update(&tail);
            (hasher.finish(), common.clone().then(tail))
        })
        .collect()
}

fn noise_block() -> Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    BLOCK.get_or_init(|| noise(0, NOISE_BLOCK_BYTES).into()).clone()
}

/// Returns bytes that look random and are the same for the same seed (xorshift64*).
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut bytes = vec![0; size];
    for word in bytes.chunks_mut(8) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let random = state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
        word.copy_from_slice(&random[..word.len()]);
    }
    bytes
}

fn archive(fill: impl FnOnce(&mut tar::Builder<Vec<u8>>) -> io::Result<()>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    fill(&mut tar).expect("an archive of short names in memory cannot fail");
    tar.into_inner().expect("an archive in memory ends without fail")
}

fn append_file(tar: &mut tar::Builder<Vec<u8>>, path: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    tar.append(&entry(path, tar::EntryType::Regular, mode, content.len() as u64)?, content)
}

fn entry(path: &str, kind: tar::EntryType, mode: u32, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(path)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn gzip(archive: Vec<u8>, level: Compression, made_of: String) -> Layer {
    let diff_id = Digest::of(Algorithm::Sha256, &archive);
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), level);
    gzip.write_all(&archive).expect("compression into memory cannot fail");
    let bytes = gzip.finish().expect("compression into memory cannot fail");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    Layer { blob: Blob::from(bytes), digest, diff_id, is_gzip: true, made_of }
}
