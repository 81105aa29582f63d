//! Inode flags (ioctl_iflags(2), chattr(1)), extended flags (ioctl_xfs_fsgetxattr(2)) and
//! generations.
//!
//! The flags of an upper object are what the view shows, and they bind as on any disk: no process
//! writes to an immutable file, or takes its name away, until the flag is cleared. Those of a lower
//! object are shown as well, but for *immutable* and *append-only*: they protect the layer from its
//! owner, and a lower object is never written anyway. So they would bind no process, and the copy
//! has not got them, as kernel overlayfs's copies have not (it keeps them in an xattr instead, and
//! lets them bind in the view: there an image that its store protects cannot be written over). Of
//! the others, a copy takes along those that have a meaning outside their disk.
//!
//! # Crash
//! Flags, and all of a `struct fsxattr`, change by one system call, on an object that was copied up
//! before (see [`crate::union::copyup::copy`]). Those that a copy takes along are set in the work
//! directory, before it is published.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::Errno;

use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::sys::inode_flags::{FsXattr, fsxattr, set_fsxattr, version};
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::{Inode, Node, NodeId};

/// What binds every process that wants to change an object, its disk's owner included.
const PROTECTING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// The same in `struct fsxattr`: `FS_XFLAG_IMMUTABLE` and `FS_XFLAG_APPEND` (`linux/fs.h`).
const PROTECTING_X: u32 = 0x8 | 0x10;

/// The real object behind a node, open.
struct Behind {
    fd: Arc<OwnedFd>,
    in_upper: bool,
}

impl Union {
    /// The inode flags of a file or directory (`FS_IOC_GETFLAGS`). Errors: ENOTTY where the disk
    /// has none, for other types, and for a removed directory; ESTALE.
    pub fn inode_flags(&self, node: NodeId) -> Result<u32> {
        let inode = self.nodes.table.get(node)?;
        let behind = self.behind(&inode)?;
        Ok(flags_of(&behind)?.bits())
    }

    /// Sets the inode flags of a file or directory (`FS_IOC_SETFLAGS`), in the upper. Only what
    /// differs from [`Union::inode_flags`] is changed there: a lower's disk has flags of its own
    /// (extents, compression) that the upper's does not know. Errors: EROFS, ENOTTY where the
    /// upper's disk has none and for other types, EOPNOTSUPP for flags it does not know, EPERM for
    /// those that the daemon may not set, and those of a copy-up.
    pub fn set_inode_flags(&self, node: NodeId, flags: u32) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.check_writable(&inode)?;
        let wanted = IFlags::from_bits_retain(flags);
        let behind = self.behind(&inode)?;
        let seen = match flags_of(&behind) {
            // A lower whose disk has none is no reason against flags of the copy.
            Err(error) if !behind.in_upper && error.errno() == Errno::NOTTY => IFlags::empty(),
            other => other?,
        };
        let changed = wanted ^ seen;
        if !behind.in_upper && changed.is_empty() {
            return Ok(());
        }
        let upper = self.behind_in_upper(&inode, wanted.contains(IFlags::APPEND))?;
        let now = flags_of(&upper)?;
        let set = ioctl_setflags(&upper.fd, now.difference(changed) | (wanted & changed));
        self.flags_were_set(&inode, set, "FS_IOC_SETFLAGS")
    }

    /// The `struct fsxattr` of a file or directory (`FS_IOC_FSGETXATTR`), in the byte order of the
    /// machine. Errors: as [`Union::inode_flags`].
    pub fn fsxattr(&self, node: NodeId) -> Result<FsXattr> {
        let inode = self.nodes.table.get(node)?;
        fsxattr_of(&self.behind(&inode)?)
    }

    /// Sets the `struct fsxattr` of a file or directory (`FS_IOC_FSSETXATTR`), in the upper: what
    /// differs from [`Union::fsxattr`], as with [`Union::set_inode_flags`]. Errors: as
    /// [`Union::set_inode_flags`], and EINVAL for what the upper's disk does not take.
    pub fn set_fsxattr(&self, node: NodeId, wanted: &FsXattr) -> Result<()> {
        let inode = self.nodes.table.get(node)?;
        self.check_writable(&inode)?;
        let behind = self.behind(&inode)?;
        let seen = match fsxattr_of(&behind) {
            Err(error) if !behind.in_upper && error.errno() == Errno::NOTTY => [0; 28],
            other => other?,
        };
        if !behind.in_upper && *wanted == seen {
            return Ok(());
        }
        let upper = self.behind_in_upper(&inode, is_append_only(wanted))?;
        let mut value = fsxattr_of(&upper)?;
        change_words(&mut value, &seen, wanted);
        let set = set_fsxattr(&upper.fd, &value);
        self.flags_were_set(&inode, set, "FS_IOC_FSSETXATTR")
    }

    /// The object behind a node that is about to be changed, copied up if need be.
    fn behind_in_upper(&self, inode: &Arc<Inode>, append_only: bool) -> Result<Behind> {
        match &inode.node {
            Node::Dir(_) => {
                let dir = self.copy_up_dir(inode)?;
                if append_only {
                    self.before_append_only(inode, &dir)?;
                }
            }
            Node::File(_) => self.copy_up_file(inode, None)?,
        }
        let upper = self.behind(inode)?;
        if !upper.in_upper {
            return fail(Errno::STALE);
        }
        Ok(upper)
    }

    fn flags_were_set(
        &self,
        inode: &Inode,
        set: rustix::io::Result<()>,
        call: &'static str,
    ) -> Result<()> {
        match set {
            // A disk refuses some flags to everybody: an answer for the caller, nothing is wrong
            // with the disk.
            Err(errno @ (Errno::PERM | Errno::INVAL)) => return fail(errno),
            other => other.context(call, b".")?,
        }
        if let Some(mut state) = inode.lock_dir() {
            state.protection = None;
        }
        if let Some(file) = inode.file() {
            // A descriptor that was opened for writing before would not notice.
            file.data.clear();
        }
        // The kernel takes no note of what an ioctl changes.
        self.notify_attributes(inode);
        Ok(())
    }

    /// The generation of the inode behind a file or directory (`FS_IOC_GETVERSION`): a copy has
    /// another one. Errors: as [`Union::inode_flags`].
    pub fn inode_version(&self, node: NodeId) -> Result<u32> {
        let inode = self.nodes.table.get(node)?;
        let behind = self.behind(&inode)?;
        answer(version(&behind.fd), "FS_IOC_GETVERSION")
    }

    fn behind(&self, inode: &Inode) -> Result<Behind> {
        match &inode.node {
            Node::Dir(dir) => {
                let state = lock(&dir.state);
                let (fd, in_upper) = match (&state.upper, state.looks_like()) {
                    (Some(dir), _) => (dir.fd(), true),
                    (None, Some(dir)) => (dir.fd(), false),
                    // Removed: nothing is left of it but its attributes.
                    (None, None) => return fail(Errno::NOTTY),
                };
                let fd = fd.context("open directory", b".")?;
                Ok(Behind { fd, in_upper })
            }
            Node::File(file) if inode.kind == Kind::File => {
                let in_upper = lock(&file.state).is_upper();
                let fd = self.data_fd(inode, false)?;
                Ok(Behind { fd, in_upper })
            }
            // Devices, pipes and sockets are never opened, symlinks cannot be.
            Node::File(_) => fail(Errno::NOTTY),
        }
    }
}

/// The flags that the view shows.
fn flags_of(behind: &Behind) -> Result<IFlags> {
    let flags = answer(ioctl_getflags(&behind.fd), "FS_IOC_GETFLAGS")?;
    Ok(if behind.in_upper {
        flags
    } else {
        flags.difference(PROTECTING)
    })
}

/// The `struct fsxattr` that the view shows.
fn fsxattr_of(behind: &Behind) -> Result<FsXattr> {
    let mut bytes = answer(fsxattr(&behind.fd), "FS_IOC_FSGETXATTR")?;
    if !behind.in_upper
        && let Some(flags) = bytes.first_chunk_mut::<4>()
    {
        *flags = (u32::from_ne_bytes(*flags) & !PROTECTING_X).to_ne_bytes();
    }
    Ok(bytes)
}

/// Changes in `value` what is `wanted` otherwise than it was `seen`: single flags, and the numbers
/// behind them.
fn change_words(value: &mut FsXattr, seen: &FsXattr, wanted: &FsXattr) {
    let words = value.chunks_exact_mut(4).zip(seen.chunks_exact(4));
    for (number, ((value, seen), wanted)) in words.zip(wanted.chunks_exact(4)).enumerate() {
        let flags = number == 0;
        for ((value, seen), wanted) in value.iter_mut().zip(seen).zip(wanted) {
            if flags {
                let changed = seen ^ wanted;
                *value = (*value & !changed) | (wanted & changed);
            }
        }
        if !flags && seen != wanted {
            value.copy_from_slice(wanted);
        }
    }
}

/// The answer of a disk that may have no such thing to read, which is said in several ways; ENOTTY
/// is the one that programs know. EBADF is said of a directory that the daemon may not read.
fn answer<T>(asked: rustix::io::Result<T>, call: &'static str) -> Result<T> {
    match asked {
        Err(Errno::NOTTY | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::BADF) => {
            fail(Errno::NOTTY)
        }
        other => other.context(call, b"."),
    }
}

/// Whether a `struct fsxattr` makes append-only: `FS_XFLAG_APPEND` of its first word, `fsx_xflags`
/// (`linux/fs.h`).
fn is_append_only(value: &FsXattr) -> bool {
    const APPEND: u32 = 0x10;
    value
        .first_chunk()
        .is_some_and(|flags| u32::from_ne_bytes(*flags) & APPEND != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::union::copyup::flags::PORTABLE;
    use crate::union::tests::testing::{
        Marked, Stack, content, errno, file, find, has_flags, mkdir,
    };
    use crate::union::{Caller, New, SetAttr};

    const ROOT: NodeId = NodeId::ROOT;

    fn get(union: &Union, node: NodeId) -> IFlags {
        IFlags::from_bits_retain(union.inode_flags(node).unwrap())
    }

    fn add(union: &Union, node: NodeId, flags: IFlags) -> Result<()> {
        union.set_inode_flags(node, (get(union, node) | flags).bits())
    }

    fn clear(union: &Union, node: NodeId, flags: IFlags) -> Result<()> {
        union.set_inode_flags(node, get(union, node).difference(flags).bits())
    }

    #[test]
    fn flags_of_a_lower_object_go_with_its_copy_but_those_that_protect_it() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        let mut marked = Marked(Vec::new());
        let kept = IFlags::NOATIME | IFlags::NODUMP;
        for (path, text) in [("old/d/f", "old"), ("old/d/empty", ""), ("old/d/cut", "x")] {
            let path = stack.file(path, text);
            marked.set(path, kept | IFlags::IMMUTABLE).unwrap();
        }
        let log = stack.file("old/d/log", "old");
        marked.set(log, kept | IFlags::APPEND).unwrap();
        let dir = stack.at("old/d");
        marked.set(dir, kept | IFlags::IMMUTABLE).unwrap();
        let union = stack.open();
        let paths = ["d", "d/f", "d/empty", "d/cut", "d/log"];
        let seen = |path: &str| {
            let node = find(&union, path).node;
            let xflags = union.fsxattr(node).unwrap();
            let xflags = u32::from_ne_bytes(*xflags.first_chunk().unwrap());
            (get(&union, node) & (PROTECTING | PORTABLE), xflags & 0xff)
        };
        let before = paths.map(seen);
        assert!(before.iter().all(|(flags, _)| *flags == kept));
        assert!(before.iter().all(|(_, xflags)| xflags & PROTECTING_X == 0));
        // Reading them copies nothing up.
        assert!(!stack.at("upper/d").exists());
        for path in ["d/f", "d/empty", "d/log"] {
            let node = find(&union, path).node;
            union.write(node, 0, b"new").unwrap();
            assert_eq!(content(&union, node), "new");
        }
        let set = SetAttr {
            size: Some(0),
            ..SetAttr::default()
        };
        union.setattr(find(&union, "d/cut").node, &set).unwrap();
        assert_eq!(paths.map(seen), before);
        let lower = std::fs::read_to_string(stack.at("old/d/f")).unwrap();
        assert_eq!(lower, "old");
    }

    #[test]
    fn a_flag_is_set_in_the_upper_and_binds_there() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        stack.file("old/d/f", "old");
        let union = stack.open();
        let (d, node) = (find(&union, "d").node, find(&union, "d/f").node);
        // Nothing changes: no reason for a copy.
        add(&union, node, IFlags::empty()).unwrap();
        assert!(!stack.at("upper/d").exists());
        // A descriptor that is open for writing does not get around it.
        union.write(node, 0, b"new").unwrap();
        let _marked = Marked(vec![stack.at("upper/d/f")]);
        add(&union, node, IFlags::IMMUTABLE).unwrap();
        assert!(get(&union, node).contains(IFlags::IMMUTABLE));
        let on_disk = std::fs::File::open(stack.at("upper/d/f")).unwrap();
        assert!(
            ioctl_getflags(&on_disk)
                .unwrap()
                .contains(IFlags::IMMUTABLE)
        );
        assert_eq!(content(&union, node), "new");
        assert!(union.backing(node).unwrap().is_none());
        assert_eq!(errno(union.write(node, 0, b"no")), Errno::PERM);
        assert_eq!(errno(union.unlink(d, b"f")), Errno::PERM);
        assert!(!stack.at("upper/d/.wh.f").exists());
        assert_eq!(errno(union.link(node, d, b"g")), Errno::PERM);
        drop(union);
        let union = stack.open();
        let (d, node) = (find(&union, "d").node, find(&union, "d/f").node);
        assert_eq!(errno(union.write(node, 0, b"no")), Errno::PERM);
        clear(&union, node, IFlags::IMMUTABLE).unwrap();
        union.write(node, 0, b"yes").unwrap();
        union.unlink(d, b"f").unwrap();
        assert_eq!(stack.staged(), 0);
    }

    #[test]
    fn extended_flags_are_set_as_they_are_shown() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        let mut marked = Marked(Vec::new());
        marked
            .set(stack.file("old/d/f", "old"), IFlags::IMMUTABLE)
            .unwrap();
        let union = stack.open();
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        union.notify_attributes_to(move |node| lock(&hears).push(node));
        let node = find(&union, "d/f").node;
        let shown = union.fsxattr(node).unwrap();
        // As it is: no reason for a copy.
        union.set_fsxattr(node, &shown).unwrap();
        assert!(!stack.at("upper/d").exists() && lock(&told).is_empty());
        let mut wanted = shown;
        let flags = u32::from_ne_bytes(*shown.first_chunk().unwrap());
        // FS_XFLAG_NODUMP
        wanted[..4].copy_from_slice(&(flags | 0x80).to_ne_bytes());
        union.set_fsxattr(node, &wanted).unwrap();
        assert!(get(&union, node).contains(IFlags::NODUMP));
        assert!(lock(&told).contains(&node), "its ctime is another one");
        assert_eq!(content(&union, node), "old");
        union.set_fsxattr(node, &shown).unwrap();
        assert!(!get(&union, node).contains(IFlags::NODUMP));
        // The flags of the layer's disk bind there only.
        assert!(!get(&union, node).contains(IFlags::IMMUTABLE));
    }

    #[test]
    fn words_change_where_they_are_wanted_otherwise() {
        let words = |flags: u32, project: u32| -> FsXattr {
            let mut all = [0; 28];
            all[..4].copy_from_slice(&flags.to_ne_bytes());
            all[12..16].copy_from_slice(&project.to_ne_bytes());
            all
        };
        let mut value = words(0b1100, 7);
        change_words(&mut value, &words(0b0011, 5), &words(0b0101, 5));
        assert_eq!(value, words(0b1100, 7));
        change_words(&mut value, &words(0b1000, 5), &words(0b0001, 6));
        assert_eq!(value, words(0b0101, 6));
    }

    #[test]
    fn an_append_only_file_grows() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        stack.file("old/log", "one\n");
        let union = stack.open();
        let node = find(&union, "log").node;
        let _marked = Marked(vec![stack.at("upper/log")]);
        add(&union, node, IFlags::APPEND).unwrap();
        union.write(node, 4, b"two\n").unwrap();
        // A page of the kernel's cache, from its beginning.
        union.write_back(node, 0, b"one\ntwo\nthree\n").unwrap();
        union.write_back(node, 4, b"two\n").unwrap();
        assert_eq!(content(&union, node), "one\ntwo\nthree\n");
        for (offset, data) in [(0, &b"ONE\n"[..]), (10, b"rewritten"), (100, b"gap")] {
            let written = union.write(node, offset, data);
            assert_eq!(errno(written), Errno::PERM, "{offset}");
        }
        let set = SetAttr {
            size: Some(0),
            ..SetAttr::default()
        };
        assert_eq!(errno(union.setattr(node, &set)), Errno::PERM);
        assert_eq!(content(&union, node), "one\ntwo\nthree\n");
    }

    #[test]
    fn directories_have_flags() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        stack.file("old/d/f", "old");
        let union = stack.open();
        let d = find(&union, "d").node;
        let _marked = Marked(vec![stack.at("upper/d")]);
        add(&union, d, IFlags::IMMUTABLE | IFlags::NODUMP).unwrap();
        let made = union.make(d, b"g", &file(0o600), &Caller::default());
        assert_eq!(errno(made), Errno::PERM);
        assert_eq!(errno(union.unlink(d, b"f")), Errno::PERM);
        assert_eq!(content(&union, find(&union, "d/f").node), "old");
        clear(&union, d, IFlags::IMMUTABLE).unwrap();
        union.unlink(d, b"f").unwrap();
        assert!(get(&union, d).contains(IFlags::NODUMP));
        assert_eq!(stack.staged(), 0);
    }

    #[test]
    fn a_file_without_a_name_has_flags() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        let union = stack.open();
        let Ok(made) = union.tmpfile(ROOT, 0o600, &Caller::default()) else {
            return;
        };
        add(&union, made.node, IFlags::NODUMP).unwrap();
        union.link(made.node, ROOT, b"f").unwrap();
        assert!(get(&union, find(&union, "f").node).contains(IFlags::NODUMP));
    }

    #[test]
    fn what_cannot_have_flags_says_so() {
        let stack = Stack::new();
        stack.file("old/f", "old");
        let union = stack.open();
        let link = New::Symlink { target: b"f" };
        let made = union.make(ROOT, b"s", &link, &Caller::default());
        let link = made.unwrap().node;
        let gone = mkdir(&union, "gone", 0o755);
        union.rmdir(ROOT, b"gone").unwrap();
        for node in [link, gone] {
            assert_eq!(errno(union.inode_flags(node)), Errno::NOTTY);
            assert_eq!(errno(union.set_inode_flags(node, 0)), Errno::NOTTY);
            assert_eq!(errno(union.fsxattr(node)), Errno::NOTTY);
            assert_eq!(errno(union.set_fsxattr(node, &[0; 28])), Errno::NOTTY);
            assert_eq!(errno(union.inode_version(node)), Errno::NOTTY);
        }
        let union = stack.open_read_only();
        let node = find(&union, "f").node;
        assert_eq!(errno(union.set_inode_flags(node, 0)), Errno::ROFS);
        if has_flags(&stack) {
            let number = std::fs::File::open(stack.at("old/f")).unwrap();
            assert_eq!(
                union.inode_version(node).unwrap(),
                version(&number).unwrap()
            );
        }
    }
}
