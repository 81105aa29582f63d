//! Recording whiteouts and opaque marks of an archive in the directory of a layer.
//!
//! A `.wh.` file beside a name hides nothing of its own layer, so it can be written at once. A mark
//! at the name itself can not share it with an entry of the layer: one that is there already hides
//! what is below by itself, if it is a directory by being opaque; one that comes later replaces the
//! mark (see `apply.rs`).

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::Whiteouts;
use super::error::{Context as _, Result};
use crate::layer::marks::own::set_own_xattr;
use crate::layer::marks::whiteout_name;
use crate::layer::marks::write::{
    NAMESPACES, OpaqueValue, create_opaque_file, create_whiteout_device, create_whiteout_file,
    create_xattr_whiteout, opaque_xattr, set_opaque_xattr,
};
use crate::layer::stat::{Kind, Stat};

/// Writes marks of one form.
pub(super) struct Marks {
    form: Whiteouts,
}

impl Marks {
    pub(super) fn new(form: Whiteouts) -> Self {
        Self { form }
    }

    /// The layers below have no `hidden` in this directory.
    pub(super) fn whiteout(&self, dir: &Arc<OwnedFd>, hidden: &[u8]) -> Result<()> {
        if self.form == Whiteouts::Wh
            && let Some(name) = whiteout_name(hidden)
        {
            return create_whiteout_file(dir, hidden).context("create whiteout", &name);
        }
        match Stat::of_entry(dir, hidden) {
            Err(Errno::NOENT) => mark_in_place(dir, hidden),
            Ok(stat) if stat.kind() == Kind::Dir => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = openat(dir, hidden, flags, Mode::empty()).context("open", hidden)?;
                make_opaque(&Arc::new(inner), self.form)
            }
            // It hides them by itself, or is the same mark.
            Ok(_) => Ok(()),
            Err(errno) => Err(errno).context("stat", hidden),
        }
    }

    /// The layers below have nothing at all in this directory.
    pub(super) fn opaque(&self, dir: &Arc<OwnedFd>) -> Result<()> {
        make_opaque(dir, self.form)
    }
}

/// Has a directory say that no entry describes it, and what its metadata is then
/// ([`crate::layer::marks::IMPLIED`]), or the root that there are such
/// ([`crate::layer::marks::HAS_IMPLIED`]). Where no xattr can be set it has its own metadata.
pub(super) fn say(dir: &Arc<OwnedFd>, name: &str, value: &[u8]) -> Result<()> {
    let set = set_own_xattr(dir, name, value);
    set.map(drop).context("setxattr", name.as_bytes())
}

/// Hides a name, which nothing has, by something of that name: a 0/0 device, or an empty file with
/// an xattr where none can be made.
fn mark_in_place(dir: &Arc<OwnedFd>, hidden: &[u8]) -> Result<()> {
    match create_whiteout_device(dir, hidden) {
        Err(Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL) => mark_by_xattr(dir, hidden),
        other => other.context("mknod whiteout", hidden),
    }
}

/// An empty file with an xattr, in a directory that says that there are such files.
fn mark_by_xattr(dir: &Arc<OwnedFd>, hidden: &[u8]) -> Result<()> {
    // A directory that is opaque by an xattr hides the name anyway, and has no room for the other
    // meaning.
    match opaque_xattr(dir, &NAMESPACES).context("getxattr", b".")? {
        Some(OpaqueValue::Opaque) => return Ok(()),
        Some(OpaqueValue::HoldsXattrWhiteouts) => {}
        None => set_opaque_xattr(dir, &NAMESPACES, OpaqueValue::HoldsXattrWhiteouts)
            .context("setxattr", b".")?,
    }
    create_xattr_whiteout(dir, hidden, &NAMESPACES).context("create whiteout", hidden)
}

/// Makes a directory hide everything below it.
fn make_opaque(dir: &Arc<OwnedFd>, form: Whiteouts) -> Result<()> {
    let by_file = || create_opaque_file(dir).context("create opaque mark", b".");
    if form == Whiteouts::Wh {
        return by_file();
    }
    match opaque_xattr(dir, &NAMESPACES).context("getxattr", b".")? {
        // The xattr has no room for the other meaning.
        Some(OpaqueValue::HoldsXattrWhiteouts) => by_file(),
        _ => set_opaque_xattr(dir, &NAMESPACES, OpaqueValue::Opaque).or_else(|_| by_file()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::extract::is_mark;
    use super::super::listing::LayerListing;
    use super::*;
    use crate::layer::{FdCache, ReadOnlyDir};

    /// Where no device can be made, whiteouts are read back from xattrs, also beside an opaque
    /// mark.
    #[test]
    fn whiteouts_by_xattr_are_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(dir.path()).unwrap());
        let fd = Arc::new(open());
        std::fs::write(dir.path().join("empty"), "").unwrap();
        mark_by_xattr(&fd, b"gone").unwrap();
        mark_by_xattr(&fd, b"gone").unwrap();
        assert!(is_mark(&fd, b"gone").unwrap() && !is_mark(&fd, b"empty").unwrap());
        let layer = ReadOnlyDir::alone(open(), &FdCache::new(16));
        let listing = LayerListing::read(&layer, false).unwrap();
        let names: Vec<&[u8]> = listing.whiteouts.iter().map(|name| &name[..]).collect();
        assert_eq!((names, listing.opaque), (vec![&b"gone"[..]], false));
        assert!(listing.entries.contains(&b"empty"[..]));
        make_opaque(&fd, Whiteouts::Char).unwrap();
        let listing = LayerListing::read(&layer, false).unwrap();
        assert!(listing.opaque && listing.whiteouts.contains(&b"gone"[..]));
    }

    /// An xattr says that everything is hidden: there is nothing to be added.
    #[test]
    fn an_opaque_directory_needs_no_whiteout_by_xattr() {
        let dir = tempfile::tempdir().unwrap();
        let fd = Arc::new(OwnedFd::from(std::fs::File::open(dir.path()).unwrap()));
        make_opaque(&fd, Whiteouts::Char).unwrap();
        mark_by_xattr(&fd, b"gone").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
