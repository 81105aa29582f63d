//! Makes tar streams by hand, right and wrong ones.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// One header, as it is written.
#[derive(Clone)]
pub struct Head {
    pub name: Vec<u8>,
    pub flag: u8,
    pub link: Vec<u8>,
    pub mode: Vec<u8>,
    pub uid: Vec<u8>,
    pub gid: Vec<u8>,
    pub size: Vec<u8>,
    pub mtime: Vec<u8>,
    pub magic: [u8; 8],
    pub device: (u32, u32),
}

/// As `head` gives it: POSIX, and GNU.
pub const USTAR: [u8; 8] = *b"ustar\x0000";
pub const GNU: [u8; 8] = *b"ustar  \0";

pub fn octal(value: u64, width: usize) -> Vec<u8> {
    format!("{value:0width$o}\0", width = width - 1).into_bytes()
}

/// GNU's base-256.
pub fn binary(value: i64, width: usize) -> Vec<u8> {
    let fill = if value < 0 { 0xff } else { 0 };
    let mut bytes = vec![fill; width - 8];
    bytes.extend_from_slice(&value.to_be_bytes());
    bytes[0] |= 0x80;
    bytes
}

pub fn head(name: impl AsRef<[u8]>, flag: u8, size: u64) -> Head {
    Head {
        name: name.as_ref().to_vec(),
        flag,
        link: Vec::new(),
        mode: octal(if flag == b'5' { 0o755 } else { 0o644 }, 8),
        uid: octal(0, 8),
        gid: octal(0, 8),
        size: octal(size, 12),
        mtime: octal(1_000_000_000, 12),
        magic: USTAR,
        device: (0, 0),
    }
}

impl Head {
    pub fn to(mut self, link: impl AsRef<[u8]>) -> Self {
        self.link = link.as_ref().to_vec();
        self
    }

    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = octal(mode.into(), 8);
        self
    }

    pub fn block(&self) -> [u8; 512] {
        let mut block = [0; 512];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.name[..self.name.len().min(100)]);
        put(100, &self.mode);
        put(108, &self.uid);
        put(116, &self.gid);
        put(124, &self.size);
        put(136, &self.mtime);
        put(156, &[self.flag]);
        put(157, &self.link[..self.link.len().min(100)]);
        put(257, &self.magic);
        put(329, &octal(self.device.0.into(), 8));
        put(337, &octal(self.device.1.into(), 8));
        seal(&mut block);
        block
    }
}

/// Makes the checksum right.
pub fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A stream under construction.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Bytes, filled up to whole blocks.
    pub fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn head(self, head: Head) -> Self {
        self.raw(&head.block())
    }

    pub fn file(self, name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        self.head(head(name, b'0', data.len() as u64)).data(data)
    }

    pub fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.head(head(name, b'5', 0))
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.head(head(name, b'2', 0).to(to))
    }

    pub fn hard_link(self, name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        self.head(head(name, b'1', 0).to(to))
    }

    /// Records for the next entry, or with `g` for all.
    pub fn records(self, flag: u8, records: &[(&str, &[u8])]) -> Self {
        let bytes: Vec<u8> = records.iter().flat_map(|(k, v)| record(k, v)).collect();
        self.head(head("PaxHeaders/x", flag, bytes.len() as u64))
            .data(&bytes)
    }

    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.records(b'x', records)
    }

    /// GNU's header for a long name (`L`) or link (`K`).
    pub fn long(self, flag: u8, name: &[u8]) -> Self {
        let mut own = head("././@LongLink", flag, name.len() as u64 + 1);
        own.magic = GNU;
        self.head(own).data(&[name, b"\0"].concat())
    }

    pub fn end(self) -> Vec<u8> {
        self.raw(&[0; 1024]).0
    }
}

pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len.to_string().len() + rest > len {
        len += 1;
    }
    [format!("{len} {key}=").as_bytes(), value, b"\n"].concat()
}

/// A directory for one test, with a victim beside the place where archives go.
pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::create_dir(dir.path().join("into")).unwrap();
        std::fs::create_dir(dir.path().join("outside")).unwrap();
        std::fs::write(dir.path().join("outside/victim"), "untouched").unwrap();
        Self { dir }
    }

    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// The empty directory that archives go into.
    pub fn target(&self) -> PathBuf {
        self.at("into")
    }
}
