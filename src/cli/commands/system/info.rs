//! `unionmount system info`: what will be used here, and why.

use std::fs;
use std::path::Path;

use clap::Args;
use rustix::fs::{CWD, Mode, OFlags, StatFs};
use serde_json::{Value, json};

use crate::archive::Ownership;
use crate::cli::commands::store_args::StoreArgs;
use crate::cli::mounting::privilege::{self, Means};
use crate::cli::ui::exit::{Failure, print};
use crate::cli::ui::listing::{document, filled};
use crate::cli::ui::template::Template;
use crate::cli::ui::visible;
use crate::layer::probe::{FsFeatures, probe};
use crate::layer::{FdCache, WritableDir};
use crate::store::documents::Platform;
use crate::store::{Area, Store};
use crate::sys::ring_probe;

/// Magic numbers of file systems that layers are usually on (statfs(2)).
const FILE_SYSTEMS: [(u32, &str); 10] = [
    (0xef53, "ext4"),
    (0x5846_5342, "xfs"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x794c_7630, "overlayfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x6969, "nfs"),
    (0x6573_5546, "fuse"),
    (0xf2f5_2010, "f2fs"),
    (0xca45_1a4e, "bcachefs"),
];

/// `system info`.
#[derive(Debug, Args)]
pub(in crate::cli::commands) struct InfoArgs {
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub json: bool,

    /// Print this template with {{.Field}}
    #[arg(short, long, value_name = "TEMPLATE")]
    pub format: Option<String>,
}

/// Shows what will be used here.
///
/// # Errors
/// The store cannot be opened or written.
pub(super) fn run(store: &StoreArgs, args: &InfoArgs) -> Result<(), Failure> {
    let mut store = store.open()?;
    let info = gather(&mut store)?;
    if args.json || args.format.as_deref() == Some("json") {
        return print(document(&info)?.as_bytes());
    }
    if let Some(format) = &args.format {
        let mut text = filled(&Template::parse(format)?, &info)?;
        text.push('\n');
        return print(text.as_bytes());
    }
    let mut text = String::new();
    lines(&info, 0, &mut text);
    print(text.as_bytes())
}

fn gather(store: &mut Store) -> Result<Value, Failure> {
    let means = Means::probe();
    let (driver, driver_reason) = driver(&means);
    let (transport, transport_reason) = match ring_probe::usable() {
        Ok(()) => (
            "io_uring",
            "the kernel offers FUSE over io_uring".to_owned(),
        ),
        Err(why) => ("/dev/fuse", why),
    };
    let (passthrough, passthrough_reason) = passthrough(&means);
    let usage = store.usage()?;
    let count = |kind: &str| {
        let mut lines = usage.summary.iter();
        lines
            .find(|line| line.kind == kind)
            .map_or(0, |line| line.total_count)
    };
    Ok(json!({
        "Version": env!("CARGO_PKG_VERSION"),
        "Root": store.paths().root().to_string_lossy(),
        "Images": count("Images"),
        "Containers": count("Containers"),
        "Volumes": count("Local Volumes"),
        "Layers": count("Layer Archives"),
        "Driver": driver,
        "DriverReason": driver_reason,
        "Transport": transport,
        "TransportReason": transport_reason,
        "IO": "cached",
        "IOReason": "opening and closing files costs no message; passthrough is used with -o io=passthrough",
        "Passthrough": passthrough,
        "PassthroughReason": passthrough_reason,
        "WhiteoutForm": "wh",
        "WhiteoutReason": "layers of images have this form; containers too, so that commit needs no translation",
        "Owners": match Ownership::possible() {
            Ownership::Real => "stored on the disk",
            Ownership::Recorded => "recorded in xattrs (user.containers.override_stat): this user cannot give files away",
        },
        "FileSystem": of_disk(store),
        "Kernel": of_kernel(transport == "io_uring"),
        "Privilege": {
            "MountByItself": means.admin,
            "UserNamespace": means.in_user_namespace,
            "Helper": means.helper.map(|path| path.to_string_lossy().into_owned()),
        },
        "Platform": Platform::of_machine().to_string(),
    }))
}

fn driver(means: &Means) -> (&'static str, String) {
    match privilege::fuse_is_available() {
        Ok(()) if means.admin => ("fuse", "/dev/fuse can be opened and mounted".to_owned()),
        Ok(()) => ("fuse", "fusermount3 mounts for this user".to_owned()),
        Err(error) => ("vfs", error.to_string()),
    }
}

/// What the store's disk can do. On a full disk nothing can be tried, and the rest can be told.
fn of_disk(store: &Store) -> Value {
    let area = Area::new(store.paths());
    let place = area.as_ref().map(Area::dir);
    let abilities = place.ok().and_then(abilities);
    json!({
        "Type": file_system(store.paths().root()),
        "WhiteoutDevices": abilities.as_ref().is_some_and(|a| a.whiteout_devices),
        "OverlayXattrs": abilities.as_ref().and_then(|a| a.overlay_xattrs),
        "OwnXattrs": abilities.as_ref().and_then(|a| a.own_xattrs),
        "Reflinks": place.is_ok_and(reflinks),
    })
}

fn of_kernel(has_io_uring: bool) -> Value {
    let file_systems = fs::read_to_string("/proc/filesystems");
    json!({
        "Release": rustix::system::uname().release().to_string_lossy(),
        "FuseModule": Path::new("/sys/module/fuse").exists(),
        "FuseDevice": Path::new("/dev/fuse").exists(),
        "IoUring": has_io_uring,
        "KernelOverlayfs": file_systems.is_ok_and(|all| all.contains("overlay")),
    })
}

fn passthrough(means: &Means) -> (&'static str, &'static str) {
    // Linux 6.9 has it; it needs the machine's own root (fuse-passthrough.rst).
    if means.in_user_namespace {
        ("no", "the kernel does not permit it in a user namespace")
    } else if !means.admin {
        ("no", "it needs root")
    } else if release() < (6, 9) {
        ("no", "the kernel is older than Linux 6.9")
    } else {
        (
            "on request",
            "with -o io=passthrough the kernel reads and writes real files itself",
        )
    }
}

fn release() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn abilities(dir: &Path) -> Option<FsFeatures> {
    let place = dir.join("probe");
    fs::create_dir(&place).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(CWD, &place, flags, Mode::empty()).ok()?;
    probe(&WritableDir::root(opened, &FdCache::new(16))).ok()
}

fn reflinks(dir: &Path) -> bool {
    let (one, other) = (dir.join("one"), dir.join("other"));
    let cloned = (|| -> std::io::Result<()> {
        fs::write(&one, [1; 8192])?;
        let (from, to) = (fs::File::open(&one)?, fs::File::create(&other)?);
        Ok(rustix::fs::ioctl_ficlone(&to, &from)?)
    })();
    cloned.is_ok()
}

fn file_system(path: &Path) -> String {
    let Ok(stat) = rustix::fs::statfs(path) else {
        return "unknown".to_owned();
    };
    let magic = magic(&stat);
    let known = FILE_SYSTEMS.iter().find(|(number, _)| *number == magic);
    known.map_or_else(|| format!("{magic:#x}"), |(_, name)| (*name).to_owned())
}

/// The type is a signed word of a size that depends on the machine.
fn magic(stat: &StatFs) -> u32 {
    let bytes = stat.f_type.to_ne_bytes();
    let mut low = [0; 4];
    let from = if cfg!(target_endian = "little") {
        bytes.get(..4)
    } else {
        bytes.get(bytes.len() - 4..)
    };
    low.copy_from_slice(from.unwrap_or(&[0; 4]));
    u32::from_ne_bytes(low)
}

/// Members as indented lines.
fn lines(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(members) = value else {
        return;
    };
    for (name, member) in members {
        let indent = " ".repeat(depth * 2);
        match member {
            Value::Object(_) => {
                text.push_str(&format!("{indent}{name}:\n"));
                lines(member, depth + 1, text);
            }
            Value::String(plain) => {
                text.push_str(&format!("{indent}{name}: {}\n", visible::line(plain)));
            }
            Value::Null => text.push_str(&format!("{indent}{name}: none\n")),
            other => text.push_str(&format!("{indent}{name}: {other}\n")),
        }
    }
}
