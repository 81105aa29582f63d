//! What the process may do: open the FUSE device, mount, hold descriptors. Checked before anything
//! is mounted.
//!
//! There are two ways to mount. With CAP_SYS_ADMIN (root, or root of a user namespace) this process
//! opens `/dev/fuse` and calls mount(2) itself. Without it, the set-user-id program `fusermount3`
//! does both, so that the permissions of `/dev/fuse` do not matter, only its presence.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::cli::ui::shown;
use crate::union::config::SetupError;

/// The FUSE device.
const DEVICE: &str = "/dev/fuse";

/// Helpers that mount for an ordinary user, the current one first (fuse3, fuse2).
const HELPERS: [&str; 2] = ["fusermount3", "fusermount"];

/// Where helpers are looked for besides PATH, which engines may have emptied.
const HELPER_DIRS: [&str; 2] = ["/usr/bin", "/bin"];

/// Descriptors that a mount needs besides one per layer: device, log, copies under way, some open
/// files.
const SPARE_DESCRIPTORS: u64 = 128;

/// What decides which way of mounting there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Means {
    /// CAP_SYS_ADMIN is effective: mount(2) may work.
    pub admin: bool,
    /// The process is in a user namespace other than the machine's first.
    pub in_user_namespace: bool,
    /// The helper, when there is one.
    pub helper: Option<PathBuf>,
    /// The helper runs as root.
    pub helper_is_setuid: bool,
}

impl Means {
    /// Looks at this process and at PATH.
    #[must_use]
    pub(in crate::cli) fn probe() -> Self {
        let helper = find_helper();
        Self {
            admin: rustix::thread::capabilities(None)
                .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN)),
            in_user_namespace: std::fs::read_to_string("/proc/self/uid_map")
                .is_ok_and(|map| !map.split_whitespace().eq(["0", "0", "4294967295"])),
            helper_is_setuid: helper.as_deref().is_some_and(runs_as_root),
            helper,
        }
    }

    /// Says what is in the way of opening the device and of mounting, if anything. `device` is the
    /// result of opening `/dev/fuse` for reading and writing.
    ///
    /// # Errors
    /// The problem with its cure.
    pub(in crate::cli) fn judge(&self, device: Result<(), Errno>) -> Result<(), SetupError> {
        match device {
            Err(Errno::NOENT) => {
                return Err(SetupError::new(
                    format!("{DEVICE} does not exist"),
                    "run 'modprobe fuse' as root, or start the container with '--device /dev/fuse'",
                )
                .caused_by(&Errno::NOENT));
            }
            Err(err @ (Errno::NODEV | Errno::NXIO)) => {
                return Err(SetupError::new(
                    format!("{DEVICE} has no driver: {err}"),
                    "run 'modprobe fuse' as root",
                )
                .caused_by(&err));
            }
            _ => {}
        }
        match (self.admin, device, &self.helper) {
            (true, Ok(()), _) => Ok(()),
            // The helper opens the device as root.
            (_, _, Some(_)) if self.helper_is_setuid && !self.in_user_namespace => Ok(()),
            (true, Err(err), _) => Err(SetupError::new(
                format!("cannot open {DEVICE}: {err}"),
                self.device_cure(),
            )
            .caused_by(&err)),
            (false, _, Some(helper)) if !self.helper_is_setuid => Err(SetupError::new(
                format!(
                    "no permission to mount, and {} is not set-user-id root",
                    shown(helper)
                ),
                format!(
                    "run 'chmod u+s {}' as root, or use 'unshare -Urm' or 'podman unshare'",
                    helper.display()
                ),
            )
            .caused_by(&Errno::PERM)),
            // Set-user-id to a root that the user namespace may or may not have: only trying tells.
            (false, _, Some(_)) => Ok(()),
            (false, _, None) => Err(SetupError::new(
                "no permission to mount: not root, and fusermount3 is not installed",
                "install fuse3, or run under 'unshare -Urm' or 'podman unshare'",
            )
            .caused_by(&Errno::PERM)),
        }
    }

    fn device_cure(&self) -> &'static str {
        if self.in_user_namespace {
            "run 'chmod 666 /dev/fuse' as root of the machine, or start the container with '--device /dev/fuse'"
        } else {
            "start the container with '--device /dev/fuse', or let its device rules permit c 10:229 rwm"
        }
    }
}

/// Whether anything can be mounted at all.
///
/// # Errors
/// What is in the way, with its cure.
pub(in crate::cli) fn fuse_is_available() -> Result<(), SetupError> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop);
    Means::probe().judge(device)
}

/// Checks that one of the ways to mount is open.
///
/// # Errors
/// The problem with its cure.
pub(in crate::cli) fn check(mountpoint: &Path) -> Result<(), SetupError> {
    let means = Means::probe();
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop);
    means.judge(device)?;
    if !means.admin {
        // fusermount3 mounts only where its caller may write.
        rustix::fs::accessat(CWD, mountpoint, Access::WRITE_OK, AtFlags::EACCESS).map_err(
            |err| {
                SetupError::new(
                    format!("mountpoint {} is not yours: {err}", shown(mountpoint)),
                    "choose a directory that you may write to",
                )
                .caused_by(&err)
            },
        )?;
    }
    Ok(())
}

/// Raises the limit of open files as far as this process may, and checks that it is enough for so
/// many layers: to what the kernel allows any process (`fs.nr_open`, proc_sys_fs(5)) with
/// CAP_SYS_RESOURCE, else to the hard limit. Each object that programs hold open without a name
/// takes one, and they are limited each for itself.
///
/// # Errors
/// Too few descriptors, with the cure.
pub(in crate::cli) fn raise_descriptor_limit(layers: usize) -> Result<(), SetupError> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .filter(|most| limit.maximum.is_some_and(|hard| hard < *most));
    for to in most.into_iter().map(Some).chain([limit.maximum]) {
        let raised = Rlimit {
            current: to,
            maximum: to,
        };
        match rustix::process::setrlimit(Resource::Nofile, raised) {
            Ok(()) => return enough_descriptors(to, layers),
            // Sandboxes forbid the call; what there is may do.
            Err(errno) => log::debug!("setrlimit(NOFILE, {to:?}): {errno}"),
        }
    }
    enough_descriptors(limit.current, layers)
}

fn enough_descriptors(available: Option<u64>, layers: usize) -> Result<(), SetupError> {
    let needed = u64::try_from(layers)
        .unwrap_or(u64::MAX)
        .saturating_add(SPARE_DESCRIPTORS);
    match available {
        Some(available) if available < needed => Err(SetupError::new(
            format!("{layers} layers need {needed} open files, only {available} are permitted"),
            format!(
                "raise the limit with 'ulimit -n {needed}' as root (containers: '--ulimit nofile={needed}')"
            ),
        )),
        _ => Ok(()),
    }
}

/// The program that mounts and unmounts for an ordinary user, as an absolute path.
#[must_use]
pub(in crate::cli) fn find_helper() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(HELPER_DIRS.map(PathBuf::from))
        // An empty element of PATH is the current directory: nothing to run as root from.
        .filter(|dir| dir.is_absolute())
        .collect();
    HELPERS.iter().find_map(|name| {
        dirs.iter().map(|dir| dir.join(name)).find(|file| {
            file.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    })
}

/// Set-user-id root, or with file capabilities in its place.
fn runs_as_root(helper: &Path) -> bool {
    let setuid = helper
        .metadata()
        .is_ok_and(|meta| meta.permissions().mode() & 0o4000 != 0 && meta.uid() == 0);
    let mut capabilities = [0; 64];
    setuid || rustix::fs::getxattr(helper, "security.capability", &mut capabilities[..]).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn ways_to_mount() {
        let means = |admin, in_user_namespace, helper: Option<bool>| Means {
            admin,
            in_user_namespace,
            helper: helper.map(|_| PathBuf::from("/usr/bin/fusermount3")),
            helper_is_setuid: helper == Some(true),
        };
        let root = means(true, false, None);
        let namespace_root = means(true, true, Some(true));
        let user = means(false, false, Some(true));
        let cases = [
            (&root, Ok(()), None),
            (&root, Err(Errno::NOENT), Some("modprobe fuse")),
            (&root, Err(Errno::NODEV), Some("modprobe fuse")),
            (&root, Err(Errno::PERM), Some("--device /dev/fuse")),
            (&namespace_root, Ok(()), None),
            (
                &namespace_root,
                Err(Errno::ACCESS),
                Some("chmod 666 /dev/fuse"),
            ),
            (
                &namespace_root,
                Err(Errno::NOENT),
                Some("--device /dev/fuse"),
            ),
            (&user, Ok(()), None),
            (&user, Err(Errno::ACCESS), None),
            (&user, Err(Errno::NOENT), Some("modprobe fuse")),
            (
                &means(false, false, Some(false)),
                Ok(()),
                Some("chmod u+s /usr/bin/fusermount3"),
            ),
            (&means(false, false, None), Ok(()), Some("install fuse3")),
            (
                &means(false, true, None),
                Err(Errno::ACCESS),
                Some("unshare -Urm"),
            ),
        ];
        for (means, device, expected) in cases {
            let judged = means.judge(device);
            match expected {
                None => assert_eq!(judged, Ok(()), "{means:?} {device:?}"),
                Some(cure) => assert!(
                    judged.unwrap_err().hint().contains(cure),
                    "{means:?} {device:?}"
                ),
            }
        }
    }

    #[test]
    fn descriptors() {
        assert!(enough_descriptors(None, 500).is_ok());
        assert!(enough_descriptors(Some(628), 500).is_ok());
        let error = enough_descriptors(Some(256), 500).unwrap_err();
        assert_eq!(
            error.what(),
            "500 layers need 628 open files, only 256 are permitted"
        );
        assert!(error.hint().contains("ulimit -n 628"));
    }

    #[test]
    fn this_process_can_be_probed() {
        let means = Means::probe();
        assert_eq!(means.helper.is_some(), find_helper().is_some());
        raise_descriptor_limit(1).unwrap();
        let limit = rustix::process::getrlimit(Resource::Nofile);
        assert!(limit.current == limit.maximum || limit.current >= Some(129));
    }
}
