//! The few system calls that rustix does not wrap; the only unsafe code.

#![allow(unsafe_code)]

pub mod control_child;
pub mod cpu;
pub mod daemon;
pub mod device;
pub mod early_writeback;
pub mod idle;
pub mod inode_flags;
pub mod limits;
pub mod mapping;
pub mod mountinfo;
pub mod readable;
pub mod ring;
mod ring_layout;
pub mod ring_probe;
pub mod signals;
pub mod wake;
pub mod without_group;

/// Whether this process may give files to other owners, as root may. In a user namespace with a
/// single id it is root by name only.
#[must_use]
pub fn may_chown() -> bool {
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
