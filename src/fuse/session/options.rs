//! What fuser and fusermount3(1) are told to mount, and what a refusal means.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use fuser::{Config, MountOption, SessionACL};

use super::labels;
use crate::fuse::settings::{AllowOther, MountFlags, Settings};
use crate::fuse::transport::dev_threads;
use crate::union::SetupError;

/// The options of a mount.
pub(super) fn session_config(settings: &Settings, read_only: bool) -> Config {
    let mut options = vec![
        MountOption::FSName(settings.fsname.clone()),
        // fuser keeps its own Subtype from the kernel when it mounts directly; as a plain option it
        // arrives.
        MountOption::CUSTOM(format!("subtype={}", settings.subtype)),
    ];
    let labels = labels::mount_options(settings);
    options.extend(labels.into_iter().map(MountOption::CUSTOM));
    if !settings.no_default_permissions {
        options.push(MountOption::DefaultPermissions);
    }
    let MountFlags {
        dev,
        suid,
        exec,
        noatime,
        nodiratime: _,
        sync,
        dirsync,
    } = settings.flags;
    let choose = |set, yes, no| if set { yes } else { no };
    // fusermount3(1) grants these to no user, and complains when it is asked.
    let trusted = rustix::process::geteuid().is_root();
    options.push(choose(dev && trusted, MountOption::Dev, MountOption::NoDev));
    options.push(choose(
        suid && trusted,
        MountOption::Suid,
        MountOption::NoSuid,
    ));
    options.push(choose(exec, MountOption::Exec, MountOption::NoExec));
    if noatime {
        options.push(MountOption::NoAtime);
    }
    if sync {
        options.push(MountOption::Sync);
    }
    if dirsync {
        options.push(MountOption::DirSync);
    }
    if read_only {
        options.push(MountOption::RO);
    }
    let mut config = Config::default();
    config.mount_options = options;
    config.acl = if allows_others(settings.allow_other) {
        SessionACL::All
    } else {
        SessionACL::Owner
    };
    config.n_threads = Some(settings.threads.unwrap_or_else(dev_threads).max(1));
    config.clone_fd = true;
    config
}

/// Whether other users may use the mount: root may always allow it, others when `/etc/fuse.conf`
/// says so.
fn allows_others(allow: AllowOther) -> bool {
    match allow {
        AllowOther::Yes => true,
        AllowOther::WhenPermitted => {
            rustix::process::geteuid().is_root()
                || File::open("/etc/fuse.conf").is_ok_and(|conf| {
                    BufReader::new(conf)
                        .lines()
                        .map_while(Result::ok)
                        .any(|line| line.trim() == "user_allow_other")
                })
        }
    }
}

/// What the kernel or fusermount3 refused, with its cure.
pub(super) fn cannot_mount(mountpoint: &Path, error: &io::Error) -> SetupError {
    let text = error.to_string();
    // fusermount3's own message ends with a line break and starts with its name. What it ignores is
    // not why it failed.
    let mut lines = text.trim().lines();
    let text = lines
        .find(|line| !line.contains(" ignored"))
        .unwrap_or("unknown error");
    let cure = if text.contains("user_allow_other") {
        "mount without allow_other, or ask root to set user_allow_other in /etc/fuse.conf"
    } else {
        match error.raw_os_error() {
            Some(libc::EACCES) => "make /dev/fuse accessible to you (chmod 666 /dev/fuse as root)",
            Some(libc::ENOENT) => "load the fuse module (modprobe fuse), or create the mount point",
            Some(libc::EPERM) => {
                "mount as root, in a user namespace (unshare -Urm), or install fuse3"
            }
            _ => "see dmesg, and whether fusermount3 (package fuse3) is installed",
        }
    };
    SetupError::new(
        format!("cannot mount at {}: {text}", mountpoint.display()),
        cure,
    )
    .caused_by(error)
}
