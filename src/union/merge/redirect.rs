//! Redirects: a renamed directory that keeps its lower part where it was (`overlayfs.rst`,
//! "redirect_dir").
//!
//! They are always followed, in any layer; they are written only with `redirect_dir=on`.

use rustix::io::Errno;

use crate::layer::dir::{Name, Source};
use crate::layer::marks::read::{has_opaque_xattr, has_whiteout_file, is_opaque, redirect};
use crate::layer::marks::write::set_redirect;
use crate::layer::stat::Kind;
use crate::layer::{ReadOnlyDir, WritableDir};
use crate::union::Union;
use crate::union::error::{Context, Result, fail};
use crate::union::node::inode::DirState;
use crate::union::node::stack::Redirect;
use crate::union::work::writable::Writable;

/// Redirects that lead to redirects that lead to ..: more than this is a loop.
pub(super) const DEPTH: usize = 40;

/// The roots from which absolute redirects start: those of the lower layers that show at the merged
/// root. `plain_wh_names` says that `.wh.` names of the upper are ordinary ones.
pub(in crate::union) fn visible_roots(
    upper: Option<&WritableDir>,
    plain_wh_names: bool,
    lowers: &[ReadOnlyDir],
) -> Vec<ReadOnlyDir> {
    let hides_all = |upper: &WritableDir| {
        if plain_wh_names {
            has_opaque_xattr(upper)
        } else {
            is_opaque(upper)
        }
    };
    if upper.is_some_and(hides_all) {
        return Vec::new();
    }
    let detach_tree = lowers.iter().position(|lower| is_opaque(lower));
    lowers[..detach_tree.map_or(lowers.len(), |last| last + 1)].to_vec()
}

impl Union {
    /// The lower directories that a redirect found in a directory leads to. A target that is not
    /// there yields none: the directory then has no lower part.
    pub(in crate::union) fn follow_redirect(
        &self,
        parent: &DirState,
        redirect: &Redirect,
    ) -> Result<Vec<ReadOnlyDir>> {
        self.resolve(&parent.lowers, redirect.layer, &redirect.target, DEPTH)
    }

    pub(super) fn resolve(
        &self,
        siblings: &[ReadOnlyDir],
        above: Source,
        target: &[u8],
        depth: usize,
    ) -> Result<Vec<ReadOnlyDir>> {
        if depth == 0 {
            return fail(Errno::LOOP);
        }
        let below = |dirs: &[ReadOnlyDir]| -> Vec<ReadOnlyDir> {
            let lower = dirs.iter().filter(|dir| dir.source() > above);
            lower.cloned().collect()
        };
        let mut stack = match target.strip_prefix(b"/") {
            Some(_) => below(&self.layers.redirect_roots),
            None => below(siblings),
        };
        for name in target.split(|byte| *byte == b'/').filter(|n| !n.is_empty()) {
            if name == b"." || name == b".." {
                return Ok(Vec::new());
            }
            stack = self.step(&stack, &Name::from(name), depth)?;
        }
        Ok(stack)
    }

    /// The stack rule for one name, without an inode: the directories of that name in a stack of
    /// lowers.
    fn step(&self, stack: &[ReadOnlyDir], name: &Name, depth: usize) -> Result<Vec<ReadOnlyDir>> {
        let mut found = Vec::new();
        for dir in stack {
            match dir.stat_entry(name) {
                Ok(stat) if stat.kind() == Kind::Dir => {
                    let child = dir.child(name);
                    let xattrs = child.xattrs().context("open directory", name)?;
                    let redirect = redirect(&xattrs);
                    let opaque = is_opaque(&child);
                    found.push(child);
                    if let Some(target) = redirect {
                        found.extend(self.resolve(stack, dir.source(), &target, depth - 1)?);
                        return Ok(found);
                    }
                    if opaque {
                        return Ok(found);
                    }
                }
                Ok(_) => return Ok(found),
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno).context("stat", name),
            }
            if has_whiteout_file(dir, name).unwrap_or(false) {
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Stores on a directory of the upper, and returns, where its lower part is, as a path from the
    /// layers' roots.
    pub(in crate::union) fn write_redirect(
        &self,
        writable: &Writable,
        dir: &WritableDir,
        state: &DirState,
    ) -> Result<Redirect> {
        let (Some(namespace), Some(path)) = (
            writable.abilities.overlay_xattrs,
            state.lowers.first().and_then(|lower| lower.path()),
        ) else {
            return fail(Errno::XDEV);
        };
        let mut target = Vec::new();
        for name in path {
            target.push(b'/');
            target.extend_from_slice(&name);
        }
        dir.this()
            .and_then(|this| set_redirect(&this, namespace, &target))
            .context("setxattr redirect", b".")?;
        Ok(Redirect {
            layer: Source::Upper,
            target: Name::from(target),
        })
    }
}
