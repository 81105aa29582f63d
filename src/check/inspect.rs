//! Finding what is wrong with layers that are not mounted, and mending it.
//!
//! Looking changes nothing. Mending changes the upper and the work directory only, each finding by
//! itself and in an order that leaves the merged tree as it was: killed at any moment, the rest is
//! found again. While it works it holds the lock of the work directory, so that no mount begins
//! meanwhile.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;

use super::convert::{Form, convert_open};
use super::describe::describe;
use super::forms::mixed_forms;
use super::names::DotNames;
use super::report::{Finding, Kind};
pub(crate) use super::subject::Subject;
use super::subject::{CACHED_FDS, opened, unreadable};
use crate::layer::marks::root::has_device_marks;
use crate::layer::{FdCache, WritableDir};
use crate::union::audit::mend;
use crate::union::config::{Config, SetupError, WhiteoutForm};
use crate::union::{Recovery, Union};

/// Looks, and with `repair` mends what it can; each finding says whether it was mended.
///
/// # Errors
/// A directory that cannot be read or written; `repair` while the upper is mounted.
pub(crate) fn inspect(subject: &Subject, repair: bool) -> Result<Vec<Finding>, SetupError> {
    let mut inspection = Inspection {
        subject,
        repair,
        recovery: begin_recovery(subject, repair)?,
        findings: Vec::new(),
    };
    // Held to the end, so that no mount begins meanwhile.
    let _lock = match &subject.work {
        Some(work) => inspection.look_at_work(work)?,
        None => None,
    };
    let upper = match &subject.upper {
        Some(path) => Some(WritableDir::root(opened(path)?, &FdCache::new(CACHED_FDS))),
        None => None,
    };
    inspection.look_at_entries(upper.as_ref())?;
    if let (Some(root), Some(path)) = (&upper, &subject.upper) {
        inspection.look_at_forms(root, path)?;
    }
    for path in &subject.lowers {
        inspection.findings.extend(mixed_forms(path)?);
    }
    Ok(inspection.findings)
}

/// Locks the work directory for one who mends. Errors: the upper is in use, or may be.
fn begin_recovery(subject: &Subject, repair: bool) -> Result<Option<Recovery>, SetupError> {
    if !repair {
        return Ok(None);
    }
    match (&subject.upper, &subject.work) {
        (Some(upper), Some(work)) => {
            if let Some(user) = super::users_of(upper).first() {
                return Err(SetupError::new(
                    format!("{} is in use by {user}", upper.display()),
                    "unmount that first",
                ));
            }
            Recovery::begin(upper, work).map(Some)
        }
        (Some(_), None) => Err(SetupError::new(
            "without its work directory it is not known whether the upper is mounted",
            "give it with --work",
        )),
        (None, _) => Ok(None),
    }
}

/// One look at a subject.
struct Inspection<'a> {
    subject: &'a Subject,
    repair: bool,
    /// The lock of the work directory of one who mends.
    recovery: Option<Recovery>,
    findings: Vec<Finding>,
}

impl Inspection<'_> {
    /// Looks at every entry of the upper, by the rules of a mount.
    fn look_at_entries(&mut self, upper: Option<&WritableDir>) -> Result<(), SetupError> {
        let config = Config {
            lowers: self.subject.lowers.clone(),
            upper: self.subject.upper.clone(),
            read_only: true,
            whiteout: form_of(self.subject, upper)?,
            ..Config::default()
        };
        let union = Union::open(&config)?;
        let odd = union.audit().map_err(|error| {
            SetupError::new(
                format!("cannot read the layers: {error}"),
                "run it as one who may, or see whether the disk is healthy",
            )
            .caused_by(&error)
        })?;
        drop(union);
        for found in odd {
            let mut finding = describe(&found, self.subject);
            if let Some(root) = upper.filter(|_| self.repair) {
                finding.mended = mend(root, &found).map_err(|errno| {
                    SetupError::new(
                        format!("cannot mend {}: {errno}", finding.path.display()),
                        "run it as one who may write there; what was mended stays so",
                    )
                    .caused_by(&errno)
                })?;
            }
            self.findings.push(finding);
        }
        Ok(())
    }

    /// Marks of both forms in the upper; mended they are `.wh.` files. (An upper whose root says
    /// that its whiteouts are devices has one form by that: its `.wh.` names are ordinary entries.)
    fn look_at_forms(&mut self, root: &WritableDir, path: &Path) -> Result<(), SetupError> {
        if has_device_marks(root) {
            return Ok(());
        }
        let Some(mut finding) = mixed_forms(path)? else {
            return Ok(());
        };
        if self.repair {
            convert_open(root, path, Form::Wh)?;
            finding.mended = true;
        }
        self.findings.push(finding);
        Ok(())
    }

    /// Looks for what a killed daemon left in the work directory. Returns the lock that keeps
    /// mounts away meanwhile.
    fn look_at_work(&mut self, work: &Path) -> Result<Option<OwnedFd>, SetupError> {
        let mut lock = None;
        if self.recovery.is_none() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd =
                rustix::fs::open(work, flags, Mode::empty()).map_err(|e| unreadable(work, e))?;
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
                )
                .caused_by(&error));
            }
        };
        let before = self.findings.len();
        for entry in entries.flatten() {
            self.findings.push(Finding {
                kind: Kind::StaleWork,
                layer: inner.clone(),
                path: entry.file_name().into(),
                explanation: "left by a mount that was killed; the next writable mount removes it"
                    .to_owned(),
                mended: false,
            });
        }
        if let Some(recovery) = &self.recovery {
            recovery.finish()?;
            for finding in self.findings.iter_mut().skip(before) {
                finding.mended = true;
            }
        }
        Ok(lock)
    }
}

/// In which form the marks of the upper are read: where kernel overlayfs has files that only it can
/// have called so, its `.wh.` names are ordinary ones.
fn form_of(subject: &Subject, upper: Option<&WritableDir>) -> Result<WhiteoutForm, SetupError> {
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
