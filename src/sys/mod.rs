//! The few system calls that rustix does not wrap; the only unsafe code.

#![allow(unsafe_code)]

pub(crate) mod control_child;
pub(crate) mod cpu;
pub(crate) mod daemon;
pub(crate) mod device;
pub(crate) mod early_writeback;
pub(crate) mod idle;
pub(crate) mod inode_flags;
pub(crate) mod limits;
pub(crate) mod mapping;
pub(crate) mod mountinfo;
pub(crate) mod readable;
pub(crate) mod ring;
mod ring_layout;
pub(crate) mod ring_probe;
pub(crate) mod signals;
pub(crate) mod wake;
pub(crate) mod without_group;

/// Whether this process may give files to other owners, as root may. In a user namespace with a
/// single id it is root by name only.
#[must_use]
pub(crate) fn may_chown() -> bool {
    // A namespace that maps fewer than two ids can store no other owner (user_namespaces(7)).
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return true;
    };
    let total: u64 = map
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum();
    total > 1
}
