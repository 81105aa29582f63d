//! What is asked of the kernel at INIT: each capability, when it is asked for, and why.

use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

use super::settings::{Io, Settings};
use crate::union::{Union, Validity};

/// Largest write and read request, in bytes: what the kernel takes at most by default
/// (`max_pages_limit`).
pub(super) const MAX_WRITE: u32 = 1 << 20;
/// How long the kernel may cache what this mount alone changes, in seconds: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long it may cache what others edit below without a notification: with the union's own
/// checks, changes show within a second.
const EDITED: Duration = Duration::from_millis(500);
/// How long it may cache attributes in a volume, which others change without a notification.
const SHARED: Duration = Duration::from_millis(50);
/// Requests that the kernel keeps under way in the background (readahead, writeback).
const MAX_BACKGROUND: u16 = 64;
/// Passthrough to files of which the file system is itself stacked on another one (overlayfs: 1).
const MAX_STACK_DEPTH: u32 = 2;

/// What was agreed on, as far as it decides how requests are answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Negotiated {
    /// OPEN, CREATE and FLUSH are answered ENOSYS: the kernel then opens and closes files by
    /// itself.
    pub zero_message_open: bool,
    /// OPENDIR is answered ENOSYS.
    pub zero_message_opendir: bool,
    /// Where files are opened: what the page cache holds of them stays true.
    pub keeps_cache: bool,
    /// The kernel gathers writes.
    pub writeback: bool,
    /// SETXATTR has its long form.
    pub long_setxattr: bool,
    /// Files may be read and written by the kernel itself.
    pub passthrough: bool,
    /// Names can be expired without throwing away what is below them.
    pub expires: bool,
    /// Requests come through io_uring.
    pub uring: bool,
    /// Goes with each node id: ids are never reused, but the next mount begins anew, and a handle
    /// (open_by_handle_at(2)) of this one must mean nothing there.
    pub generation: u64,
    /// Lifetime of names and attributes.
    pub lifetime: Duration,
}

impl Negotiated {
    /// How long a name may be cached, or that there is none. In a volume others may change it at
    /// any time: it is asked for again at each use, which tells of changed attributes and content
    /// as well.
    pub fn name_lifetime(&self, validity: Validity) -> Duration {
        match validity {
            Validity::Kept => self.lifetime,
            Validity::Checked => self.lifetime.min(EDITED),
            Validity::Shared => Duration::ZERO,
        }
    }

    /// How long attributes may be cached. In a volume as long as it takes to read a file on in
    /// small pieces.
    pub fn attr_lifetime(&self, validity: Validity) -> Duration {
        match validity {
            Validity::Kept => self.lifetime,
            Validity::Checked => self.lifetime.min(EDITED),
            Validity::Shared => self.lifetime.min(SHARED),
        }
    }
}

/// What decides which capabilities are asked for.
#[derive(Clone, Copy, Debug)]
struct Requested {
    /// This mount alone changes the layers.
    stable: bool,
    /// Or changes by others are notified.
    notified: bool,
    /// There are volumes, which others may change.
    volumes: bool,
    writable: bool,
    acls: bool,
    /// Our own transport, which can do more than fuser.
    own: bool,
    uring: bool,
    passthrough: bool,
    writeback: bool,
    default_permissions: bool,
    /// Asked for, and there are xattrs to keep the labels in.
    security_ctx: bool,
}

/// A capability, when it is asked for, and why.
struct Capability {
    /// The name in [`Settings::without`]: the kernel's, in small letters, without `FUSE_`.
    name: &'static str,
    flag: InitFlags,
    wanted: fn(&Requested) -> bool,
    why: &'static str,
}

const fn ask(
    name: &'static str,
    flag: InitFlags,
    wanted: fn(&Requested) -> bool,
    why: &'static str,
) -> Capability {
    Capability {
        name,
        flag,
        wanted,
        why,
    }
}

/// All that is ever asked for. INIT_EXT, MAX_PAGES, ASYNC_READ and BIG_WRITES are requested by
/// fuser itself. Left out on purpose: REQUEST_TIMEOUT (a slow lower is no reason to abort a mount),
/// CREATE_SUPP_GROUP (the kernel drops setgid by itself before it asks), POSIX_LOCKS and
/// FLOCK_LOCKS (the kernel's own locks do, there being one kernel), the SPLICE flags (measured with
/// libfuse's passthrough_ll: 0.9 of the time of a copy for large sequential reads, 1.0 to 1.2 for
/// random reads, 1.1 for writes), SUBMOUNTS and DAX (there are none).
#[rustfmt::skip] // one capability, one line
const CAPABILITIES: &[Capability] = &[
    ask("parallel_dirops", InitFlags::FUSE_PARALLEL_DIROPS, |_| true, "lookups in one directory need not wait for each other: states are locked here"),
    ask("do_readdirplus", InitFlags::FUSE_DO_READDIRPLUS, |_| true, "a listing fills the caches of names and attributes"),
    ask("readdirplus_auto", InitFlags::FUSE_READDIRPLUS_AUTO, |_| true, "but only for readers who look at the attributes"),
    ask("cache_symlinks", InitFlags::FUSE_CACHE_SYMLINKS, |w| w.notified, "a symlink changes by being replaced"),
    ask("writeback_cache", InitFlags::FUSE_WRITEBACK_CACHE, |w| w.writeback && w.stable && !w.volumes && w.writable && !w.passthrough, "small writes are gathered; the kernel then owns size and times of open files"),
    ask("auto_inval_data", InitFlags::FUSE_AUTO_INVAL_DATA, |w| !w.stable || w.volumes, "cached data is checked against size and mtime where others may change them"),
    ask("posix_acl", InitFlags::FUSE_POSIX_ACL, |w| w.acls, "the kernel enforces ACLs; without it they would be mere xattrs"),
    // With passthrough the kernel writes as the daemon, who may keep the bits: then it has to clear
    // them itself.
    ask("handle_killpriv_v2", InitFlags::FUSE_HANDLE_KILLPRIV_V2, |w| !w.passthrough, "setuid, setgid and capabilities are cleared here: no question before each write"),
    ask("dont_mask", InitFlags::FUSE_DONT_MASK, |_| true, "a default ACL takes the umask's place (acl(5)), which is decided here"),
    ask("export_support", InitFlags::FUSE_EXPORT_SUPPORT, |_| true, "lookup of . and .. by node id: open_by_handle_at(2), NFS export"),
    // An asynchronous direct write (libaio, io_uring) drops the pages that it makes old before it
    // is sent, and not again when it is done (`fuse_aio_complete`): a page that was read in between
    // stays, with the bytes of before, for ever. To be told of the pages here could wait for the
    // very request that is served. So it is asked for on read-only mounts. What it costs, measured
    // on 2 CPUs with fio(1) over /dev/fuse, medians of three, without it to with it: 32 random
    // reads of 4 KiB at a time 0.43, of a cold file 0.76; as many writes 0.65; 8 reads of 1 MiB at
    // a time 0.59. One at a time, which is all I/O that is not asynchronous, costs the same;
    // `io=passthrough` does without the whole question.
    ask("async_dio", InitFlags::FUSE_ASYNC_DIO, |w| !w.writable, "several direct reads of one file at a time"),
    ask("no_open_support", InitFlags::FUSE_NO_OPEN_SUPPORT, |w| w.stable && !w.passthrough, "no message at all for opening and closing a file; of a layer that others edit the open finds out that the file is another one by now, and the kernel looks its name up again"),
    ask("no_opendir_support", InitFlags::FUSE_NO_OPENDIR_SUPPORT, |w| w.notified && w.own, "nor a directory; the kernel keeps listings then, of which fuser cannot end one without its being kept (`serve/listing_pages.rs`)"),
    ask("has_ioctl_dir", InitFlags::FUSE_HAS_IOCTL_DIR, |w| w.own, "lsattr and chattr of directories"),
    ask("setxattr_ext", InitFlags::FUSE_SETXATTR_EXT, |w| w.own, "tells when an access ACL has to clear setgid"),
    ask("security_ctx", InitFlags::FUSE_SECURITY_CTX, |w| w.own && w.security_ctx, "files are born with their SELinux label"),
    ask("has_expire_only", InitFlags::FUSE_HAS_EXPIRE_ONLY, |w| w.own && !w.stable, "a changed name is looked up again without throwing away what is below it"),
    // The kernel refuses the whole mount when it is asked for without default_permissions.
    ask("allow_idmap", InitFlags::FUSE_ALLOW_IDMAP, |w| w.own && w.default_permissions, "mount_setattr(2) may map the owners of a mount of it"),
    ask("passthrough", InitFlags::FUSE_PASSTHROUGH, |w| w.own && w.passthrough, "the kernel reads and writes the real file by itself"),
    ask("over_io_uring", InitFlags::FUSE_OVER_IO_URING, |w| w.uring, "a request stays on its caller's CPU"),
];

/// The names that [`Settings::without`] knows.
pub fn capability_names() -> impl Iterator<Item = &'static str> {
    CAPABILITIES.iter().map(|capability| capability.name)
}

/// What carries the requests of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TransportKind {
    /// fuser reads them.
    Fuser,
    /// We read them from /dev/fuse.
    Dev,
    /// We fetch them by io_uring.
    Uring,
}

/// Asks for what the union can use and reports what the kernel grants.
pub(super) fn negotiate(
    config: &mut KernelConfig,
    union: &Union,
    settings: &Settings,
    transport: TransportKind,
) -> Negotiated {
    let stable = !union.may_change_below();
    let notified = stable || union.is_told_of_changes();
    let requested = Requested {
        stable,
        notified,
        volumes: union.has_volumes(),
        writable: !union.is_wholly_read_only(),
        acls: union.offers_acls(),
        own: transport != TransportKind::Fuser,
        uring: transport == TransportKind::Uring,
        passthrough: transport != TransportKind::Fuser && settings.io == Io::Passthrough,
        writeback: settings.writeback,
        default_permissions: !settings.no_default_permissions,
        security_ctx: settings.security_ctx && union.offers_xattrs(),
    };
    let granted = request_capabilities(config, &requested, settings);
    request_sizes(config, settings);
    let passthrough = granted.contains(InitFlags::FUSE_PASSTHROUGH);
    if passthrough && let Err(most) = config.set_max_stack_depth(MAX_STACK_DEPTH) {
        log::info!("the kernel stacks {most} file systems at most");
    }
    Negotiated {
        zero_message_open: granted.contains(InitFlags::FUSE_NO_OPEN_SUPPORT),
        zero_message_opendir: granted.contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT),
        keeps_cache: notified,
        writeback: granted.contains(InitFlags::FUSE_WRITEBACK_CACHE),
        long_setxattr: granted.contains(InitFlags::FUSE_SETXATTR_EXT),
        passthrough,
        expires: granted.contains(InitFlags::FUSE_HAS_EXPIRE_ONLY),
        generation: generation(),
        uring: granted.contains(InitFlags::FUSE_OVER_IO_URING),
        lifetime: settings.timeout.unwrap_or(FOREVER).min(FOREVER),
    }
}

/// A number that another mount will hardly have: the kernel keeps 32 bits of it.
fn generation() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |since| {
            u64::from(since.subsec_nanos()) ^ (since.as_secs() & 0xffff_ffff)
        })
}

/// Asks for the capabilities that are wanted; returns those that the kernel grants.
fn request_capabilities(
    config: &mut KernelConfig,
    requested: &Requested,
    settings: &Settings,
) -> InitFlags {
    let mut granted = InitFlags::empty();
    for capability in CAPABILITIES {
        let Capability {
            name, flag, why, ..
        } = capability;
        if !(capability.wanted)(requested) {
            continue;
        }
        if settings.without.iter().any(|other| other == name) {
            log::info!("not asked for: {name}, {why}");
            continue;
        }
        match config.add_capabilities(*flag) {
            Ok(()) => granted |= *flag,
            Err(_) => log::info!("kernel without {name}: {why}"),
        }
    }
    granted
}

/// Asks for the sizes of requests, and how many there may be in the background.
fn request_sizes(config: &mut KernelConfig, settings: &Settings) {
    let max_write = settings
        .max_write
        .unwrap_or(MAX_WRITE)
        .clamp(4096, MAX_WRITE);
    if let Err(nearest) = config.set_max_write(max_write) {
        log::info!("max_write {max_write} is not possible, the nearest is {nearest}");
    }
    // Replies are no longer than requests: the buffers are made for that. A kernel that reads ahead
    // less keeps to that.
    if let Err(most) = config.set_max_readahead(MAX_WRITE) {
        log::debug!("the kernel reads ahead {most} bytes at most");
    }
    if let Err(nearest) = config.set_max_background(MAX_BACKGROUND) {
        log::info!("max_background {MAX_BACKGROUND} is not possible, the nearest is {nearest}");
    }
}
