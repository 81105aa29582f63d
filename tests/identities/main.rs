//! Who owns what: owners, modes and devices that the disk cannot store, and ids that it stores
//! shifted.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Mount, Stack, binary, shell};

/// The ordinary user.
const USER: u32 = 1000;

/// A tree with what a Debian root has: programs with setuid and capabilities, secrets of groups,
/// devices, pipes, sticky and setgid directories, hard links, symlinks, ACLs.
const DEBIAN: &str = r"
umask 022
mkdir -p dev etc home/user tmp usr/bin var/mail run
chmod 1777 tmp; chgrp 8 var/mail; chmod 2775 var/mail; chown -R 1000:1000 home/user; chmod 700 home/user
ln -s usr/bin bin
cp /bin/true usr/bin/su; chmod 4755 usr/bin/su
cp /bin/true usr/bin/ping; setcap cap_net_raw=ep usr/bin/ping
echo secret > etc/shadow; chown 0:42 etc/shadow; chmod 640 etc/shadow
echo name > etc/passwd; echo x > etc/acl; setfacl -m u:33:r etc/acl; setfacl -d -m g:33:rwx var/mail
mknod dev/null c 1 3; chmod 666 dev/null; mknod dev/vda b 254 0; chown 0:6 dev/vda; chmod 660 dev/vda
mknod dev/zero-zero c 0 0; mkfifo -m 600 run/initctl
ln usr/bin/su usr/bin/sudo; touch -d 2001-02-03 etc/passwd; touch -d @0 tmp; chown 100:65534 run
";

/// A shell function: what must not succeed.
const FAILS: &str =
    r#"fails() { if "$@" 2>/dev/null; then echo "succeeded: $*" >&2; exit 1; fi; }"#;

/// What is compared: all but the owners of symlinks, which stay the daemon's.
const LOOK: &str = r"
find . -mindepth 1 ! -type l -printf '%P %y %m %U %G %n %T@\n' -o -type l -printf '%P %l\n' | sed -E 's/^([^ ]+ d .* )[0-9]+ /\1/' | sort
stat -c '%n %t:%T' dev/*; getcap usr/bin/*; find . ! -type l | sort | xargs getfacl -n 2>/dev/null | grep -v '^# owner\|^# group'; cat etc/*
";

fn look(at: &Path) -> String {
    shell(at, LOOK)
}

/// A mount that is served by [`USER`], who may neither give files away nor make devices.
fn mount_as_user(stack: &Stack, options: &str) -> Mount {
    let at = stack.merged();
    let output = Command::new("timeout")
        .args(["60", "python3"])
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/identities/mount_as.py"
        ))
        .arg(USER.to_string())
        .arg(&at)
        .arg(stack.dir.path().join("unionmount"))
        .arg("mount")
        .args(
            stack
                .lowers
                .iter()
                .flat_map(|lower| ["--lower".as_ref(), lower.as_os_str()]),
        )
        .args(["--upper".as_ref(), stack.upper().as_os_str()])
        .args(["--work".as_ref(), stack.work().as_os_str()])
        .args(["-o", options])
        .output()
        .unwrap();
    let mount = Mount::found(at);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    mount
}

/// A stack whose directories belong to [`USER`], with the program, where such a user gets to.
fn stack_of_user() -> Stack {
    let mut stack = Stack::new(0);
    stack.dir = tempfile::Builder::new()
        .prefix("user.")
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir_in("/var/tmp")
        .unwrap();
    for name in ["upper", "work", "merged", "lower"] {
        let dir = stack.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(USER), Some(USER)).unwrap();
        stack.lowers = vec![dir];
    }
    fs::copy(binary(), stack.dir.path().join("unionmount")).unwrap();
    stack
}

#[test]
fn a_debian_root_is_unpacked_and_used_by_an_ordinary_user() {
    support::need_fuse!();
    let stack = stack_of_user();
    let plain = stack.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    shell(&plain, DEBIAN);
    let tar = stack.dir.path().join("tar");
    shell(
        &plain,
        &format!(
            "tar --xattrs --xattrs-include='*' --acls -cf {} .",
            tar.display()
        ),
    );
    let expected = look(&plain);
    let unpack = format!(
        "tar --xattrs --xattrs-include='*' --acls -xpf {} --no-overwrite-dir",
        tar.display()
    );
    let at = stack.merged();
    {
        let _mount = mount_as_user(&stack, "xattr_permissions=2");
        // The user who unpacks is root to the mount; the daemon has no rights of root.
        shell(&at, &format!("chown 0:0 . && {unpack}"));
        assert_eq!(look(&at), expected);
        // What changes nothing changes the ctime all the same.
        shell(
            &at,
            "before=$(stat -c %z etc/passwd); sleep 0.02; chmod $(stat -c %a etc/passwd) etc/passwd
             now=$(stat -c %z etc/passwd); test \"$before\" != \"$now\"; sleep 0.02; chown 0:0 etc/passwd
             test \"$now\" != \"$(stat -c %z etc/passwd)\"",
        );
        // The mode counts for those who use it, not the disk's.
        let as_33 = "setpriv --reuid 33 --regid 33 --clear-groups";
        shell(
            &at,
            &format!(
                "{FAILS}; fails {as_33} cat etc/shadow; {as_33} cat etc/acl; fails {as_33} touch etc/x"
            ),
        );
        shell(
            &at,
            &format!(
                "setpriv --reuid 33 --regid 33 --groups 42 cat etc/shadow; {as_33} touch tmp/x; rm tmp/x; touch -d @0 tmp"
            ),
        );
    }
    {
        let _mount = mount_as_user(&stack, "xattr_permissions=2");
        assert_eq!(look(&at), expected);
        // Changed, removed and renamed like any other.
        shell(
            &at,
            "chown 5:6 dev/null; mv dev/null dev/null2; rm dev/vda; echo more >> usr/bin/su; mv etc etc2",
        );
        assert_eq!(
            shell(&at, "stat -c '%u %g %a %t:%T' dev/null2"),
            "5 6 666 1:3\n"
        );
    }
    let _mount = mount_as_user(&stack, "xattr_permissions=2");
    let seen = shell(
        &at,
        "stat -c '%u %g %a %t:%T' dev/null2; stat -c %a usr/bin/sudo; cat etc2/shadow; ls dev",
    );
    assert_eq!(seen, "5 6 666 1:3\n4755\nsecret\nnull2\nzero-zero\n");
    // On the disk everything is the user's own.
    let others = shell(
        stack.upper(),
        "find . ! -uid 1000 -o ! -type f ! -type d ! -type l",
    );
    assert_eq!(others, "");
}

#[test]
fn without_rights_and_without_records_what_can_be_stored_is_stored() {
    support::need_fuse!();
    let stack = stack_of_user();
    let lower = stack.file(0, "etc/f", "old");
    std::os::unix::fs::chown(&lower, Some(5), Some(6)).unwrap();
    let _mount = mount_as_user(&stack, "whiteout=wh");
    let at = stack.merged();
    // What stands for a device is the daemon's own, and no mode keeps it from it.
    let whiteouts = "import ctypes, os, stat
os.setgroups([]); os.setgid(1000); os.setuid(1000)
libc = ctypes.CDLL(None, use_errno=True)
open('moved', 'w').close()
assert libc.renameat2(-100, b'moved', -100, b'new', 4) == 0, ctypes.get_errno()
os.mknod('made', stat.S_IFCHR, 0)
for name in ('moved', 'made'):
    found = os.stat(name)
    assert stat.S_ISCHR(found.st_mode) and found.st_rdev == 0, oct(found.st_mode)";
    shell(&at, &format!("chmod 777 .; python3 -c \"{whiteouts}\""));
    // Copied up although the copy cannot be given to its owner, and made for others likewise.
    shell(
        &at,
        "echo new >> etc/f; mkdir etc/d; echo x > etc/d/g; ln -s x etc/l; cat etc/f; rm -r etc/d",
    );
    assert_eq!(
        fs::read_to_string(stack.upper().join("etc/f")).unwrap(),
        "oldnew\n"
    );
}

/// What [`USER`] says in a shell.
fn as_user(at: &Path, script: &str) -> String {
    let id = USER.to_string();
    let output = support::programs::program("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
        .args(["sh", "-euc", script])
        .current_dir(at)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{said}\n{complaint}");
    said
}

#[test]
fn an_ordinary_users_write_takes_capabilities_away() {
    support::need_fuse!();
    // cap_net_raw+ep
    let value = "0x0100000200200000000000000000000000000000";
    for transport in support::transport::transports() {
        let stack = stack_of_user();
        for name in ["written", "cut", "given", "removed", "kept", "low"] {
            let dir = match name {
                "low" => stack.lower(0).to_owned(),
                _ => stack.upper(),
            };
            let path = dir.join(name);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
            let set = format!("setfattr -n security.capability -v {value} {name}");
            shell(&dir, &set);
        }
        let immutable = shell(stack.upper(), "chattr +i kept && echo yes || true");
        let mount = mount_as_user(&stack, &format!("transport={transport},allow_other"));
        let at = stack.merged();
        let write = "echo x >> written; truncate -s 3 cut; chgrp $(id -g) given; echo x >> low";
        as_user(&at, write);
        let remove = "setfattr -x security.capability";
        shell(&at, &format!("{remove} removed"));
        let refused = shell(&at, &format!("{remove} kept 2>&1 || true"));
        mount.unmount();
        let left = shell(
            stack.upper(),
            "getfattr -n security.capability * 2>/dev/null | grep file: || true",
        );
        if immutable.is_empty() {
            eprintln!("no inode flags here");
            assert_eq!(left, "", "{transport}");
        } else {
            shell(stack.upper(), "chattr -i kept");
            assert!(refused.contains("not permitted"), "{refused}");
            assert_eq!(left, "# file: kept\n", "{transport}");
        }
    }
}

#[test]
fn names_in_a_directory_that_may_only_be_searched_can_be_used() {
    support::need_fuse!();
    for transport in support::transport::transports() {
        let mut stack = stack_of_user();
        let new = stack.dir.path().join("new");
        fs::create_dir(&new).unwrap();
        let old = stack.lower(0).to_owned();
        stack.lowers.insert(0, new.clone());
        // Root's directories, of which only who knows the names may use them, with marks of all
        // forms in them.
        shell(
            &old,
            &format!(
                "mkdir -p d/sub opaque
                 for f in d/f d/sub/g d/gone d/device opaque/old; do echo $f > $f; done
                 echo mine > d/mine; ln d/f d/hard; chown {USER}:{USER} d/mine; chmod 711 d opaque"
            ),
        );
        shell(
            &new,
            "mkdir d opaque; touch d/.wh.gone opaque/.wh..wh..opq; mknod d/device c 0 0
             echo new > opaque/new; echo over > d/over; chmod 711 opaque",
        );
        let options = format!("transport={transport},allow_other");
        let used = "
            test \"$(cat d/sub/g d/over opaque/new)\" = \"$(printf 'd/sub/g\nover\nnew')\"
            test \"$(cat d/hard)\" = d/f
            for name in d/none d/gone d/device opaque/old d/.wh.gone opaque/.wh..wh..opq; do
                o=$(stat $name 2>&1) && { echo $name is there; exit 1; }
                case $o in *'No such file'*) ;; *) echo $o; exit 1;; esac
            done
            for dir in d opaque; do
                o=$(ls $dir 2>&1) && { echo $dir is listed; exit 1; }
                case $o in *'Permission denied'*) ;; *) echo $o; exit 1;; esac
            done";
        let mount = mount_as_user(&stack, &options);
        let at = stack.merged();
        as_user(&at, used);
        as_user(
            &at,
            "test $(cat d/f) = d/f; rm d/none 2>/dev/null && exit 1
             echo more >> d/mine; test \"$(cat d/mine)\" = \"$(printf 'mine\nmore')\"
             mkdir d/dir; echo x > d/dir/f; echo y > d/made; mv d/made d/moved; ln d/moved d/linked; rm d/f
             mkdir own; echo z > own/f; chmod 311 own; test ! -e d/f",
        );
        // What needs all the names is refused as listing them is.
        let remove = "import errno, os
def fails(call, *args):
    try: call(*args)
    except OSError as error: return errno.errorcode[error.errno]
assert fails(os.rmdir, 'd') == 'EACCES', fails(os.rmdir, 'd')
assert fails(os.rename, 'd', 'other') == 'EACCES', fails(os.rename, 'd', 'other')
os.mkdir('empty')
assert fails(os.rename, 'empty', 'd') == 'EACCES', fails(os.rename, 'empty', 'd')
os.rmdir('empty')";
        as_user(&at, &format!("/usr/bin/python3 -c \"{remove}\""));
        mount.unmount();
        let _mount = mount_as_user(&stack, &options);
        as_user(&at, &used.replace("d/none", "d/none d/f d/made"));
        as_user(
            &at,
            "test \"$(cat d/moved d/linked d/dir/f own/f)\" = \"$(printf 'y\ny\nx\nz')\"
             test $(stat -c %h d/linked) = 2
             rm own/f; rmdir own; rm d/dir/f; rmdir d/dir; rm d/mine; test ! -e d/mine",
        );
    }
}

/// Ranges that do not follow each other, in either order.
const RANGES: &str = "0:100000:10:1000:0:1:2000:200000:100";

fn mapped(stack: Stack) -> Stack {
    stack
        .option(&format!("uidmapping={RANGES}"))
        .option(&format!("gidmapping={RANGES}"))
}

#[test]
fn ids_are_mapped_in_everything_that_carries_one() {
    support::need_fuse!();
    for records in [false, true] {
        let mut stack = mapped(Stack::new(1));
        if records {
            stack = stack.option("xattr_permissions=2");
        }
        let base = stack.lower(0).to_path_buf();
        shell(
            &base,
            "touch a b c; chown 5:1000 a; chown 2099:2000 b; chown 77:3000 c; setfacl -m u:5:r,g:2000:w a",
        );
        let upper: PathBuf = stack.upper();
        stack.twice(
            |at| {
                shell(at, "touch new; chown 100007:200050 new; setfacl -m u:0:r,g:100001:w new; mkdir d; chown 0 d; setfacl -d -m u:100002:rwx d");
                // An owner that no range has is stored as the overflow id; a right is given to no
                // other user.
                shell(at, "touch given; chown 42:43 given");
                shell(at, &format!("{FAILS}; fails setfacl -m u:42:r new; fails setfacl -m g:42:r new; fails setfacl -d -m u:42:r d"));
                shell(at, "setpriv --reuid 100003 --regid 0 --clear-groups true; chmod 777 d; setpriv --reuid 100003 --regid 200001 --clear-groups touch d/theirs; setpriv --reuid 4242 --regid 4243 --clear-groups touch d/outside");
            },
            |at| {
                assert_eq!(
                    shell(at, "stat -c '%n %u %g' a b c new d/theirs given d/outside"),
                    "a 100005 0\nb 200099 200000\nc 65534 65534\nnew 100007 200050\nd/theirs 100003 200001\ngiven 65534 65534\nd/outside 65534 65534\n"
                );
                assert_eq!(shell(at, "getfacl -n a new 2>/dev/null | grep '^[ug].*:[0-9]'"), "user:100005:r--\ngroup:200000:-w-\nuser:0:r--\ngroup:100001:-w-\n");
                assert_eq!(shell(at, "getfacl -n d d/theirs 2>/dev/null | grep ':[0-9]'"), "default:user:100002:rwx\nuser:100002:rwx\t#effective:rw-\n");
            },
        );
        if records {
            let value = shell(
                &upper,
                "getfattr --only-values -n user.containers.override_stat new d/theirs given d/outside",
            );
            assert_eq!(
                value,
                "7:2050:0666:file3:2001:0666:file65534:65534:0666:file65534:65534:0666:file"
            );
        } else {
            assert_eq!(
                shell(&upper, "stat -c '%u %g' new d/theirs given d/outside"),
                "7 2050\n3 2001\n65534 65534\n65534 65534\n"
            );
            assert_eq!(
                shell(&upper, "getfacl -n new 2>/dev/null | grep ':[0-9]'"),
                "user:1000:r--\ngroup:1:-w-\n"
            );
        }
    }
}
