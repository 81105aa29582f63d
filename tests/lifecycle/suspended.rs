//! A daemon that is suspended: who wants its mount gone is told why not, or gets it, and never
//! waits for it.

use std::fs;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::mount::UnmountFlags;

use super::guard::{Limit, Stopped, alive, on_each, stack, umount, wait_for_end, wait_until};
use support::images::mount;
use support::transport::connection;
use support::{Mount, Stack, read};

/// How long a command may take that meets a suspended daemon: it looks twice, for some seconds.
const BOUND: Duration = Duration::from_secs(15);

fn suspended(transport: &str, limit: &Limit) -> (Stack, Mount) {
    let stack = stack(transport, 1);
    stack.file(0, "f", "f");
    let mount = limit.mount(&stack);
    fs::write(mount.path("new"), "new").unwrap();
    (stack, mount)
}

/// Runs `unionmount umount` within the bound; gives its exit code and what it said.
fn bounded_umount(mount: &Mount, arguments: &[&str]) -> (Option<i32>, String) {
    let begun = Instant::now();
    let Output { status, stderr, .. } = umount(&mount.at, arguments);
    assert!(begun.elapsed() < BOUND, "{:?}", begun.elapsed());
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn umount_says_who_is_suspended_and_leaves_the_mount() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let (stack, mount) = suspended(transport, limit);
        let stopped = Stopped::new(&mount);
        let (code, said) = bounded_umount(&mount, &[]);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        let cure = format!("'kill -CONT {}'", mount.pid.unwrap());
        assert!(
            said.contains(&cure) && said.contains("umount --force"),
            "{said}"
        );
        drop(stopped);
        assert_eq!(read(mount.path("new")), "new");
        mount.unmount();
        stack.assert_work_is_empty();
    });
}

#[test]
fn umount_force_gets_through_and_ends_the_daemon() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let (stack, mount) = suspended(transport, limit);
        let stopped = Stopped::new(&mount);
        let (code, said) = bounded_umount(&mount, &["--force"]);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(connection(&mount.at), None);
        wait_for_end(&mount);
        drop((stopped, mount));
        let again = limit.mount(&stack);
        assert_eq!(read(again.path("new")), "new");
        again.unmount();
        stack.assert_work_is_empty();
    });
}

#[test]
fn umount_lazy_detaches_at_once_and_says_what_is_not_known() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let (stack, mount) = suspended(transport, limit);
        let stopped = Stopped::new(&mount);
        let (code, said) = bounded_umount(&mount, &["--lazy"]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("is suspended"), "{said}");
        assert_eq!(connection(&mount.at), None);
        assert!(alive(mount.pid.unwrap()));
        drop(stopped);
        wait_for_end(&mount);
        drop(mount);
        let again = limit.mount(&stack);
        assert_eq!(read(again.path("new")), "new");
        again.unmount();
    });
}

/// The daemon of a mount whose upper does not answer is kept by it at its end. The layers below are
/// free by then.
#[test]
fn the_layers_are_let_go_before_anything_that_may_take_its_time() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        // The kernel keeps what is written there, so that to sync it is to wait for that daemon.
        let outer_stack = stack("dev", 1).option("writeback=1");
        let outer = limit.mount(&outer_stack);
        let mut stack = stack(transport, 1).option("whiteout=char");
        let layer = mount(stack.dir.path(), "layer", "-t tmpfs tmpfs");
        fs::create_dir(layer.at.join("d")).unwrap();
        fs::write(layer.at.join("d/f"), "f").unwrap();
        stack.lowers = vec![layer.at.clone()];
        for name in ["upper", "work"] {
            fs::create_dir(outer.path(name)).unwrap();
        }
        stack.upper = Some(outer.path("upper"));
        stack.work = Some(outer.path("work"));
        let inner = limit.mount(&stack);
        assert_eq!(read(inner.path("d/f")), "f");
        fs::write(inner.path("new"), "new").unwrap();
        let stopped = Stopped::new(&outer);
        rustix::mount::unmount(&inner.at, UnmountFlags::empty()).unwrap();
        wait_until("the layer is free", || {
            rustix::mount::unmount(&layer.at, UnmountFlags::empty()).is_ok()
        });
        assert!(alive(inner.pid.unwrap()), "it was not kept");
        drop(stopped);
        wait_for_end(&inner);
        drop((inner, layer));
        assert_eq!(read(outer.path("upper/new")), "new");
        outer.unmount();
    });
}

#[test]
fn a_users_tools_unmount_what_is_suspended() {
    support::need_fuse!();
    on_each(60, |transport, limit| {
        let (_stack, mount) = suspended(transport, limit);
        let stopped = Stopped::new(&mount);
        // Nothing of ours is asked by these.
        let status = Command::new("timeout")
            .args(["--kill-after=5", "20", "fusermount3", "-u", "-z"])
            .arg(&mount.at)
            .status();
        assert!(status.unwrap().success());
        drop(stopped);
        wait_for_end(&mount);
    });
}
