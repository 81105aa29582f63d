//! Setuid and setgid under concurrent changes: a chmod comes wholly before or wholly after what
//! clears them.

#![allow(clippy::unwrap_used)]

use std::sync::mpsc::{Receiver, channel};
use std::thread::Scope;
use std::time::Duration;

use rustix::fs::XattrFlags;

use crate::union::config::StatOverrideForm;
use crate::union::tests::testing::{Stack, file, find};
use crate::union::{Caller, Config, NodeId, SetAttr, Union};

/// Setgid of a file that is no program.
const MODE: u32 = 0o2644;
/// An access ACL that says no more than the mode 0600.
const ACL: [u8; 28] = [
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 4, 0, 0, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255,
    255, 255, 255,
];

fn mode_of(union: &Union) -> u32 {
    find(union, "f").attr.mode & 0o7777
}

fn chmod(mode: u32) -> SetAttr {
    SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    }
}

/// Begins a chmod in another thread and gives it time; the returned channel ends when it is done.
fn chmod_meanwhile<'scope>(
    scope: &'scope Scope<'scope, '_>,
    union: &'scope Union,
    node: NodeId,
) -> Receiver<()> {
    let (done, ended) = channel();
    scope.spawn(move || {
        union.setattr(node, &chmod(MODE)).unwrap();
        drop(done);
    });
    assert!(ended.recv_timeout(Duration::from_millis(300)).is_err());
    ended
}

/// Runs a change by a process outside of the file's group, while another one sets the mode as soon
/// as the first was asked for its groups. Returns the mode in the end.
fn mode_after(config: &Config, change: fn(&Union, NodeId, &dyn Fn(u32) -> bool)) -> u32 {
    let union = Union::open(config).unwrap();
    let caller = Caller::default();
    let node = union
        .make(NodeId::ROOT, b"f", &file(0o644), &caller)
        .unwrap()
        .node;
    union.setattr(node, &chmod(MODE)).unwrap();
    std::thread::scope(|scope| {
        change(&union, node, &|_| {
            chmod_meanwhile(scope, &union, node);
            false
        });
    });
    mode_of(&union)
}

fn configs(stack: &Stack) -> [Config; 2] {
    let records = Config {
        xattr_permissions: Some(StatOverrideForm::User),
        ..stack.config()
    };
    [stack.config(), records]
}

#[test]
fn a_chmod_during_a_truncation_is_not_lost() {
    for number in 0..2 {
        let stack = Stack::new();
        let mode = mode_after(&configs(&stack)[number], |union, node, belongs| {
            let set = SetAttr {
                size: Some(0),
                drop_setid: true,
                ..SetAttr::default()
            };
            union.setattr_by(node, &set, &belongs).unwrap();
        });
        assert_eq!(mode, MODE, "configuration {number}");
    }
}

#[test]
fn a_chmod_during_a_change_of_owner_is_not_lost() {
    let stack = Stack::new();
    let mode = mode_after(&configs(&stack)[1], |union, node, belongs| {
        let set = SetAttr {
            uid: Some(5),
            ..SetAttr::default()
        };
        union.setattr_by(node, &set, &belongs).unwrap();
    });
    assert_eq!(mode, MODE);
}

#[test]
fn a_chmod_while_an_access_acl_is_set_is_not_lost() {
    for number in 0..2 {
        let stack = Stack::new();
        let mode = mode_after(&configs(&stack)[number], |union, node, belongs| {
            let name = b"system.posix_acl_access";
            union
                .setxattr_by(node, name, &ACL, XattrFlags::empty(), &belongs)
                .unwrap();
        });
        assert_eq!(mode, MODE, "configuration {number}");
    }
}

#[test]
fn bits_go_by_who_asks() {
    let stack = Stack::new();
    let union = stack.open();
    let caller = Caller::default();
    let node = union
        .make(NodeId::ROOT, b"f", &file(0o644), &caller)
        .unwrap()
        .node;
    let after = |mode, change: &dyn Fn()| {
        union.setattr(node, &chmod(mode)).unwrap();
        change();
        mode_of(&union)
    };
    let clear = |asker: &dyn crate::union::Asker| union.clear_setid(node, asker).unwrap();
    assert_eq!(
        after(0o6755, &|| assert!(!clear(&crate::union::Privileged))),
        0o6755
    );
    assert_eq!(after(0o6755, &|| assert!(clear(&|_: u32| true))), 0o755);
    assert_eq!(after(0o6644, &|| assert!(clear(&|_: u32| true))), 0o2644);
    assert_eq!(after(0o6644, &|| assert!(clear(&|_: u32| false))), 0o644);
    let truncated = SetAttr {
        size: Some(0),
        drop_setid: true,
        ..SetAttr::default()
    };
    let set = |set: &SetAttr, member: bool| {
        let belongs = |_: u32| member;
        union.setattr_by(node, set, &belongs).unwrap();
    };
    assert_eq!(after(0o2644, &|| set(&truncated, true)), 0o2644);
    assert_eq!(after(0o2644, &|| set(&truncated, false)), 0o644);
    let with_mode = SetAttr {
        mode: Some(0o2600),
        ..truncated
    };
    assert_eq!(after(0o2644, &|| set(&with_mode, false)), 0o2600);
}
