//! Who may change a file and leave its setuid and setgid bits (capabilities(7), CAP_FSETID).

use super::proto::InHeader;
use super::proto::wire::NO_ID;

/// Number of the capability.
const CAP_FSETID: u32 = 4;

/// Whether a caller may. The kernel says so with WRITE and SETATTR; for the rest root is taken to have CAP_FSETID and
/// others not. On an idmapped mount requests come without ids: the process itself is asked.
pub(super) fn may_keep_setid(header: &InHeader) -> bool {
    match header.uid {
        0 => true,
        NO_ID => has_fsetid(header.pid),
        _ => false,
    }
}

/// Whether a process has CAP_FSETID in effect; a process that cannot be asked has not.
fn has_fsetid(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| effective(&status) & (1 << CAP_FSETID) != 0)
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
        let me = InHeader {
            uid: NO_ID,
            pid: std::process::id(),
            ..InHeader::default()
        };
        let root = rustix::process::geteuid().is_root();
        assert_eq!(may_keep_setid(&me), root);
        assert!(!may_keep_setid(&InHeader { uid: 1000, ..me }));
        assert!(!may_keep_setid(&InHeader { pid: 0, ..me }));
    }
}
