//! What an ordinary user may do: mount through fusermount3, and in a user namespace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use support::binary;
use support::programs::program;

const USER: u32 = 64_123;

/// What is done on the mount; `$B` is the program, `$O` names the transport. Ends with the mount
/// taken away.
const LIFE: &str = r#"
set -eu
trap 'cd /; fusermount3 -uq "$D/m" 2>/dev/null || umount -l "$D/m" 2>/dev/null || true' EXIT
mkdir -p l1/d l2/d/sub u w m; echo one > l1/d/a; echo two > l2/d/b; ln l2/d/b l2/d/hard; ln -s b l2/d/sym
mkfifo l2/d/fifo; echo ro > l2/d/ro; chmod 444 l2/d/ro; mkdir l2/closed; echo x > l2/closed/f; chmod 555 l2/closed
$B mount $O --lower l1 --lower l2 --upper u --work w m
echo more >> m/d/b; test "$(cat m/d/hard)" = "two
more"
chmod 600 m/d/ro; chmod 640 m/closed/f; mv m/d/sym m/d/sym2; mv m/d/fifo m/d/fifo2
(umask 0777; echo hidden > m/zero); mkdir -m 0 m/none; rmdir m/none
long=$(printf n%.0s $(seq 255)); echo x > "m/$long"; rm "m/$long"
mv m/d m/e; rm -r m/e/sub; mkdir m/d; test -z "$(ls m/d)"
mkfifo m/e/new; ln m/e/sym2 m/e/sym3; mkdir m/e/in; mv m/e/fifo2 m/e/in/fifo
before=$(cd m; find . ! -name zero -printf '%P %y %m %n %i\n' | sort)
$B umount m
test -z "$(ls w/work)"
$B mount $O --lower l1 --lower l2 --upper u --work w m
test "$(cd m; find . ! -name zero -printf '%P %y %m %n %i\n' | sort)" = "$before"
test "$(cat m/e/hard)" = "two
more"
test ! -e m/e/sub; test -z "$(ls m/d)"
$B umount m
"#;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        // Not below /root, where an ordinary user cannot go.
        let dir = tempfile::Builder::new()
            .prefix("unionmount-user.")
            .tempdir_in("/var/tmp")
            .unwrap();
        chown(dir.path(), Some(USER), Some(USER)).unwrap();
        fs::copy(binary(), dir.path().join("unionmount")).unwrap();
        Self { dir }
    }

    fn run(&self, prefix: &[&str], script: &str) {
        let mut command = program("setpriv");
        let id = USER.to_string();
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .args(prefix)
            .args(["bash", "-c", script])
            .current_dir(self.dir.path())
            .env("D", self.dir.path())
            .env("HOME", self.dir.path())
            .env("B", self.dir.path().join("unionmount"))
            .env(
                "O",
                support::transport::chosen().map_or_else(String::new, |o| format!("-o {o}")),
            );
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let at = self.dir.path().join("m");
        let _detached = rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// An ordinary user must be able to open /dev/fuse, as udev's rules have it.
fn users_may_mount() -> bool {
    if !support::fuse_is_here() {
        return false;
    }
    let mode = fs::metadata("/dev/fuse").unwrap().permissions().mode();
    if mode & 0o006 == 0o006 {
        return true;
    }
    support::skip("/dev/fuse is closed for ordinary users");
    false
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    if !users_may_mount() {
        return;
    }
    let home = Home::new();
    give_a_name();
    home.run(&[], LIFE);
}

/// fusermount3 wants to know the user's name.
fn give_a_name() {
    let name = format!("umtest{USER}");
    let known = Command::new("getent")
        .args(["passwd", &USER.to_string()])
        .output()
        .unwrap()
        .status
        .success();
    if !known {
        let id = USER.to_string();
        let made = program("useradd")
            .args(["-u", &id, "-M", "-N", "-d", "/nonexistent", &name])
            .status()
            .unwrap();
        // Another test may have been faster.
        assert!(made.success() || made.code() == Some(9));
    }
}

#[test]
fn a_parent_that_ignores_its_children_does_not_disturb() {
    if !users_may_mount() {
        return;
    }
    let home = Home::new();
    give_a_name();
    let before = ["env", "--ignore-signal=CHLD,TERM", "--block-signal=CHLD"];
    home.run(
        &before,
        "set -eu; mkdir l m; echo f >l/f; $B mount $O --lower l m; test \"$(cat m/f)\" = f; $B umount m",
    );
}

/// `$U` runs a command as the user, and the table is gone in a mount namespace of its own.
const WITHOUT_TABLE: &str = r#"
set -eu
cp -a /etc etc; rm -f etc/mtab; mount --bind etc /etc; test ! -e /etc/mtab
trap 'umount -l m 2>/dev/null || true' EXIT
$U mkdir l m
$U $B mount $O --lower l m
if said=$($U $B umount m 2>&1); then echo "unmounted without a table"; exit 0; fi
test $(echo "$said" | wc -l) = 1
echo "$said" | grep -q "ln -s /proc/self/mounts /etc/mtab"
ln -s /proc/self/mounts /etc/mtab
$U $B umount m
echo "unmounted with a table"
"#;

/// fusermount3 reads /etc/mtab, which a bare system does not have: the message names the cure, and
/// that works.
#[test]
fn without_a_mount_table_the_cure_is_named() {
    if !users_may_mount() {
        return;
    }
    let home = Home::new();
    give_a_name();
    let id = USER.to_string();
    let output = program("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            WITHOUT_TABLE,
        ])
        .current_dir(home.dir.path())
        .env(
            "U",
            format!("setpriv --reuid {id} --regid {id} --clear-groups"),
        )
        .env("B", home.dir.path().join("unionmount"))
        .env(
            "O",
            support::transport::chosen().map_or_else(String::new, |o| format!("-o {o}")),
        )
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert!(said.contains("unmounted"), "{said}");
}

#[test]
fn an_ordinary_user_mounts_in_a_user_namespace() {
    if !users_may_mount() {
        return;
    }
    let home = Home::new();
    home.run(&["unshare", "-Urm"], LIFE);
}

/// An overlay whose upper is on a mount of ours, all of it of one user: what the inner one made is
/// there after a remount of either, and the outer one takes none of its marks for its own. `$INNER`
/// names the inner one.
const STACKED: &str = r#"
set -eu
outer() { $B mount $O -o whiteout=char --lower l --upper u --work w m; }
inner() {
	options="lowerdir=base,upperdir=m/up,workdir=m/work"
	case $INNER in
	kernel) mount -t overlay overlay -o "$options,userxattr" in ;;
	fuse-overlayfs) fuse-overlayfs -o "$options" in ;;
	*) $B mount $O -o "whiteout=$INNER" --lower base --upper m/up --work m/work in ;;
	esac
}
down() {
	case $INNER in kernel) umount in ;; fuse-overlayfs) fusermount3 -u in 2>/dev/null || umount in ;; *) $B umount in ;; esac
	for i in $(seq 100); do pgrep -f "in$" >/dev/null || break; sleep 0.05; done
	$B umount m
	for i in $(seq 100); do mountpoint -q m || break; sleep 0.05; done
}
seen() { (cd in; find . ! -name . -printf '%P %y %m %s %l\n' | sort; cat f d/kept n/new); }
mkdir -p l/up l/work u w m in base/d/sub base/gone base/moved; echo f >base/f; echo x >base/gone/x; echo kept >base/d/kept
echo y >base/d/sub/y; echo z >base/moved/z; echo lower >l/file
outer; inner
rm in/d/sub/y; rm -r in/gone; mkdir in/gone; echo more >>in/f; mkdir in/n; echo new >in/n/new; setfattr -n user.a -v b in/f
mv in/n/new in/n/newer; ln in/n/newer in/n/new; chmod 640 in/f; touch in/gone/again; rm in/gone/again; mkfifo in/p; ln -s f in/l
rm -r in/moved
before=$(seen)
echo "$before" | grep -q '^gone d' && ! echo "$before" | grep -q 'gone/x\|sub/y\|^moved'
down; outer; inner
test "$(seen)" = "$before"
test "$(getfattr --only-values -n user.a in/f)" = b
# The outer one shows no more than what was put there.
test "$(cat m/file)" = lower
rm -r in/gone; test ! -e in/gone; down
"#;

#[test]
fn overlays_stack_in_a_user_namespace() {
    if !users_may_mount() {
        return;
    }
    for inner in ["wh", "char", "kernel", "fuse-overlayfs"] {
        let installed = Command::new("which").arg(inner).output().unwrap();
        if inner == "fuse-overlayfs" && !installed.status.success() {
            eprintln!("skipped: no fuse-overlayfs");
            continue;
        }
        let home = Home::new();
        let script = format!("INNER={inner}{STACKED}");
        home.run(&["unshare", "-Urm"], &script);
    }
}
