//! Rewriting the marks of a layer in place: as `.wh.` files (`wh`) or as 0/0 devices and opaque xattrs (`char`).
//!
//! # Crash
//! In each directory the new marks are made first and brought to the disk, then the old ones are removed. Killed
//! between any two steps, a name is hidden by a mark of either form or by both, and a directory is opaque by
//! either or both: a reader of all forms (this program) sees the same tree at every moment. Kernel overlayfs, which
//! reads one form only, has to wait until the conversion was run again to its end; it finds what is left by itself.
//! The root says that `.wh.` names are ordinary ones as the last step towards `char`, and takes it back as the first
//! step towards `wh`. The times of a directory are remembered in an xattr before anything in it changes, and put back
//! when it is done: killed before, its mtime is that of the conversion, until that was run again to its end.

use std::path::{Path, PathBuf};

use rustix::fs::{RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::names::DotNames;
use super::users_of;
use crate::layer::dir::Name;
use crate::layer::mark::{
    OPAQUE_FILE, TRUSTED_PREFIX, USER_PREFIX, WH_META_PREFIX, WH_PREFIX, whiteout_name,
};
use crate::layer::marks::inventory::Marks;
use crate::layer::stat::{Kind, Time};
use crate::layer::upper::SetTime;
use crate::layer::{FdCache, UpperDir};
use crate::union::config::SetupError;
use crate::union::{FORM_XATTR, KERNEL_ROOT_XATTRS, open_root};

/// Descriptors that a walk keeps open at most.
const CACHED_FDS: usize = 128;
/// The name under which a device is made before it takes the place of a file: readers pass such names over.
const STAGED: &[u8] = b".wh..wh.convert";
const MARK_MODE: u32 = 0o444;
const IMPURE: &str = "impure";

/// A form of marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.wh.NAME` and `.wh..wh..opq` files: OCI layers, stores of engines with a mount program.
    Wh,
    /// 0/0 devices and opaque xattrs: kernel overlayfs.
    Char,
}

/// What was rewritten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Whiteouts.
    pub whiteouts: usize,
    /// Opaque directories.
    pub opaque: usize,
    /// Leftovers without meaning that kernel overlayfs would show, removed.
    pub leftovers: usize,
    /// Whiteouts of names that are too long for a `.wh.` file: those stay devices.
    pub kept: usize,
}

/// What went wrong, and where.
struct Trouble {
    call: &'static str,
    path: PathBuf,
    errno: Errno,
}

type Step<T> = std::result::Result<T, Trouble>;

/// Rewrites all marks of a layer. Other file systems that are mounted in it are left alone.
///
/// # Errors
/// A directory that is in use, that cannot be read or written, whose disk cannot store the form; a name that would
/// become a mark.
pub fn convert(layer: &Path, to: Form) -> Result<Converted, SetupError> {
    if let Some(user) = users_of(layer).first() {
        return Err(SetupError::new(
            format!("{} is in use by {user}", layer.display()),
            "unmount that first",
        ));
    }
    let fd = open_root(layer).map_err(|errno| {
        SetupError::new(
            format!("cannot open {}: {errno}", layer.display()),
            "give the directory of a layer, which you may read and write",
        )
    })?;
    convert_open(&UpperDir::root(fd, &FdCache::new(CACHED_FDS)), layer, to)
}

/// The same for a layer that is open, and that nobody uses.
pub(super) fn convert_open(
    root: &UpperDir,
    layer: &Path,
    to: Form,
) -> Result<Converted, SetupError> {
    run(root, to).map_err(|trouble| {
        let Trouble { call, path, errno } = trouble;
        let cure = match errno {
            // Found by ourselves, before anything was changed.
            Errno::EXIST => "rename it, since that name would be a mark",
            Errno::PERM | Errno::ACCESS => {
                "convert as root, or as the owner of the layer; what was done so far stays valid"
            }
            Errno::OPNOTSUPP => "the disk cannot store marks of this form; use the other one",
            _ => "see to it and run the conversion again; what was done so far stays valid",
        };
        SetupError::new(
            format!("{call} {}: {errno}", layer.join(path).display()),
            cure,
        )
    })
}

fn at<T>(call: &'static str, path: &Path, result: rustix::io::Result<T>) -> Step<T> {
    result.map_err(|errno| Trouble {
        call,
        path: path.to_owned(),
        errno,
    })
}

fn run(root: &UpperDir, to: Form) -> Step<Converted> {
    let top = Path::new("");
    let names = DotNames::of(root).map_err(|(path, errno)| Trouble {
        call: "read",
        path,
        errno,
    })?;
    if let Some(path) = &names.ordinary
        && (to == Form::Wh || names.marks)
    {
        return Err(Trouble {
            call: "keep the ordinary name",
            path: path.clone(),
            errno: Errno::EXIST,
        });
    }
    // Towards devices they stay what they are.
    let plain_names = at("read", top, has_form_mark(root))? || names.ordinary.is_some();
    if to == Form::Wh {
        at("setxattr", top, forget_devices(root))?;
    }
    let device = at("stat", top, root.stat())?.dev;
    let namespace = if at("setxattr", top, writes_trusted(root))? {
        "trusted."
    } else {
        "user."
    };
    let mut job = Job {
        to,
        times: format!("{}times", at("setxattr", top, own_prefix(root))?),
        plain_names: plain_names && to == Form::Char,
        opaque: format!("{namespace}overlay.opaque"),
        done: Converted::default(),
    };
    let mut todo = vec![(root.clone(), PathBuf::new())];
    while let Some((dir, path)) = todo.pop() {
        // Somebody else's disk.
        if at("stat", &path, dir.stat())?.dev != device {
            continue;
        }
        let directories = at("convert", &path, job.directory(&dir))?;
        for name in directories {
            todo.push((dir.child(&name), path.join(super::report::path_of(&name))));
        }
    }
    if to == Form::Char {
        at("setxattr", top, remember_devices(root))?;
    }
    Ok(job.done)
}

/// Times of a directory, as they are put back.
struct Times {
    atime: Time,
    mtime: Time,
    /// They are from before a conversion that was interrupted.
    interrupted: bool,
}

impl Times {
    fn value(&self) -> Vec<u8> {
        let Self { atime, mtime, .. } = self;
        format!(
            "{}.{}:{}.{}",
            atime.secs, atime.nanos, mtime.secs, mtime.nanos
        )
        .into_bytes()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let time = |text: &str| {
            let (secs, nanos) = text.split_once('.')?;
            Some(Time {
                secs: secs.parse().ok()?,
                nanos: nanos.parse().ok()?,
            })
        };
        let (atime, mtime) = std::str::from_utf8(value).ok()?.split_once(':')?;
        Some(Self {
            atime: time(atime)?,
            mtime: time(mtime)?,
            interrupted: true,
        })
    }
}

struct Job {
    to: Form,
    /// The xattr that remembers a directory's times.
    times: String,
    plain_names: bool,
    /// The xattr that makes a directory opaque.
    opaque: String,
    done: Converted,
}

impl Job {
    /// Rewrites the marks of one directory and gives the directories in it.
    fn directory(&mut self, dir: &UpperDir) -> rustix::io::Result<Vec<Name>> {
        let marks = Marks::read(dir, self.plain_names)?;
        let times = self.remember_times(dir, &marks)?;
        let changed = match self.to {
            Form::Wh => self.write_files(dir, &marks)?,
            Form::Char => self.write_devices(dir, &marks)?,
        };
        if changed || times.interrupted {
            dir.this()?
                .utimens(SetTime::At(times.atime), SetTime::At(times.mtime))?;
        }
        match dir.this()?.remove_xattr(self.times.as_bytes()) {
            Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(marks.directories),
            Err(errno) => Err(errno),
        }
    }

    /// The times of a directory before it is changed: those that an interrupted conversion left, or those it has, which
    /// are then left for the next one.
    fn remember_times(&self, dir: &UpperDir, marks: &Marks) -> rustix::io::Result<Times> {
        let left = dir.xattrs()?.get_opt(self.times.as_bytes())?;
        if let Some(times) = left.as_deref().and_then(Times::parse) {
            return Ok(times);
        }
        let stat = dir.stat()?;
        let times = Times {
            atime: stat.atime,
            mtime: stat.mtime,
            interrupted: false,
        };
        if marks.any() {
            let value = times.value();
            let set = dir
                .this()?
                .set_xattr(self.times.as_bytes(), &value, XattrFlags::empty());
            if let Err(errno) = set {
                log::debug!("the times of a directory are not remembered: {errno}");
            }
        }
        Ok(times)
    }

    fn write_files(&mut self, dir: &UpperDir, marks: &Marks) -> rustix::io::Result<bool> {
        let in_place = || marks.devices.iter().chain(&marks.xattr_files);
        let long = in_place().filter(|name| whiteout_name(name).is_none());
        self.done.kept += long.count();
        let mut changed = false;
        for mark in in_place().filter_map(|name| whiteout_name(name)) {
            make_file(dir, &mark)?;
            self.done.whiteouts += 1;
            changed = true;
        }
        if !marks.opaque_xattrs.is_empty() {
            make_file(dir, OPAQUE_FILE)?;
            self.done.opaque += 1;
            changed = true;
        }
        let kept = |names: &[Name]| names.iter().any(|name| whiteout_name(name).is_none());
        let announces = !marks.announcing_xattrs.is_empty() && !kept(&marks.xattr_files);
        if !changed && !announces {
            return Ok(false);
        }
        rustix::fs::fsync(dir.fd()?)?;
        for name in in_place().filter(|name| whiteout_name(name).is_some()) {
            dir.unlink(name)?;
        }
        for xattr in &marks.opaque_xattrs {
            remove_xattr(dir, xattr)?;
        }
        if announces {
            for xattr in &marks.announcing_xattrs {
                remove_xattr(dir, xattr)?;
            }
        }
        Ok(true)
    }

    fn write_devices(&mut self, dir: &UpperDir, marks: &Marks) -> rustix::io::Result<bool> {
        // Before the directory stops saying that there are such files.
        self.devices_for_xattr_files(dir, marks)?;
        for name in &marks.beside {
            match dir.stat_on_disk(name) {
                Err(Errno::NOENT) => dir.mknod(name, Kind::Char, 0, 0)?,
                Ok(stat) if stat.kind() == Kind::Dir => {
                    let inner = dir.child(name);
                    let marks = Marks::read(&inner, false)?;
                    self.devices_for_xattr_files(&inner, &marks)?;
                    self.make_opaque(&inner)?;
                }
                // What hides the name is the entry itself.
                Ok(_) => {}
                Err(errno) => return Err(errno),
            }
            self.done.whiteouts += 1;
        }
        let ours = self.opaque.clone();
        let others = |xattrs: &[&'static [u8]]| -> Vec<&'static [u8]> {
            let others = xattrs.iter().filter(|xattr| **xattr != ours.as_bytes());
            others.copied().collect()
        };
        let (opaque, announcing) = (
            others(&marks.opaque_xattrs),
            others(&marks.announcing_xattrs),
        );
        if marks.opaque_file || !opaque.is_empty() {
            self.make_opaque(dir)?;
            self.done.opaque += 1;
        } else if marks.announcing_xattrs.contains(&ours.as_bytes())
            && !marks.opaque_xattrs.contains(&ours.as_bytes())
        {
            remove_xattr(dir, ours.as_bytes())?;
        }
        let nothing = marks.beside.is_empty()
            && marks.xattr_files.is_empty()
            && marks.leftovers.is_empty()
            && marks.announcing_xattrs.is_empty()
            && !marks.opaque_file
            && opaque.is_empty();
        if nothing {
            return Ok(false);
        }
        rustix::fs::fsync(dir.fd()?)?;
        for mark in marks.beside.iter().filter_map(|name| whiteout_name(name)) {
            dir.unlink(&mark)?;
        }
        if marks.opaque_file {
            dir.unlink(OPAQUE_FILE)?;
        }
        for xattr in opaque.into_iter().chain(announcing) {
            remove_xattr(dir, xattr)?;
        }
        for name in &marks.leftovers {
            remove_tree(dir, name)?;
            self.done.leftovers += 1;
        }
        Ok(true)
    }

    /// Each by one rename, from a name that no reader looks at.
    fn devices_for_xattr_files(&mut self, dir: &UpperDir, marks: &Marks) -> rustix::io::Result<()> {
        for name in &marks.xattr_files {
            match dir.mknod(STAGED, Kind::Char, 0, 0) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
            dir.rename(STAGED, dir, name, RenameFlags::empty())?;
            self.done.whiteouts += 1;
        }
        Ok(())
    }

    fn make_opaque(&self, dir: &UpperDir) -> rustix::io::Result<()> {
        dir.this()?
            .set_xattr(self.opaque.as_bytes(), b"y", XattrFlags::empty())
    }
}

fn make_file(dir: &UpperDir, name: &[u8]) -> rustix::io::Result<()> {
    match dir.mknod(name, Kind::File, MARK_MODE, 0) {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

fn remove_xattr(dir: &UpperDir, xattr: &[u8]) -> rustix::io::Result<()> {
    match dir.this()?.remove_xattr(xattr) {
        Err(Errno::NODATA) => Ok(()),
        other => other,
    }
}

fn remove_tree(dir: &UpperDir, name: &Name) -> rustix::io::Result<()> {
    // `.wh..wh.` and more, as AUFS had it, or what a killed conversion staged.
    debug_assert!(name.starts_with(WH_META_PREFIX) || name.starts_with(WH_PREFIX));
    match dir.stat_on_disk(name) {
        // What was staged has taken its place.
        Err(Errno::NOENT) => return Ok(()),
        stat if stat?.kind() != Kind::Dir => return dir.unlink(name),
        _ => {}
    }
    empty(&dir.child(name))?;
    dir.rmdir(name)
}

fn empty(dir: &UpperDir) -> rustix::io::Result<()> {
    let mut names = Vec::new();
    dir.for_each(|name, _, _| names.push(Name::from(name)))?;
    for name in names {
        if dir.stat_on_disk(&name)?.kind() == Kind::Dir {
            empty(&dir.child(&name))?;
            dir.rmdir(&name)?;
        } else {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}

/// Whether the root says that `.wh.` names are ordinary ones.
fn has_form_mark(root: &UpperDir) -> rustix::io::Result<bool> {
    let xattrs = root.xattrs()?;
    for prefix in [TRUSTED_PREFIX, USER_PREFIX] {
        let name = format!("{prefix}{FORM_XATTR}");
        if xattrs.get_opt(name.as_bytes())?.as_deref() == Some(b"char") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `trusted.` xattrs can be stored and are what the layer has: not so where kernel overlayfs wrote it with
/// `userxattr`.
fn writes_trusted(root: &UpperDir) -> rustix::io::Result<bool> {
    let list = root.xattrs()?.list()?;
    let has = |namespace: &[u8]| {
        list.split(|byte| *byte == 0)
            .filter_map(|name| name.strip_prefix(namespace)?.strip_prefix(b"overlay."))
            .any(|rest| KERNEL_ROOT_XATTRS.contains(&rest))
    };
    if has(b"user.") && !has(b"trusted.") {
        return Ok(false);
    }
    let probe = format!("{TRUSTED_PREFIX}probe");
    let this = root.this()?;
    match this.set_xattr(probe.as_bytes(), b"y", XattrFlags::empty()) {
        Ok(()) => this.remove_xattr(probe.as_bytes()).map(|()| true),
        Err(Errno::PERM | Errno::OPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn own_prefix(root: &UpperDir) -> rustix::io::Result<&'static str> {
    Ok(if writes_trusted(root)? {
        TRUSTED_PREFIX
    } else {
        USER_PREFIX
    })
}

/// Lets the root say that whiteouts are devices.
fn remember_devices(root: &UpperDir) -> rustix::io::Result<()> {
    let xattr = format!("{}{FORM_XATTR}", own_prefix(root)?);
    root.this()?
        .set_xattr(xattr.as_bytes(), b"char", XattrFlags::empty())
}

/// Takes that back, and what kernel overlayfs left there that says the same. That entries may carry redirects and
/// origins, which one of those says as well, is said by an xattr of our own before.
fn forget_devices(root: &UpperDir) -> rustix::io::Result<()> {
    let this = root.this()?;
    let xattrs = root.xattrs()?;
    for namespace in ["trusted.", "user."] {
        for name in KERNEL_ROOT_XATTRS {
            let xattr = [namespace.as_bytes(), b"overlay.", name].concat();
            if xattrs.get_opt(&xattr)?.is_none() {
                continue;
            }
            if name == IMPURE.as_bytes() {
                let own = format!("{}{IMPURE}", own_prefix(root)?);
                this.set_xattr(own.as_bytes(), b"y", XattrFlags::empty())?;
            }
            this.remove_xattr(&xattr)?;
        }
    }
    for prefix in [TRUSTED_PREFIX, USER_PREFIX] {
        remove_xattr(root, format!("{prefix}{FORM_XATTR}").as_bytes())?;
    }
    Ok(())
}
