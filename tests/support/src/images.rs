//! File systems of other kinds: images on loop devices and the kernel's own, all taken away again
//! when the test ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::shell;

/// Something mounted, until this is dropped: a failed test leaves neither the mount nor its loop
/// device.
pub struct Mounted {
    pub at: PathBuf,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The loop device goes with its last user (mount(8) sets autoclear).
        let flags = rustix::mount::UnmountFlags::DETACH;
        let _detached = rustix::mount::unmount(&self.at, flags);
    }
}

/// Whether a kind of file system can be made and mounted here. With `UNIONMOUNT_REQUIRE_FUSE=1` one
/// that cannot is a failure, unless the kernel has none of it.
pub fn is_here(kind: &str) -> bool {
    let tool = match kind {
        "squashfs" => "mksquashfs".to_owned(),
        "tmpfs" | "overlay" => "true".to_owned(),
        _ => format!("mkfs.{kind}"),
    };
    let known = |kind: &str| {
        let listed = fs::read_to_string("/proc/filesystems").unwrap();
        listed.split_whitespace().any(|word| word == kind)
    };
    if !known(kind) {
        // The result is seen in the list.
        let _loaded = Command::new("modprobe").arg("-q").arg(kind).status();
        if !known(kind) {
            eprintln!("skipped: this kernel has no {kind}");
            return false;
        }
    }
    has_program(&tool)
}

/// Whether a program is installed. With `UNIONMOUNT_REQUIRE_FUSE=1` one that is not is a failure.
pub fn has_program(name: &str) -> bool {
    let found = super::programs::find(name).is_some();
    if !found {
        super::skip(&super::programs::missing(name));
    }
    found
}

/// Mounts `source` at a new directory `DIR/NAME`.
pub fn mount(dir: &Path, name: &str, arguments: &str) -> Mounted {
    let at = dir.join(name);
    fs::create_dir_all(&at).unwrap();
    shell(dir, &format!("mount {arguments} {}", at.display()));
    Mounted { at }
}

/// An empty file system of `kind` (`ext4`, `xfs`, `btrfs`, `vfat`, `tmpfs`), mounted at `DIR/NAME`.
pub fn empty(dir: &Path, name: &str, kind: &str) -> Mounted {
    empty_with(dir, name, kind, "")
}

/// The same, mounted with further `options` (",noatime").
pub fn empty_with(dir: &Path, name: &str, kind: &str, with: &str) -> Mounted {
    if kind == "tmpfs" {
        return mount(dir, name, "-t tmpfs tmpfs");
    }
    let options = match kind {
        // The smallest that mkfs makes, with shared blocks.
        "xfs" => "-q -m reflink=1",
        "btrfs" => "-q",
        // Nothing is made in the background later.
        "ext4" => "-q -E lazy_itable_init=0,lazy_journal_init=0",
        _ => "",
    };
    let mkfs = if kind == "vfat" {
        // Also where a loop device is none of its business.
        format!("mkfs.vfat {options} {name}.img >/dev/null")
    } else {
        format!("mkfs.{kind} {options} {name}.img")
    };
    let size = if kind == "vfat" { "16M" } else { "320M" };
    shell(dir, &format!("truncate -s {size} {name}.img; {mkfs}"));
    mount(dir, name, &format!("-o loop{with} {name}.img"))
}

/// A read-only image of `kind` (`squashfs`, `erofs`) with the content of a directory, mounted at
/// `DIR/NAME`.
pub fn packed(dir: &Path, name: &str, kind: &str, content: &Path) -> Mounted {
    let content = content.display();
    let make = match kind {
        "squashfs" => format!("mksquashfs {content} {name}.img -quiet -no-progress >/dev/null"),
        _ => format!("mkfs.erofs {name}.img {content} >/dev/null 2>&1"),
    };
    shell(dir, &make);
    mount(dir, name, &format!("-o loop,ro {name}.img"))
}
