//! Owners, modes and types in xattrs of the upper: whether it keeps them, and proof that it can.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::layers::cannot_open;
use crate::layer::probe::keeps_stat_overrides;
use crate::layer::stat::Stat;
use crate::layer::stat_override::{StatOverride, StatOverrideForm, StatOverrides};
use crate::layer::{FdCache, WritableDir};
use crate::union::config::{Config, Setup, SetupError};

/// The root of the upper, which says itself, or gets a mark now, whether owners and modes are kept
/// in xattrs.
pub(super) fn upper_root(
    config: &Config,
    path: &Path,
    fd: OwnedFd,
    fds: &Arc<FdCache>,
) -> Setup<WritableDir> {
    let fd = Arc::new(fd);
    let found = StatOverrides::of_root(&fd);
    let wanted = config.xattr_permissions.filter(|_| !config.read_only);
    let records = match (found, wanted) {
        (Some(found), Some(form)) if found.form() != form => {
            return Err(SetupError::new(
                format!(
                    "{} was begun with another form of xattr_permissions: it keeps owners and modes in {}",
                    path.display(),
                    String::from_utf8_lossy(found.xattr())
                ),
                format!("mount with xattr_permissions={}", number(found.form())),
            ));
        }
        (Some(found), None) if !config.read_only => {
            log::warn!(
                "{} was begun with xattr_permissions={} and goes on with it",
                path.display(),
                number(found.form())
            );
            Some(found)
        }
        (Some(found), _) => Some(found),
        (None, Some(form)) => {
            let perm = Stat::of_fd(&fd)
                .map_err(|errno| cannot_open("upper directory", path, errno))?
                .perm();
            Some(StatOverrides::new(form, perm))
        }
        (None, None) => None,
    };
    Ok(WritableDir::root_with(fd, fds, records))
}

/// The value of `xattr_permissions` for a form.
fn number(form: StatOverrideForm) -> u8 {
    match form {
        StatOverrideForm::Privileged => 1,
        StatOverrideForm::User => 2,
    }
}

/// Proves that records can be stored, and marks the upper as keeping them.
pub(super) fn begin_records(
    records: &StatOverrides,
    root: &WritableDir,
    stage: &WritableDir,
    path: &Path,
) -> Setup<()> {
    let xattr = String::from_utf8_lossy(records.xattr());
    let cure = match records.form() {
        StatOverrideForm::Privileged => {
            "mount as root of the first user namespace, or with xattr_permissions=2"
        }
        StatOverrideForm::User => "use an upper on a file system with user xattrs",
    };
    let problem = |errno: Errno| {
        SetupError::new(
            format!(
                "cannot keep owners and modes of {} in {xattr}: {errno}",
                path.display()
            ),
            cure,
        )
        .caused_by(&errno)
    };
    match keeps_stat_overrides(stage) {
        Ok(true) => {}
        Ok(false) => return Err(problem(Errno::OPNOTSUPP)),
        Err(errno) => return Err(problem(errno)),
    }
    let is_marked = root
        .xattrs()
        .and_then(|xattrs| xattrs.get_opt(records.xattr()))
        .map_err(problem)?
        .is_some();
    if !is_marked {
        let this = root.this().map_err(problem)?;
        let stat = this.stat().map_err(problem)?;
        this.record(&StatOverride::of(&stat)).map_err(problem)?;
    }
    Ok(())
}
