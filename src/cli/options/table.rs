//! Every option that `-o` knows: its name, what it takes, what it does. The parser, the help text,
//! the manual page and the "nearest name" of an error all read this one table.

use crate::fuse::settings::MountFlags;

/// What an option does.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Names directories, or says whether they are written to.
    Layers(LayersEffect),
    /// Sets a rule of the union.
    Union(UnionEffect),
    /// Sets how the session with the kernel is held.
    Session(SessionEffect),
    /// Log at debug level.
    Debug,
    /// Accepted, and changes nothing; the help says why that is right.
    Ignored(Accepts),
    /// Not a new mount, but other flags for one that is there; mount(8) calls the compatible form
    /// with it.
    Remount,
    /// Refused; the help says what to do instead. A switch that is off is fine.
    Unsupported,
}

/// Which directories.
#[derive(Clone, Copy, Debug)]
pub enum LayersEffect {
    /// Replaces the list of lower directories.
    Lowers,
    /// Adds one lower directory below the others.
    AddLower,
    /// Adds one data-only layer.
    AddDataOnly,
    /// The upper directory.
    Upper,
    /// The work directory.
    Work,
    /// One more volume.
    Volume,
    /// Read-only (true) or not.
    ReadOnly(bool),
}

/// Which rule of the union.
#[derive(Clone, Copy, Debug)]
pub enum UnionEffect {
    /// Owner mapping.
    UidMap,
    /// Group mapping.
    GidMap,
    /// Everything belongs to 0:0.
    SquashToRoot,
    /// Everything belongs to this user.
    SquashUid,
    /// Everything belongs to this group.
    SquashGid,
    /// Owners and modes are kept in xattrs.
    XattrPermissions,
    /// Never sync.
    Volatile,
    /// Sync (a switch: the opposite of `Volatile`).
    Fsync,
    /// No ACLs.
    NoAcl,
    /// No extended attributes.
    NoXattrs,
    /// Form of whiteouts.
    Whiteout,
    /// May layers change.
    Cache,
    /// Redirects.
    RedirectDir,
    /// Numbers of 32 bits.
    ShortInos,
    /// Directories do not count their subdirectories.
    StaticNlink,
    /// Handles outlive the kernel's memory of their file.
    NfsExport,
}

/// Which setting of the session.
#[derive(Clone, Copy, Debug)]
pub enum SessionEffect {
    /// Cache time of the kernel.
    Timeout,
    /// One thread or several.
    Threaded,
    /// Number of threads.
    Threads,
    /// Write-back cache of the kernel.
    Writeback,
    /// Largest write.
    MaxWrite,
    /// How requests come from the kernel.
    Transport,
    /// How data come to their readers.
    Io,
    /// Capabilities that are not asked for.
    Without,
    /// Labels at birth.
    SecurityCtx,
    /// An SELinux option of the kernel's, which is passed on.
    Label,
    /// All users may use the mount.
    AllowOther,
    /// The kernel checks permissions.
    DefaultPermissions,
    /// Source in `/proc/mounts`.
    FsName,
    /// Type in `/proc/mounts`.
    SubType,
    /// A generic mount flag.
    Flag(fn(&mut MountFlags)),
}

/// Which values an option without effect may have: a wrong one is a mistake even there.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// None.
    Nothing,
    /// Any value, or none.
    Anything,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A whole number.
    Number,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The name before `=`.
    pub name: &'static str,
    /// How the value is shown in the help, with its `=`; empty when there is none.
    pub value: &'static str,
    /// What it does.
    pub effect: Effect,
    /// One sentence for the help; for `Ignored` the reason, for `Unsupported` the cure.
    pub help: &'static str,
}

const fn unused(
    name: &'static str,
    value: &'static str,
    accepts: Accepts,
    reason: &'static str,
) -> Spec {
    spec(name, value, Effect::Ignored(accepts), reason)
}

const fn spec(name: &'static str, value: &'static str, effect: Effect, help: &'static str) -> Spec {
    Spec {
        name,
        value,
        effect,
        help,
    }
}

/// Options that do something.
#[rustfmt::skip] // one line per option
pub(crate) const OPTIONS: &[Spec] = &[
    spec("lowerdir", "=DIR[:DIR..]", Effect::Layers(LayersEffect::Lowers), "read-only layers, newest first (\\: for a colon in a path)"),
    spec("lowerdir+", "=DIR", Effect::Layers(LayersEffect::AddLower), "one more read-only layer, below those named before"),
    spec("datadir+", "=DIR", Effect::Layers(LayersEffect::AddDataOnly), "one more layer that only holds the bytes of files whose attributes are in the others (lowerdir=A::DATA says the same)"),
    spec("upperdir", "=DIR", Effect::Layers(LayersEffect::Upper), "the writable layer; without it the mount is read-only"),
    spec("workdir", "=DIR", Effect::Layers(LayersEffect::Work), "scratch space on the upper's file system, emptied at mount"),
    spec("volume", "=SOURCE:TARGET[:ro]", Effect::Layers(LayersEffect::Volume), "show a directory or file of the host at TARGET inside the union; may be given several times"),
    spec("ro", "", Effect::Layers(LayersEffect::ReadOnly(true)), "refuse every change; locks, cleans and writes nothing"),
    spec("rw", "", Effect::Layers(LayersEffect::ReadOnly(false)), "allow changes (default when there is an upper)"),
    spec("uidmapping", "=DISK:SEEN:LEN[:..]", Effect::Union(UnionEffect::UidMap), "users DISK.. on disk are seen as SEEN.., LEN of them"),
    spec("gidmapping", "=DISK:SEEN:LEN[:..]", Effect::Union(UnionEffect::GidMap), "the same for groups"),
    spec("squash_to_root", "", Effect::Union(UnionEffect::SquashToRoot), "everything is seen and stored as owned by 0:0"),
    spec("squash_to_uid", "=UID", Effect::Union(UnionEffect::SquashUid), "everything is seen and stored as owned by this user"),
    spec("squash_to_gid", "=GID", Effect::Union(UnionEffect::SquashGid), "everything is seen and stored as owned by this group"),
    spec("xattr_permissions", "=0|1|2", Effect::Union(UnionEffect::XattrPermissions), "keep owners, modes and device nodes of the upper in xattrs, for disks and users that cannot store them: 1 as root, 2 as any user"),
    spec("volatile", "", Effect::Union(UnionEffect::Volatile), "never sync to disk: for containers that are thrown away after a crash"),
    spec("fsync", "=0|1", Effect::Union(UnionEffect::Fsync), "fsync=0 is volatile"),
    spec("noacl", "", Effect::Union(UnionEffect::NoAcl), "do not offer POSIX ACLs"),
    spec("noxattrs", "[=0|1]", Effect::Union(UnionEffect::NoXattrs), "neither offer nor use extended attributes"),
    spec("whiteout", "=wh|char|auto", Effect::Union(UnionEffect::Whiteout), "form in which deletions are stored: .wh. files, 0/0 devices, or as the upper has them"),
    spec("redirect_dir", "=on|off", Effect::Union(UnionEffect::RedirectDir), "rename lower directories by a redirect (fast) or by a copy (default, for engines that read the upper)"),
    spec("nfs_export", "=on|off", Effect::Union(UnionEffect::NfsExport), "file handles (NFS, open_by_handle_at) work also when the kernel has forgotten their file; costs up to a kilobyte of memory for each object that was ever looked up"),
    spec("ino32_t", "[=0|1]", Effect::Union(UnionEffect::ShortInos), "all inode numbers have 32 bits, for programs that know no others; by default all that fit have 32 bits, and each is unique; this hashes the rest, of which two may collide"),
    spec("static_nlink", "[=0|1]", Effect::Union(UnionEffect::StaticNlink), "the link count of every directory is 1; by default a directory of a single layer has the count of its disk"),
    spec("cache", "=static|auto", Effect::Union(UnionEffect::Cache), "auto: changes made to the lower layers behind the mount's back show within a second"),
    spec("timeout", "=SECONDS", Effect::Session(SessionEffect::Timeout), "how long the kernel may cache names and attributes (default: for ever)"),
    spec("threads", "=N", Effect::Session(SessionEffect::Threads), "threads that serve requests, on io_uring for each CPU (default: by number of CPUs); more while long requests keep them"),
    spec("threaded", "=0|1", Effect::Session(SessionEffect::Threaded), "threaded=0 is threads=1"),
    spec("writeback", "=0|1", Effect::Session(SessionEffect::Writeback), "let the kernel collect small writes: pays off for many to one file (default 0)"),
    spec("max_write", "=BYTES", Effect::Session(SessionEffect::MaxWrite), "largest write request (default 1 MiB)"),
    spec("transport", "=auto|uring|dev|fuser", Effect::Session(SessionEffect::Transport), "how requests come from the kernel (auto: io_uring where it is switched on, else /dev/fuse)"),
    spec("io", "=auto|cached|passthrough", Effect::Session(SessionEffect::Io), "passthrough: the kernel reads and writes upper files, or all of a read-only mount, by itself; opens then cost a message"),
    spec("without", "=NAME[:NAME..]", Effect::Session(SessionEffect::Without), "kernel capabilities not to ask for, such as writeback_cache or no_open_support; for kernels that have one and fail"),
    spec("security_ctx", "=0|1", Effect::Session(SessionEffect::SecurityCtx), "new objects are born with their SELinux label, which the upper must be able to store (default 0)"),
    spec("context", "=LABEL", Effect::Session(SessionEffect::Label), "SELinux: the label of everything on the mount (left out where the kernel has no SELinux)"),
    spec("fscontext", "=LABEL", Effect::Session(SessionEffect::Label), "SELinux: the label of the mount itself"),
    spec("defcontext", "=LABEL", Effect::Session(SessionEffect::Label), "SELinux: the label of objects that have none"),
    spec("rootcontext", "=LABEL", Effect::Session(SessionEffect::Label), "SELinux: the label of the mount's root"),
    spec("allow_other", "", Effect::Session(SessionEffect::AllowOther), "other users may use the mount, or it fails (default: where permitted)"),
    spec("default_permissions", "[=0|1]", Effect::Session(SessionEffect::DefaultPermissions), "the kernel checks permissions (default 1)"),
    spec("fsname", "=NAME", Effect::Session(SessionEffect::FsName), "source shown in /proc/mounts"),
    spec("subtype", "=NAME", Effect::Session(SessionEffect::SubType), "type shown in /proc/mounts, behind `fuse.`"),
    spec("debug", "", Effect::Debug, "log at debug level"),
    spec("dev", "", Effect::Session(SessionEffect::Flag(|flags| flags.dev = true)), "device nodes work"),
    spec("nodev", "", Effect::Session(SessionEffect::Flag(|flags| flags.dev = false)), "device nodes do not work (default)"),
    spec("suid", "", Effect::Session(SessionEffect::Flag(|flags| flags.suid = true)), "set-user-id bits are honoured (default)"),
    spec("nosuid", "", Effect::Session(SessionEffect::Flag(|flags| flags.suid = false)), "set-user-id bits are not honoured"),
    spec("exec", "", Effect::Session(SessionEffect::Flag(|flags| flags.exec = true)), "programs may be run (default)"),
    spec("noexec", "", Effect::Session(SessionEffect::Flag(|flags| flags.exec = false)), "programs may not be run"),
    spec("atime", "", Effect::Session(SessionEffect::Flag(|flags| flags.noatime = false)), "access times are updated (default)"),
    spec("noatime", "", Effect::Session(SessionEffect::Flag(|flags| flags.noatime = true)), "access times are not updated"),
    spec("relatime", "", Effect::Session(SessionEffect::Flag(|flags| flags.noatime = false)), "as atime, when older than the last change"),
    spec("strictatime", "", Effect::Session(SessionEffect::Flag(|flags| flags.noatime = false)), "as atime"),
    spec("diratime", "", Effect::Session(SessionEffect::Flag(|flags| flags.nodiratime = false)), "as atime, for directories (default)"),
    spec("nodiratime", "", Effect::Session(SessionEffect::Flag(|flags| flags.nodiratime = true)), "as noatime, for directories only"),
    spec("sync", "", Effect::Session(SessionEffect::Flag(|flags| flags.sync = true)), "writes are synchronous"),
    spec("async", "", Effect::Session(SessionEffect::Flag(|flags| flags.sync = false)), "writes are not synchronous (default)"),
    spec("dirsync", "", Effect::Session(SessionEffect::Flag(|flags| flags.dirsync = true)), "passed on to the kernel, whose FUSE does not act on it"),
];

const NOTHING: Accepts = Accepts::Nothing;
const ANYTHING: Accepts = Accepts::Anything;
const ON_OFF: Accepts = Accepts::OneOf(&["on", "off"]);

/// Options that other programs pass to any union mount, and that need no effect here. Each with the
/// reason.
#[rustfmt::skip] // one line per option
pub(crate) const WITHOUT_EFFECT: &[Spec] = &[
    unused("xino", "=on|off|auto", Accepts::OneOf(&["on", "off", "auto"]), "inode numbers are always constant and unique here"),
    unused("fast_ino", "=N", ANYTHING, "constant inode numbers cost nothing that could be saved"),
    unused("userxattr", "", NOTHING, "marks in user. and trusted. xattrs are both read, and written where permitted"),
    unused("metacopy", "=on|off", ON_OFF, "a copied-up file always has its data"),
    unused("index", "=on|off", ON_OFF, "hard links always stay together"),
    unused("uuid", "=WORD", ANYTHING, "FUSE mounts have no UUID"),
    unused("lazytime", "", NOTHING, "the upper's own file system decides when it stores times"),
    unused("nolazytime", "", NOTHING, "as lazytime"),
    unused("max_read", "=BYTES", Accepts::Number, "the kernel sizes its reads, every size is served"),
    unused("clone_fd", "", NOTHING, "how threads share the device is chosen by what is fastest"),
    unused("nonempty", "", NOTHING, "a mountpoint may always hold files"),
    unused("big_writes", "", NOTHING, "large writes are always used"),
    unused("kernel_cache", "", NOTHING, "unchanged files always stay cached"),
    unused("seclabel", "", NOTHING, "shown by the kernel for file systems that store labels"),
    unused("norelatime", "", NOTHING, "relatime is what the kernel does unless told otherwise"),
    unused("nostrictatime", "", NOTHING, "as norelatime"),
    unused("defaults", "", NOTHING, "the defaults hold for every option that is not named"),
    unused("auto", "", NOTHING, "read by mount -a, not by a file system"),
    unused("noauto", "", NOTHING, "as auto"),
    unused("user", "", ANYTHING, "read by mount(8), which passes the flags that follow from it"),
    unused("nouser", "", NOTHING, "as user"),
    unused("users", "", NOTHING, "as user"),
    unused("nousers", "", NOTHING, "as user"),
    unused("owner", "", NOTHING, "as user"),
    unused("noowner", "", NOTHING, "as user"),
    unused("group", "", NOTHING, "as user"),
    unused("nogroup", "", NOTHING, "as user"),
    unused("_netdev", "", NOTHING, "read at boot, not by a file system"),
    unused("nofail", "", NOTHING, "as _netdev"),
    unused("comment", "=TEXT", ANYTHING, "a comment"),
    unused("silent", "", NOTHING, "errors are one line already"),
    unused("loud", "", NOTHING, "as silent"),
    unused("mand", "", NOTHING, "Linux has no mandatory locks any more"),
    unused("nomand", "", NOTHING, "as mand"),
    unused("iversion", "", NOTHING, "FUSE keeps no inode version"),
    unused("noiversion", "", NOTHING, "as iversion"),
    unused("private", "", NOTHING, "propagation is set by mount(8) after the mount"),
    unused("rprivate", "", NOTHING, "as private"),
    unused("shared", "", NOTHING, "as private"),
    unused("rshared", "", NOTHING, "as private"),
    unused("slave", "", NOTHING, "as private"),
    unused("rslave", "", NOTHING, "as private"),
    unused("unbindable", "", NOTHING, "as private"),
    unused("runbindable", "", NOTHING, "as private"),
];

/// Options that are known and would do harm if they were ignored.
#[rustfmt::skip] // one line per option
pub(crate) const UNSUPPORTED: &[Spec] = &[
    spec("allow_root", "", Effect::Unsupported, "use allow_other, or mount as root"),
    spec("remount", "", Effect::Remount, "run 'mount -o remount,ro|rw MOUNTPOINT', which changes these and the generic flags; for others unmount, then mount"),
];

/// Returns the option of this exact name. `x-..` names (mount(8) leaves them to user space) have no
/// entry; see [`is_comment`].
#[must_use]
pub(crate) fn find(name: &str) -> Option<&'static Spec> {
    all().find(|spec| spec.name == name)
}

/// Whether a name is reserved for other programs (`x-systemd.automount`, `X-mount.mkdir`).
#[must_use]
pub(crate) fn is_comment(name: &str) -> bool {
    name.starts_with("x-") || name.starts_with("X-")
}

/// Returns the known name that is most similar to this one, if any is.
#[must_use]
pub(crate) fn nearest(name: &str) -> Option<&'static str> {
    super::nearest::nearest(
        name,
        OPTIONS.iter().chain(WITHOUT_EFFECT).map(|spec| spec.name),
    )
}

fn all() -> impl Iterator<Item = &'static Spec> {
    OPTIONS.iter().chain(WITHOUT_EFFECT).chain(UNSUPPORTED)
}

/// Returns the table as text for `--help` and the manual page.
#[must_use]
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Options for -o, separated by commas (\\, for a comma in a value, or double quotes around it):\n",
    );
    for spec in OPTIONS {
        text.push_str(&format!(
            "  {}{}\n          {}\n",
            spec.name, spec.value, spec.help
        ));
    }
    text.push_str("\nAccepted because other programs pass them, without effect:\n");
    for spec in WITHOUT_EFFECT {
        text.push_str(&format!("  {}{}: {}\n", spec.name, spec.value, spec.help));
    }
    text.push_str("\nNot supported in this version:\n");
    for spec in UNSUPPORTED {
        text.push_str(&format!("  {}{}: {}\n", spec.name, spec.value, spec.help));
    }
    text
}

#[cfg(test)]
mod tests;
