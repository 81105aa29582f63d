//! Reading `/proc/self/mountinfo` (proc(5)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Id of the mount.
    pub id: u64,
    /// Id of the mount it is mounted on.
    pub parent: u64,
    /// Minor number of its device; for FUSE also the number of the connection (the major number is
    /// 0).
    pub minor: u32,
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// File system type, `fuse.unionmount` for instance.
    pub fs_type: String,
    /// What is mounted: for a container of a store its directory.
    pub source: String,
}

impl Mount {
    /// Whether it was mounted by this program, under either of its names.
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self.fs_type.as_str(),
            "fuse.unionmount" | "fuse.fuse-overlayfs"
        )
    }
}

/// All mounts of this process, those below others first.
///
/// # Errors
/// When `/proc` is not mounted.
pub(crate) fn read() -> std::io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The mount that is seen at a path: the last one when several lie on each other.
#[must_use]
pub(crate) fn at<'a>(mounts: &'a [Mount], mountpoint: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .rev()
        .find(|mount| mount.mountpoint == mountpoint)
}

/// Reads the text; lines that do not have the documented form are left out.
#[must_use]
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|&byte| byte == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    // id parent major:minor root mountpoint options [tag:value..] - type source options
    let mut fields = line.split(|&byte| byte == b' ');
    let id = text(fields.next()?)?.parse().ok()?;
    let parent = text(fields.next()?)?.parse().ok()?;
    let (_, minor) = text(fields.next()?)?.split_once(':')?;
    let minor = minor.parse().ok()?;
    let mountpoint = unescape(fields.nth(1)?);
    fields.find(|field| *field == b"-")?;
    let fs_type = text(fields.next()?)?.to_owned();
    let source = unescape(fields.next()?);
    Some(Mount {
        id,
        parent,
        minor,
        mountpoint: PathBuf::from(OsString::from_vec(mountpoint)),
        fs_type,
        source: String::from_utf8_lossy(&source).into_owned(),
    })
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

/// Space, tab, line feed and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, behind)) = rest.split_first() {
        match octal(rest) {
            Some(decoded) => {
                plain.push(decoded);
                rest = rest.get(4..).unwrap_or_default();
            }
            None => {
                plain.push(byte);
                rest = behind;
            }
        }
    }
    plain
}

fn octal(text: &[u8]) -> Option<u8> {
    let digits = text.strip_prefix(b"\\")?.get(..3)?;
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    const TEXT: &[u8] = b"\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 22 0:55 / /m\\040n\\134\\012 rw,nodev - fuse.unionmount src rw,user_id=0
91 90 0:56 / /m\\040n\\134\\012 rw,nodev shared:3 master:2 - fuse.other src rw
rubbish
95 22 0:57 / /bytes\xff rw - fuse.fuse-overlayfs fuse-overlayfs rw
";

    #[test]
    fn mounts_are_read() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        let expected = Mount {
            id: 90,
            parent: 22,
            minor: 55,
            mountpoint: PathBuf::from("/m n\\\n"),
            fs_type: "fuse.unionmount".to_owned(),
            source: "src".to_owned(),
        };
        assert_eq!(mounts[1], expected);
        assert!(
            !mounts[0].is_ours()
                && mounts[1].is_ours()
                && !mounts[2].is_ours()
                && mounts[3].is_ours()
        );
        // The later mount covers the earlier.
        assert_eq!(at(&mounts, Path::new("/m n\\\n")).unwrap().id, 91);
        assert!(at(&mounts, Path::new("/m")).is_none());
    }

    #[test]
    fn the_real_file_is_read() {
        assert!(at(&read().unwrap(), Path::new("/")).is_some());
    }
}
