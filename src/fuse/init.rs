//! What is asked of the kernel at INIT: each capability, when it is asked for, and why.

use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

use super::settings::Settings;
use crate::union::Union;

/// Largest write and read request, in bytes: what the kernel takes at most by default (`max_pages_limit`).
const MAX_WRITE: u32 = 1 << 20;
/// How long the kernel may cache what nobody but this mount changes, in seconds: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long it may cache what somebody edits below: with the union's own checks, changes show within a second.
const EDITED: Duration = Duration::from_millis(500);
/// Requests that the kernel keeps under way in the background (readahead, writeback).
const MAX_BACKGROUND: u16 = 64;

/// What was agreed on, as far as it decides how requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Agreed {
    /// OPEN, CREATE and FLUSH are answered ENOSYS: the kernel then opens and closes files by itself.
    pub(super) zero_message_open: bool,
    /// The kernel gathers writes.
    pub(super) writeback: bool,
    /// OPENDIR is answered ENOSYS.
    pub(super) zero_message_opendir: bool,
    /// Lifetime of names and attributes.
    pub(super) lifetime: Duration,
}

struct Capability {
    flag: InitFlags,
    wanted: bool,
}

/// Asks for what the union can use and reports what the kernel grants.
pub(super) fn negotiate(config: &mut KernelConfig, union: &Union, settings: &Settings) -> Agreed {
    let stable = !union.may_change_below();
    let always = |flag| Capability { flag, wanted: true };
    let when = |wanted, flag| Capability { flag, wanted };
    let table = [
        // Lookups and listings of one directory need not wait for each other: states are locked per directory.
        always(InitFlags::FUSE_PARALLEL_DIROPS),
        // A listing fills the caches of names and attributes, when the reader looks at them.
        always(InitFlags::FUSE_DO_READDIRPLUS),
        always(InitFlags::FUSE_READDIRPLUS_AUTO),
        // Symlinks of a layer do not change, and those of the upper change by being replaced.
        when(stable, InitFlags::FUSE_CACHE_SYMLINKS),
        // Small writes are gathered. The kernel then owns size and times of open files, which only holds when
        // nobody changes them below.
        when(
            stable && !union.is_read_only() && settings.writeback,
            InitFlags::FUSE_WRITEBACK_CACHE,
        ),
        // Cached data is checked against size and mtime when somebody edits below.
        when(!stable, InitFlags::FUSE_AUTO_INVAL_DATA),
        // The kernel enforces and inherits ACLs; without it they would be mere xattrs.
        when(union.offers_acls(), InitFlags::FUSE_POSIX_ACL),
        // Setuid, setgid and capabilities are cleared here, so that the kernel need not ask for
        // security.capability before each write. fuser does not pass on who may keep them when a file is
        // truncated or punched: that is decided by the caller's user id.
        always(InitFlags::FUSE_HANDLE_KILLPRIV_V2),
        // The union applies the umask itself, since a default ACL takes its place (acl(5)).
        always(InitFlags::FUSE_DONT_MASK),
        // Lookup of "." by node id: open_by_handle_at(2), NFS export.
        always(InitFlags::FUSE_EXPORT_SUPPORT),
        // Several direct reads and writes of one file at a time.
        always(InitFlags::FUSE_ASYNC_DIO),
        // No message at all for opening and closing.
        when(stable, InitFlags::FUSE_NO_OPEN_SUPPORT),
        when(stable, InitFlags::FUSE_NO_OPENDIR_SUPPORT),
    ];
    let mut granted = InitFlags::empty();
    for capability in &table {
        if !capability.wanted {
            continue;
        }
        match config.add_capabilities(capability.flag) {
            Ok(()) => granted |= capability.flag,
            Err(missing) => log::info!("kernel without {missing:?}"),
        }
    }
    let max_write = settings
        .max_write
        .unwrap_or(MAX_WRITE)
        .clamp(4096, MAX_WRITE);
    if let Err(nearest) = config.set_max_write(max_write) {
        log::info!("max_write {max_write} is not possible, the nearest is {nearest}");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        log::info!("max_background {MAX_BACKGROUND} is not possible, the nearest is {nearest}");
    }
    Agreed {
        zero_message_open: granted.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        writeback: granted.contains(InitFlags::FUSE_WRITEBACK_CACHE),
        zero_message_opendir: granted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
        lifetime: match (settings.timeout, stable) {
            (Some(timeout), true) => timeout.min(FOREVER),
            (Some(timeout), false) => timeout.min(EDITED),
            (None, true) => FOREVER,
            (None, false) => EDITED,
        },
    }
}
