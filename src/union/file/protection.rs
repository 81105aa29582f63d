//! Immutable and append-only (chattr(1)): who looks at them first.
//!
//! The upper's disk refuses with EPERM all that they forbid, and so the union need not ask for
//! them, but for two things:
//!
//! * On a disk the right to take a name away comes before what it leads to (`may_delete` in the
//!   kernel's `fs/namei.c`). Removing a directory that is not empty fails because it may not be
//!   removed at all.
//! * A name that only lower layers have is taken away by writing a mark, which an append-only
//!   directory of a disk lets every user do, and a file without a name is made in the work
//!   directory.

use rustix::io::Errno;

use crate::layer::WritableDir;
use crate::layer::stat::Protection;
use crate::sync::lock;
use crate::union::Union;
use crate::union::error::{Error, Result, fail};
use crate::union::node::inode::{DirState, Inode, Node};

impl Union {
    /// What protects a directory, by its upper's directory: those of layers protect the layer only
    /// (see [`crate::union::file::flags`]). It is remembered until the flags are set, but in
    /// volumes.
    fn protection(state: &mut DirState) -> Protection {
        let Some(upper) = &state.upper else {
            return Protection::default();
        };
        if let Some(known) = state.protection {
            return known;
        }
        // The caller goes on, and gets the error there.
        let found = upper
            .fd()
            .map_or_else(|_| Protection::default(), Protection::of);
        if !state.is_shared() {
            state.protection = Some(found);
        }
        found
    }

    /// Before a name is taken from a directory by nothing but a mark. Errors: EPERM where the
    /// directory is immutable or append-only.
    pub(in crate::union) fn check_may_hide(state: &mut DirState) -> Result<()> {
        if Self::protection(state).binds() {
            return fail(Errno::PERM);
        }
        Ok(())
    }

    /// Before something is made beside a directory that belongs into it. Errors: EPERM where the
    /// directory is immutable.
    pub(in crate::union) fn check_may_add(state: &mut DirState) -> Result<()> {
        if Self::protection(state).immutable {
            return fail(Errno::PERM);
        }
        Ok(())
    }

    /// Before a directory becomes append-only: entries with an origin may come into it, and no
    /// xattr could say so then.
    pub(in crate::union) fn before_append_only(
        &self,
        inode: &Inode,
        dir: &WritableDir,
    ) -> Result<()> {
        let Some(mut state) = inode.lock_dir().filter(|state| !state.is_shared()) else {
            return Ok(());
        };
        self.mark_impure(self.writable()?, dir, &mut state)
    }

    /// Whether a change of an object fails because it is immutable or append-only.
    pub(in crate::union) fn is_protected(&self, inode: &Inode) -> bool {
        match &inode.node {
            Node::Dir(dir) => Self::protection(&mut lock(&dir.state)).binds(),
            Node::File(file) => {
                let state = lock(&file.state);
                state.is_upper()
                    && self
                        .object_of(inode, &state)
                        .is_ok_and(|object| Protection::of(object.fd()).binds())
            }
        }
    }

    /// The error of a removal of a directory that is not permitted, when it is not empty: EPERM
    /// where one of `inodes`, it and those that have the names, is protected. No lock is held.
    pub(in crate::union) fn unless_protected(&self, error: Error, inodes: &[&Inode]) -> Error {
        let comes_first =
            error.errno() == Errno::NOTEMPTY && inodes.iter().any(|inode| self.is_protected(inode));
        if comes_first {
            Error::rule(Errno::PERM)
        } else {
            error
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::fs::IFlags;

    use super::*;
    use crate::union::config::WhiteoutForm;
    use crate::union::tests::testing::{Marked, Stack, errno, file, find, has_flags, mkdir};
    use crate::union::{Caller, Config, New, NodeId, RenameMode};

    const ROOT: NodeId = NodeId::ROOT;
    const FORMS: [WhiteoutForm; 2] = [WhiteoutForm::Wh, WhiteoutForm::Char];

    fn open(stack: &Stack, whiteout: WhiteoutForm) -> Union {
        let config = stack.config();
        Union::open(&Config { whiteout, ..config }).unwrap()
    }

    fn set(union: &Union, path: &str, flags: IFlags) {
        let node = find(union, path).node;
        let others = IFlags::from_bits_retain(union.inode_flags(node).unwrap());
        let others = others.difference(IFlags::IMMUTABLE | IFlags::APPEND);
        union
            .set_inode_flags(node, (others | flags).bits())
            .unwrap();
    }

    #[test]
    fn who_may_not_remove_a_directory_is_told_so_whatever_is_in_it() {
        for form in FORMS {
            let stack = Stack::new();
            if !has_flags(&stack) {
                return;
            }
            stack.file("old/lower/dir/f", "");
            let union = open(&stack, form);
            let dir = New::Dir { mode: 0o755 };
            let mut marked = Marked(Vec::new());
            for name in ["immutable", "append", "self"] {
                let node = mkdir(&union, name, 0o755);
                let inner = union.make(node, b"dir", &dir, &Caller::default());
                let inner = inner.unwrap().node;
                let made = union.make(inner, b"f", &file(0o600), &Caller::default());
                made.unwrap();
            }
            mkdir(&union, "other", 0o755);
            for (path, flag) in [
                ("immutable", IFlags::IMMUTABLE),
                ("lower", IFlags::IMMUTABLE),
                ("append", IFlags::APPEND),
                ("self/dir", IFlags::IMMUTABLE),
            ] {
                set(&union, path, flag);
                marked.0.push(stack.at("upper").join(path));
            }
            let parents = ["immutable", "lower", "append", "self"];
            let answers = |expected| {
                for path in parents {
                    let parent = find(&union, path).node;
                    assert_eq!(errno(union.rmdir(parent, b"dir")), expected, "{path}");
                    let over = union.rename(ROOT, b"other", parent, b"dir", RenameMode::Replace);
                    assert_eq!(errno(over), expected, "{path}");
                }
            };
            answers(Errno::PERM);
            for path in ["immutable", "lower", "append", "self/dir"] {
                set(&union, path, IFlags::empty());
            }
            answers(Errno::NOTEMPTY);
            // And a move that is not permitted fails so regardless of what is in the way.
            set(&union, "other", IFlags::IMMUTABLE);
            marked.0.push(stack.at("upper/other"));
            answers_of_moving_other(&union);
            assert_eq!(stack.staged(), 0);
        }
    }

    fn answers_of_moving_other(union: &Union) {
        let parent = find(union, "self").node;
        let over = union.rename(ROOT, b"other", parent, b"dir", RenameMode::Replace);
        assert_eq!(errno(over), Errno::PERM);
    }

    #[test]
    fn an_append_only_directory_keeps_the_names_of_its_layers() {
        for form in FORMS {
            let stack = Stack::new();
            if !has_flags(&stack) {
                return;
            }
            for path in ["d/f", "d/g", "d/sub/x", "from"] {
                stack.file(&format!("old/{path}"), "old");
            }
            std::fs::create_dir(stack.at("old/d/empty")).unwrap();
            let union = open(&stack, form);
            let d = find(&union, "d").node;
            set(&union, "d", IFlags::APPEND);
            let _marked = Marked(vec![stack.at("upper/d")]);
            let refused = || {
                let to = |name| union.rename(d, name, ROOT, b"away", RenameMode::Replace);
                let over = || union.rename(ROOT, b"from", d, b"g", RenameMode::Replace);
                [
                    errno(union.unlink(d, b"f")),
                    errno(union.rmdir(d, b"empty")),
                    errno(to(b"f")),
                    errno(to(b"sub")),
                    errno(over()),
                    errno(union.rename(d, b"f", d, b"h", RenameMode::NoReplace)),
                    errno(union.rename(d, b"f", d, b"g", RenameMode::Exchange)),
                ]
            };
            assert_eq!(refused(), [Errno::PERM; 7]);
            let made = union.make(d, b"new", &file(0o600), &Caller::default());
            made.unwrap();
            union
                .rename(ROOT, b"from", d, b"come", RenameMode::NoReplace)
                .unwrap();
            drop(union);
            let union = open(&stack, form);
            for path in ["d/f", "d/g", "d/sub/x", "d/empty", "d/new", "d/come"] {
                find(&union, path);
            }
            // What is in it changes as ever.
            union.write(find(&union, "d/g").node, 0, b"new").unwrap();
            let d = find(&union, "d").node;
            assert_eq!(errno(union.unlink(d, b"f")), Errno::PERM);
            set(&union, "d", IFlags::empty());
            union.unlink(d, b"f").unwrap();
            union.rmdir(d, b"empty").unwrap();
            assert_eq!(stack.staged(), 0);
        }
    }

    #[test]
    fn what_the_disk_is_not_asked_for_is_refused_all_the_same() {
        let stack = Stack::new();
        if !has_flags(&stack) {
            return;
        }
        let union = stack.open();
        let d = mkdir(&union, "d", 0o755);
        let made = union.make(d, b"f", &file(0o600), &Caller::default());
        let f = made.unwrap().node;
        let _marked = Marked(vec![stack.at("upper/d/f"), stack.at("upper/d")]);
        let remove = |node, name: &[u8]| errno(union.removexattr(node, name));
        assert_eq!(remove(f, b"user.none"), Errno::NODATA);
        set(&union, "d/f", IFlags::APPEND);
        assert_eq!(remove(f, b"user.none"), Errno::PERM);
        assert_eq!(remove(f, b"system.posix_acl_access"), Errno::PERM);
        let unnamed = || union.tmpfile(d, 0o600, &Caller::default());
        let before = unnamed().map(|_| ()).map_err(|error| error.errno());
        set(&union, "d", IFlags::APPEND);
        let after = unnamed().map(|_| ()).map_err(|error| error.errno());
        assert_eq!(after, before);
        set(&union, "d", IFlags::IMMUTABLE);
        assert_eq!(errno(unnamed()), Errno::PERM);
        assert_eq!(remove(d, b"user.none"), Errno::PERM);
    }
}
