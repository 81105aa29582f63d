//! Files and directories that get their names when they are complete; until then they are called
//! `.NAME.unionmount-PID`.
//!
//! # Crash
//! Killed before that, they stay under that name. Each is locked by its owner, so that [`sweep`]
//! knows the ones whose owners have ended, in any container, and removes them. Cancelled (see
//! [`cancel`]), nothing stays. After a power failure the name of a [`StagedFile`] leads to the old
//! file or to the whole new one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use super::durable::sync_names_in;
use super::inner::DIRECTORY;
use super::remove::clear;
use crate::archive::error::{Context as _, Error, Result};
use crate::cancel::{self, Cleanup, Removing};
use crate::sys::early_writeback::EarlyWriteback;

/// How many names are tried that are taken, by other commands or on purpose.
const ATTEMPTS: u32 = 100;
/// A name of 255 bytes has no room for more.
const LONGEST: usize = 200;

/// What the names begin with under which something for `path` is staged.
fn prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    if name.len() > LONGEST {
        name = OsString::from(".layer");
    }
    name.push(".unionmount-");
    name
}

/// The directory that something is in.
fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(above) if above.as_os_str().is_empty() => Path::new("."),
        Some(above) => above,
        None => path,
    }
}

/// Makes something under a name that is free. `None`: the name is taken.
fn make<T>(
    dir: &Path,
    prefix: &OsStr,
    make: impl Fn(&Path) -> io::Result<Option<T>>,
) -> io::Result<(T, PathBuf)> {
    for number in 0..ATTEMPTS {
        let mut name = prefix.to_owned();
        name.push(std::process::id().to_string());
        if number > 0 {
            name.push(format!("-{number}"));
        }
        let path = dir.join(name);
        match make(&path) {
            Ok(None) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(Some(made)) => return Ok((made, path)),
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}

/// Takes the lock of what was just made; `None` when another command took it for a leftover and
/// removed it. Disks without locks are fine: leftovers stay there.
fn locked(file: File, path: &Path) -> io::Result<Option<File>> {
    if let Err(errno) = flock(&file, FlockOperation::LockExclusive) {
        log::debug!("flock '{}': {errno}", path.display());
    }
    Ok(is_at(&file, path)?.then_some(file))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (file, there) = (file.metadata()?, fs::symlink_metadata(path));
    Ok(there.is_ok_and(|there| (there.dev(), there.ino()) == (file.dev(), file.ino())))
}

/// Removes what commands left, beside `path` and in it, that were killed while they made something
/// for it.
pub(in crate::archive) fn sweep(path: &Path) {
    let prefix = prefix(path);
    for dir in [above(path), path] {
        // What cannot be listed has nothing that could be removed.
        let Ok(entries) = fs::read_dir(dir) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.as_bytes().strip_prefix(prefix.as_bytes());
            let is_number = |number: &[u8]| {
                let mut bytes = number.iter();
                !number.is_empty() && bytes.all(|b| b.is_ascii_digit() || *b == b'-')
            };
            if number.is_some_and(is_number) {
                remove_leftover(&dir.join(name));
            }
        }
    }
}

/// Removes something whose owner has ended. Only what belongs to this user: other users may have
/// files with such names.
fn remove_leftover(path: &Path) {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let Ok(file) = opened else { return };
    let Ok(meta) = file.metadata() else { return };
    let is_ours = meta.uid() == rustix::process::geteuid().as_raw();
    if !is_ours
        || flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
        || !is_at(&file, path).unwrap_or(false)
    {
        return;
    }
    let removed = match meta.is_dir() {
        true => remove_dir(path),
        false => remove_file(path),
    };
    match removed {
        Ok(()) => log::warn!(
            "removed '{}', which a killed command had left",
            path.display()
        ),
        Err(why) => log::warn!("a killed command has left this, remove it: {why}"),
    }
}

fn remove_dir(path: &Path) -> std::result::Result<(), String> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("'{}': {error}", path.display()))
        }
        _ => Ok(()),
    };
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    rustix::fs::open(path, DIRECTORY, Mode::empty())
        .context("open", path.as_os_str().as_bytes())
        .and_then(|dir| clear(&dir))
        .map_err(|error| format!("'{}': {error}", path.display()))?;
    gone(fs::remove_dir(path))
}

fn remove_file(path: &Path) -> std::result::Result<(), String> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("'{}': {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// A directory of our own that goes away again, unless it becomes something else.
#[derive(Debug)]
pub(in crate::archive) struct Staged {
    path: PathBuf,
    /// `None` once it has become something else.
    cleanup: Option<Cleanup>,
    _lock: File,
}

impl Staged {
    /// Beside another one, on the same disk.
    pub(in crate::archive) fn beside(dir: &Path) -> Result<Self> {
        let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).ok();
        if dir.parent().is_none() {
            return Err(Error::refused("there is nothing beside the root"));
        }
        let above = above(dir);
        if device(dir).is_some_and(|disk| Some(disk) != device(above)) {
            return Err(Error::refused("it is a mount point"));
        }
        Self::make(above, dir)
    }

    /// In another one.
    pub(in crate::archive) fn within(dir: &Path) -> Result<Self> {
        Self::make(dir, dir)
    }

    fn make(above: &Path, dir: &Path) -> Result<Self> {
        let cleanup = Cleanup::begin()?;
        let made = make(above, &prefix(dir), |path| {
            DirBuilder::new().mode(0o700).create(path)?;
            locked(File::open(path)?, path)
        });
        let (lock, path) =
            made.map_err(|err| Error::io(format!("mkdir in '{}'", above.display()), err))?;
        Ok(Self {
            path,
            cleanup: Some(cleanup),
            _lock: lock,
        })
    }

    /// Where it is.
    pub(in crate::archive) fn path(&self) -> &Path {
        &self.path
    }

    /// It was renamed.
    pub(in crate::archive) fn became_something_else(mut self) {
        self.cleanup = None;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let Some(cleanup) = self.cleanup.take() else {
            return;
        };
        let removing = Removing::begin();
        if let Err(why) = remove_dir(&self.path) {
            cancel::removed_dir(why);
        }
        drop((removing, cleanup));
    }
}

/// A file that gets its name when it is complete, and is gone when it is dropped before. What is
/// there already and is no ordinary file (a device, a pipe, a descriptor in /proc) is written to,
/// not replaced.
#[derive(Debug)]
pub(crate) struct StagedFile {
    file: File,
    /// Where it is until then, for an ordinary file.
    staged: Option<(PathBuf, Cleanup)>,
    path: PathBuf,
}

impl StagedFile {
    /// Makes one for `path`.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let is_special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
        let (file, staged) = if path.file_name().is_none() || is_special {
            (File::options().write(true).open(path)?, None)
        } else {
            sweep(path);
            // What others have put there under its name is neither followed nor written.
            let cleanup = Cleanup::begin()?;
            let (file, staged) = make(above(path), &prefix(path), |staged| {
                let file = File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .mode(0o666)
                    .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                    .open(staged)?;
                locked(file, staged)
            })?;
            (file, Some((staged, cleanup)))
        };
        Ok(Self {
            file,
            staged,
            path: path.to_owned(),
        })
    }

    /// Where the bytes are written to. Of an ordinary file the disk begins with them while more
    /// come.
    pub(crate) fn writer(&self) -> Box<dyn Write + '_> {
        match self.staged {
            Some(_) => Box::new(EarlyWriteback::new(&self.file)),
            None => Box::new(&self.file),
        }
    }

    /// Renames it to its name. From there on the command is not cancelled any more.
    ///
    /// # Errors
    /// Those of fsync(2) and rename(2).
    pub(crate) fn publish(mut self) -> io::Result<()> {
        self.file.flush()?;
        let Some((staged, _)) = &self.staged else {
            return Ok(());
        };
        self.file.sync_all()?;
        cancel::commit()?;
        fs::rename(staged, &self.path)?;
        self.staged = None;
        sync_names_in(above(&self.path))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        let Some((staged, cleanup)) = self.staged.take() else {
            return;
        };
        let removing = Removing::begin();
        if let Err(why) = remove_file(&staged) {
            cancel::removed_dir(why);
        }
        drop((removing, cleanup));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_what_nobody_holds_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at(".app.unionmount-1/d/e")).unwrap();
        fs::write(at(".app.unionmount-2-1"), "x").unwrap();
        for other in [
            ".app.unionmount-",
            ".app.unionmount-1x",
            ".apple.unionmount-1",
        ] {
            fs::write(at(other), "x").unwrap();
        }
        std::os::unix::fs::symlink("/", at(".app.unionmount-3")).unwrap();
        let alive = Staged::beside(&at("app")).unwrap();
        let file = StagedFile::new(&at("app")).unwrap();
        assert_eq!(names(dir.path()).len(), 6);
        assert!(!at(".app.unionmount-1").exists() && !at(".app.unionmount-2-1").exists());
        sweep(&at("app"));
        assert!(alive.path().exists());
        file.writer().write_all(b"new").unwrap();
        file.publish().unwrap();
        assert_eq!(fs::read(at("app")).unwrap(), b"new");
        drop((alive, StagedFile::new(&at("app")).unwrap()));
        assert_eq!(names(dir.path()).len(), 5);
        // Within the target, where it is a mount point.
        fs::create_dir_all(at("tree/.tree.unionmount-7/d")).unwrap();
        sweep(&at("tree"));
        assert_eq!(names(&at("tree")).len(), 0);
    }
}
