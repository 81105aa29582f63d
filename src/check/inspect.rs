//! Finding what is wrong with layers that are not mounted, and mending it.
//!
//! Looking changes nothing. Mending changes the upper and the work directory only, each finding by itself and in an
//! order that leaves the merged tree as it was: killed at any moment, the rest is found again. While it works it holds
//! the lock of the work directory, so that nobody mounts meanwhile.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::convert::{Form, convert_open};
use super::names::DotNames;
use super::report::{Finding, Kind, path_of};
use crate::layer::dir::UPPER;
use crate::layer::mark::Mark;
use crate::layer::marks::inventory::Marks;
use crate::layer::marks::root::has_device_marks;
use crate::layer::{FdCache, LowerDir, UpperDir};
use crate::union::audit::{Found, Oddity, mend};
use crate::union::config::{Config, SetupError, WhiteoutForm};
use crate::union::{Recovery, Union, open_root};

const CACHED_FDS: usize = 256;

/// What to look at.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// Lower layers, newest first.
    pub lowers: Vec<PathBuf>,
    /// The upper.
    pub upper: Option<PathBuf>,
    /// Its work directory.
    pub work: Option<PathBuf>,
}

/// Looks, and with `repair` mends what it can; each finding says whether it was mended.
///
/// # Errors
/// A directory that cannot be read or written; `repair` while somebody has the upper mounted.
pub fn inspect(subject: &Subject, repair: bool) -> Result<Vec<Finding>, SetupError> {
    let mut findings = Vec::new();
    let recovery = match (&subject.upper, &subject.work) {
        (Some(upper), Some(work)) if repair => {
            if let Some(user) = super::users_of(upper).first() {
                return Err(SetupError::new(
                    format!("{} is in use by {user}", upper.display()),
                    "unmount that first",
                ));
            }
            Some(Recovery::begin(upper, work)?)
        }
        (Some(_), None) if repair => {
            return Err(SetupError::new(
                "without its work directory it is not known whether the upper is mounted",
                "give it with --work",
            ));
        }
        _ => None,
    };
    // Held to the end, so that nobody mounts meanwhile.
    let _lock = match &subject.work {
        Some(work) => look_at_work(work, recovery.as_ref(), &mut findings)?,
        None => None,
    };
    let upper = match &subject.upper {
        Some(path) => Some(UpperDir::root(opened(path)?, &FdCache::new(CACHED_FDS))),
        None => None,
    };
    let config = Config {
        lowers: subject.lowers.clone(),
        upper: subject.upper.clone(),
        read_only: true,
        whiteout: form_of(subject, upper.as_ref())?,
        ..Config::default()
    };
    let union = Union::open(&config)?;
    let odd = union.audit().map_err(|error| {
        SetupError::new(
            format!("cannot read the layers: {error}"),
            "run it as one who may, or see whether the disk is healthy",
        )
    })?;
    drop(union);
    for found in odd {
        let mut finding = describe(&found, subject);
        if let Some(root) = upper.as_ref().filter(|_| repair) {
            finding.mended = mend(root, &found).map_err(|errno| {
                SetupError::new(
                    format!("cannot mend {}: {errno}", finding.path.display()),
                    "run it as one who may write there; what was mended stays so",
                )
            })?;
        }
        findings.push(finding);
    }
    if let (Some(root), Some(path)) = (&upper, &subject.upper) {
        look_at_forms(root, path, repair, &mut findings)?;
    }
    for path in &subject.lowers {
        findings.extend(mixed_forms(path)?);
    }
    Ok(findings)
}

/// In which form the marks of the upper are read: where kernel overlayfs has files that only it can have called so, its
/// `.wh.` names are ordinary ones.
fn form_of(subject: &Subject, upper: Option<&UpperDir>) -> Result<WhiteoutForm, SetupError> {
    let (Some(path), Some(root)) = (&subject.upper, upper) else {
        return Ok(WhiteoutForm::Wh);
    };
    let names =
        DotNames::of(&root.read_only()).map_err(|(at, errno)| unreadable(&path.join(at), errno))?;
    Ok(match names.ordinary {
        Some(_) => WhiteoutForm::Auto,
        None => WhiteoutForm::Wh,
    })
}

fn opened(path: &Path) -> Result<OwnedFd, SetupError> {
    open_root(path).map_err(|errno| unreadable(path, errno))
}

fn unreadable(path: &Path, errno: Errno) -> SetupError {
    SetupError::new(
        format!("cannot read {}: {errno}", path.display()),
        "give directories that are there and that you may read",
    )
}

/// What a killed daemon left in the work directory. Gives the lock that keeps mounts away meanwhile.
fn look_at_work(
    work: &Path,
    recovery: Option<&Recovery>,
    findings: &mut Vec<Finding>,
) -> Result<Option<OwnedFd>, SetupError> {
    let mut lock = None;
    if recovery.is_none() {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(work, flags, Mode::empty()).map_err(|e| unreadable(work, e))?;
        if flock(&fd, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK) {
            // A mount works there: what is in it is no leftover.
            return Ok(None);
        }
        lock = Some(fd);
    }
    let inner = work.join("work");
    let entries = match std::fs::read_dir(&inner) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(lock),
        Err(error) => {
            return Err(SetupError::new(
                format!("cannot read {}: {error}", inner.display()),
                "give a work directory that you may read",
            ));
        }
    };
    let before = findings.len();
    for entry in entries.flatten() {
        findings.push(Finding {
            kind: Kind::StaleWork,
            layer: inner.clone(),
            path: entry.file_name().into(),
            explanation: "left by a mount that was killed; the next writable mount removes it"
                .to_owned(),
            mended: false,
        });
    }
    if let Some(recovery) = recovery {
        recovery.finish()?;
        for finding in findings.iter_mut().skip(before) {
            finding.mended = true;
        }
    }
    Ok(lock)
}

fn describe((path, oddity): &Found, subject: &Subject) -> Finding {
    let mut layer = subject.upper.clone().unwrap_or_default();
    let (kind, explanation) = match oddity {
        Oddity::IdleWhiteout(mark) => {
            let form = match mark {
                Mark::Beside => "a .wh. file",
                Mark::InPlace => "a whiteout",
            };
            (
                Kind::IdleWhiteout,
                format!("{form} hides this name, and no lower layer has it"),
            )
        }
        Oddity::DanglingRedirect(number, target) => {
            if *number != UPPER {
                let lower = subject.lowers.get(usize::from(*number) - 1);
                layer = lower.cloned().unwrap_or_default();
            }
            (
                Kind::DanglingRedirect,
                format!(
                    "it continues at {}, which no layer below has: its lower part is lost",
                    target.escape_ascii()
                ),
            )
        }
        Oddity::DanglingOrigin(xattr) => (
            Kind::DanglingOrigin,
            format!(
                "{} names an object that is not there, or belongs to another one; st_ino is the upper's own",
                xattr.escape_ascii()
            ),
        ),
        Oddity::OddRecord(xattr) => (
            Kind::OddRecord,
            format!(
                "{} cannot be read, so owner and mode are those of the disk",
                xattr.escape_ascii()
            ),
        ),
    };
    let path = path.iter().map(|name| path_of(name)).collect();
    Finding {
        kind,
        layer,
        path,
        explanation,
        mended: false,
    }
}

/// Marks of both forms in the upper; mended they are `.wh.` files. (An upper whose root says that its whiteouts are
/// devices has one form by that: its `.wh.` names are ordinary entries.)
fn look_at_forms(
    root: &UpperDir,
    path: &Path,
    repair: bool,
    findings: &mut Vec<Finding>,
) -> Result<(), SetupError> {
    if has_device_marks(root) {
        return Ok(());
    }
    let Some(mut finding) = mixed_forms(path)? else {
        return Ok(());
    };
    if repair {
        convert_open(root, path, Form::Wh)?;
        finding.mended = true;
    }
    findings.push(finding);
    Ok(())
}

/// A finding for a layer that has marks of both forms.
fn mixed_forms(path: &Path) -> Result<Option<Finding>, SetupError> {
    let (mut beside, mut in_place) = (0, 0);
    let mut example = PathBuf::new();
    let root = LowerDir::root(1, opened(path)?, &FdCache::new(CACHED_FDS));
    let mut todo = vec![(root, PathBuf::new())];
    while let Some((dir, at)) = todo.pop() {
        let marks = Marks::read(&dir, false).map_err(|errno| unreadable(&path.join(&at), errno))?;
        if marks.redirected {
            // Written with `redirect_dir`: a renamed directory leaves a device, whatever form the other marks have.
            return Ok(None);
        }
        let (files, others) = marks.by_form();
        beside += files;
        in_place += others;
        if let Some(name) = marks.example_beside() {
            example = at.join(path_of(&name));
        }
        for name in &marks.directories {
            todo.push((dir.child(name), at.join(path_of(name))));
        }
    }
    Ok((beside > 0 && in_place > 0).then(|| Finding {
        kind: Kind::MixedForms,
        layer: path.to_owned(),
        path: example,
        explanation: format!(
            "{beside} marks are .wh. files and {in_place} devices or xattrs: programs that read one form only see another tree; see 'unionmount convert'"
        ),
        mended: false,
    }))
}
