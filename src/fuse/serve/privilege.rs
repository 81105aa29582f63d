//! Who may change a file and leave its setuid and setgid bits (capabilities(7), CAP_FSETID).

use crate::fuse::proto::wire::NO_ID;

/// Number of the capability.
const CAP_FSETID: u32 = 4;

/// Whether the user `uid` may, by its process. The kernel says so with WRITE and SETATTR; for the
/// rest root is taken to have CAP_FSETID unless its process is known not to have it, and others
/// not. On an idmapped mount requests come without ids: the process itself is asked.
pub(super) fn may_keep_setid(uid: u32, pid: u32) -> bool {
    match uid {
        0 => !lacks_fsetid(pid),
        NO_ID => has_fsetid(pid),
        _ => false,
    }
}

/// Whether a caller keeps the setgid bit of a file of this group (as seen) that is no program: by
/// belonging to the group or by CAP_FSETID (`in_group_or_capable` in the kernel). The request does
/// not tell of supplementary groups, so the process is asked; one that cannot be asked, being in
/// another PID namespace, does not belong to it.
pub(super) fn belongs(pid: u32, group: u32) -> bool {
    status(pid).is_some_and(|status| {
        effective(&status) & (1 << CAP_FSETID) != 0 || in_group(&status, group)
    })
}

/// Whether a process has CAP_FSETID in effect; a process that cannot be asked has not.
fn has_fsetid(pid: u32) -> bool {
    status(pid).is_some_and(|status| effective(&status) & (1 << CAP_FSETID) != 0)
}

/// Whether a process is known not to have CAP_FSETID in effect.
fn lacks_fsetid(pid: u32) -> bool {
    status(pid).is_some_and(|status| effective(&status) & (1 << CAP_FSETID) == 0)
}

/// What `/proc/<pid>/status` says (proc_pid_status(5)).
fn status(pid: u32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).ok()
}

/// Whether a group is the file-system group (the fourth of the line `Gid:`) or a supplementary one.
fn in_group(status: &str, group: u32) -> bool {
    let groups = |key: &str, skipped: usize| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default()
            .split_whitespace()
            .skip(skipped)
            .any(|number| number.parse() == Ok(group))
    };
    groups("Gid:", 3) || groups("Groups:", 0)
}

/// The capabilities in effect, from the text of `/proc/<pid>/status` (proc_pid_status(5)).
fn effective(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read_from_the_status() {
        assert_eq!(effective("Name:\tx\nCapEff:\t0000000000000010\n"), 0x10);
        assert_eq!(effective("nothing"), 0);
        let status = "Gid:\t1\t2\t3\t4\nGroups:\t5 66 \n";
        let member: Vec<u32> = (0..100).filter(|group| in_group(status, *group)).collect();
        assert_eq!(member, [4, 5, 66]);
        let me = std::process::id();
        let root = rustix::process::geteuid().is_root();
        assert_eq!(lacks_fsetid(me), !root);
        assert!(!lacks_fsetid(0), "unknown");
        assert_eq!(may_keep_setid(NO_ID, me), root);
        assert!(!may_keep_setid(1000, me));
        assert!(!may_keep_setid(NO_ID, 0));
        assert_eq!(may_keep_setid(0, me), root);
        assert!(
            may_keep_setid(0, 0),
            "root, of whose process nothing is known"
        );
    }
}
