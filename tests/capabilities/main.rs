//! Whatever the kernel lacks: with each capability left out (`without=`), a mount does its work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::transport::transports;
use support::{Stack, mode, names, read, shell};
use unionmount::internal::fuse::capability_names;

/// What the kernels of ten years ago had not.
const NEARLY_ALL: &str = "parallel_dirops:do_readdirplus:readdirplus_auto:cache_symlinks:posix_acl:\
    handle_killpriv_v2:export_support:async_dio:no_open_support:no_opendir_support:has_ioctl_dir:setxattr_ext:\
    allow_idmap";

/// A little of everything that a capability has to do with.
fn work(at: &Path, acls: bool) {
    let path = |name: &str| at.join(name);
    assert_eq!(read(path("d/lower")), "old");
    fs::write(path("new"), "one").unwrap();
    shell(
        at,
        "printf two >> new; printf x >> d/lower; ln -s new link; mkdir e; mv d/lower e/moved",
    );
    assert_eq!(read(path("link")), "onetwo");
    assert_eq!(read(path("e/moved")), "oldx");
    // A write by another user takes the setuid bit.
    fs::write(path("suid"), "x").unwrap();
    for change in [
        "printf y >> suid",
        "truncate -s 1 suid",
        "fallocate -l 9 suid",
        ": > suid",
    ] {
        fs::set_permissions(path("suid"), fs::Permissions::from_mode(0o4777)).unwrap();
        shell(
            at,
            &format!("setpriv --reuid 1234 --regid 1234 --clear-groups sh -c '{change}'"),
        );
        assert_eq!(mode(path("suid")), 0o777, "{change}");
    }
    fs::remove_file(path("suid")).unwrap();
    // The umask, and what takes its place.
    shell(at, "umask 077; mkdir masked; touch masked/f");
    assert_eq!(
        (mode(path("masked")), mode(path("masked/f"))),
        (0o700, 0o600)
    );
    if acls {
        shell(
            at,
            "mkdir acl; setfacl -d -m u:1234:rwx,m::rwx acl; umask 077; touch acl/f",
        );
        let shown = shell(at, "getfacl -cn acl/f");
        assert!(shown.contains("user:1234:rwx"), "{shown}");
        shell(
            at,
            "setpriv --reuid 1234 --regid 1234 --clear-groups sh -c 'echo y >> acl/f'",
        );
        assert_eq!(read(path("acl/f")), "y\n");
    }
    let mapped = "python3 -c '
import mmap
with open(\"new\", \"r+b\") as f:
    m = mmap.mmap(f.fileno(), 0)
    m[0:3] = b\"ONE\"
    m.flush()
'";
    shell(at, mapped);
    assert_eq!(read(path("new")), "ONEtwo");
    fs::write(path("gone"), "").unwrap();
    fs::remove_file(path("gone")).unwrap();
    check(at);
}

/// What `work` leaves, also after a remount.
fn check(at: &Path) {
    assert_eq!(read(at.join("new")), "ONEtwo");
    assert_eq!(read(at.join("link")), "ONEtwo");
    assert_eq!(read(at.join("e/moved")), "oldx");
    assert!(names(at.join("d")).is_empty());
    let mut found = names(at);
    found.retain(|name| name != "acl");
    assert_eq!(found, ["d", "e", "link", "masked", "new"]);
}

#[test]
fn each_capability_may_be_missing() {
    support::need_fuse!();
    // Each by itself on one transport, and on the others those that decide what the transport does,
    // and nearly none.
    let few = [
        "no_open_support",
        "handle_killpriv_v2",
        "setxattr_ext",
        NEARLY_ALL,
    ];
    for transport in transports() {
        let names: Vec<_> = match transport {
            "dev" => capability_names().chain([NEARLY_ALL]).collect(),
            _ => few.to_vec(),
        };
        for name in names {
            let stack = Stack::new(1)
                .option(&format!("transport={transport}"))
                .option(&format!("without={name}"));
            stack.file(0, "d/lower", "old");
            eprintln!("{transport} without {name}");
            // A kernel that takes the umask away by itself does so where a default ACL should take
            // its place, too.
            let acls = !name.contains("posix_acl") && name != "dont_mask";
            stack.twice(|at| work(at, acls), check);
        }
    }
}

#[test]
fn io_uring_that_was_asked_for_is_not_given_up_silently() {
    support::need_fuse!();
    if !transports().contains(&"uring") {
        return;
    }
    let stack = Stack::new(1)
        .option("transport=uring")
        .option("without=over_io_uring");
    let output = stack.try_mount();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("did not agree to use io_uring"), "{said}");
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(
        !mounts.contains(stack.merged().to_str().unwrap()),
        "left mounted"
    );
}
