//! A system call with fewer rights than this process has: then the kernel applies its rules for
//! callers without them.
//!
//! A caller that changes a file without belonging to its group clears setgid
//! (`setattr_should_drop_sgid` in the kernel's `fs/attr.c`), under the lock of the inode. A daemon
//! that reads the mode and writes it without that bit undoes what another process sets meanwhile;
//! one that has the kernel do it does not.

use std::thread::{Builder, scope};

use rustix::io::Result;
use rustix::process::{
    DumpableBehavior, dumpable_behavior, getegid, getgroups, set_dumpable_behavior,
};
use rustix::thread::{
    CapabilitySet, Gid, capabilities, set_capabilities, set_thread_groups, set_thread_res_gid,
};

/// Groups that are not `group`, of which every user namespace that can do without its own has one.
fn another(group: u32) -> Gid {
    const NOBODY: u32 = 65534;
    Gid::from_raw(if group == NOBODY { NOBODY - 1 } else { NOBODY })
}

/// Makes this thread one that has no CAP_FSETID and does not belong to a group. Credentials are a
/// thread's own (credentials(7), capabilities(7)).
fn leave(group: u32) -> Result<()> {
    // Groups first: that takes a capability.
    if getgroups()?.contains(&Gid::from_raw(group)) {
        set_thread_groups(&[])?;
    }
    if getegid().as_raw() == group {
        let dumpable = dumpable_behavior()?;
        set_thread_res_gid(None, another(group), None)?;
        // It is the process's, and changes with any thread's group (prctl(2), PR_SET_DUMPABLE).
        if dumpable == DumpableBehavior::Dumpable {
            set_dumpable_behavior(dumpable)?;
        }
    }
    let mut sets = capabilities(None)?;
    sets.effective.remove(CapabilitySet::FSETID);
    set_capabilities(None, sets)
}

/// Runs a call on a thread of its own that has all rights of this one, but not CAP_FSETID, and does
/// not belong to `group` (an id on disk). `None`, and the call was not made, where that cannot be
/// arranged.
pub(crate) fn outside_of_group<T: Send>(group: u32, call: impl FnOnce() -> T + Send) -> Option<T> {
    scope(|threads| {
        let name = "unionmount-out".into();
        let thread = Builder::new()
            .name(name)
            .spawn_scoped(threads, || leave(group).ok().map(|()| call()));
        thread.ok()?.join().ok()?
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_call_alone_has_fewer_rights() {
        let group = getegid().as_raw();
        let before = (
            getgroups().unwrap(),
            capabilities(None).unwrap(),
            dumpable_behavior().unwrap(),
        );
        let seen = outside_of_group(group, || {
            let fsetid = capabilities(None)
                .unwrap()
                .effective
                .contains(CapabilitySet::FSETID);
            (getegid().as_raw(), fsetid, getgroups().unwrap())
        });
        let after = (
            getgroups().unwrap(),
            capabilities(None).unwrap(),
            dumpable_behavior().unwrap(),
        );
        assert!(before == after && getegid().as_raw() == group);
        let Some((egid, fsetid, groups)) = seen else {
            assert!(!rustix::process::geteuid().is_root());
            return;
        };
        assert!(egid != group && !fsetid);
        assert!(!groups.contains(&Gid::from_raw(group)));
    }
}
