//! Uppers and lowers on file systems of all kinds, from loop-mounted images, each lived in live and
//! after a remount.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use support::images::{Mounted, empty, has_program, is_here, mount, packed};
use support::{Mount, Stack, names, read, shell};

/// A lower layer with one of everything.
const LOWER: &str = r#"
mkdir -p tree/sub emptied gone
echo lower >tree/file; echo sub >tree/sub/file; echo x >emptied/a; echo y >gone/b
ln -s file tree/link; ln tree/file tree/hard; mkfifo tree/fifo; mknod tree/device c 1 3
echo suid >tree/suid; chmod 4755 tree/suid; chown 7:8 tree/sub/file
truncate -s 8M sparse; printf end >>sparse
touch -d '1960-01-02 03:04:05.5' tree/sub/file 2>/dev/null || true
setfattr -n user.colour -v green tree/file
setfacl -m u:9:rw tree/sub/file
"#;

/// What is done on a mount of it.
const CHANGES: &str = r#"
echo more >>tree/hard; test "$(tail -n 1 tree/file)" = more
chmod 600 tree/sub/file; test "$(stat -c %u:%g tree/sub/file)" = 7:8
printf X | dd of=sparse bs=1 seek=100 conv=notrunc status=none
rm emptied/a; rm -r gone; mkdir gone; echo new >gone/c
mv tree/sub moved; mkdir tree/sub; ln -s nowhere dangling; mkfifo pipe; echo made >made; ln made made2
mv tree/link moved/link; rm tree/fifo; echo again >tree/fifo
setfattr -n user.colour -v blue tree/file; setfattr -n trusted.t -v u made; setfacl -m u:10:r made
(exec 3<>moved/file; rm moved/file; echo unlinked >&3); sync made
"#;

/// Lives on a mount with this upper and these lowers below it, and looks at what is there after a
/// remount.
fn live(stack: &Stack) -> (String, String) {
    let mount = stack.mount();
    shell(&mount.at, CHANGES);
    let live = describe(&mount.at);
    mount.unmount();
    stack.assert_work_is_empty();
    let mount = stack.mount();
    let again = describe(&mount.at);
    mount.unmount();
    assert_eq!(live, again);
    let without_numbers = live
        .lines()
        .map(|line| line.split_once(' ').unwrap().1)
        .collect::<Vec<_>>()
        .join("\n");
    (live, without_numbers)
}

/// Everything but times, with inode numbers in front.
fn describe(at: &Path) -> String {
    shell(
        at,
        r#"find . ! -name . -printf '%i %P %y %m %U:%G %l ' \( -type f -printf '%n %s ' -exec md5sum '{}' ';' -o -printf '\n' \) | sort -k 2
           getfattr -R -h -d -m - . 2>/dev/null | grep -v '^#' | sort | sed 's/^/0 /'"#,
    )
}

/// The upper and the work directory of a stack on another file system.
fn on(stack: Stack, disk: &Path) -> Stack {
    for name in ["upper", "work"] {
        fs::create_dir_all(disk.join(name)).unwrap();
    }
    let mut stack = stack;
    stack.upper = Some(disk.join("upper"));
    stack.work = Some(disk.join("work"));
    stack
}

/// The same done to a copy of the lower, on the disk.
fn yardstick(stack: &Stack) -> String {
    let plain = stack.dir.path().join("plain");
    fs::create_dir(&plain).unwrap();
    shell(&plain, LOWER);
    shell(&plain, CHANGES);
    let told = describe(&plain);
    let lines = told.lines().map(|line| line.split_once(' ').unwrap().1);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn an_upper_works_on_each_file_system() {
    support::need_fuse!();
    let mut expected = None;
    for kind in ["ext4", "xfs", "btrfs", "tmpfs"] {
        if !is_here(kind) {
            continue;
        }
        let stack = Stack::new(1);
        shell(stack.lower(0), LOWER);
        let expected = expected.get_or_insert_with(|| yardstick(&stack));
        let disk = empty(stack.dir.path(), "disk", kind);
        let stack = on(stack, &disk.at);
        assert_eq!(&live(&stack).1, expected, "{kind}");
        // A sparse file stays sparse.
        let sparse = fs::metadata(stack.upper().join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "{kind}: {sparse:?}");
        drop(disk);
    }
}

#[test]
fn copy_up_shares_blocks_where_the_disk_can() {
    support::need_fuse!();
    for kind in ["xfs", "btrfs"] {
        if !is_here(kind) {
            continue;
        }
        let mut stack = Stack::new(1);
        let disk = empty(stack.dir.path(), "disk", kind);
        stack.lowers = vec![disk.at.join("lower")];
        fs::create_dir(stack.lower(0)).unwrap();
        fs::write(stack.lower(0).join("big"), vec![b'x'; 32 << 20]).unwrap();
        let stack = on(stack, &disk.at);
        shell("/", "sync");
        let free = || {
            let disk = rustix::fs::statvfs(&disk.at).unwrap();
            disk.f_bfree * disk.f_frsize
        };
        let before = free();
        let mount = stack.mount();
        shell(
            &mount.at,
            "printf Y | dd of=big bs=1 conv=notrunc status=none; sync big",
        );
        mount.unmount();
        let used = before.saturating_sub(free());
        assert!(used < 16 << 20, "{kind}: {used} bytes used");
        assert_eq!(read(stack.upper().join("big")).len(), 32 << 20);
        assert!(read(stack.upper().join("big")).starts_with("Yx"));
        drop(disk);
    }
}

#[test]
fn an_upper_works_on_another_union_and_on_kernel_overlayfs() {
    support::need_fuse!();
    let base = Stack::new(1);
    let expected = yardstick(&base);
    fs::create_dir(base.lower(0).join("old")).unwrap();
    // Two whiteout forms of one name would collide: the inner union writes devices.
    let outer = base.mount();
    let stack = Stack::new(1).option("whiteout=char");
    shell(stack.lower(0), LOWER);
    let stack = on(stack, &outer.at);
    assert_eq!(live(&stack).1, expected, "on another union");
    outer.unmount();
    if !is_here("overlay") {
        return;
    }
    let base = Stack::new(1);
    let kernel = base.mount_by_kernel("");
    let stack = Stack::new(1);
    shell(stack.lower(0), LOWER);
    let stack = on(stack, &kernel.at);
    assert_eq!(live(&stack).1, expected, "on kernel overlayfs");
}

#[test]
fn read_only_images_work_as_lowers() {
    support::need_fuse!();
    let mut expected = None;
    for kind in ["squashfs", "erofs"] {
        if !is_here(kind) {
            continue;
        }
        let mut stack = Stack::new(1);
        shell(stack.lower(0), LOWER);
        let expected = expected.get_or_insert_with(|| yardstick(&stack));
        let image = packed(stack.dir.path(), "image", kind, stack.lower(0));
        stack.lowers = vec![image.at.clone()];
        let told = live(&stack).1;
        // Packers keep what they can: no ACLs in squashfs, no times before 1970.
        let comparable = |told: &str| {
            let lines = told.lines().filter(|line| !line.contains("posix_acl"));
            let lines = lines.map(|line| line.replace("moved/file f 660", "moved/file f 600"));
            lines.collect::<Vec<_>>().join("\n")
        };
        assert_eq!(comparable(&told), comparable(expected), "{kind}");
        drop(image);
    }
}

#[test]
fn layers_without_xattrs_in_the_middle_do_not_spoil_the_others() {
    support::need_fuse!();
    let mut stack = Stack::new(2);
    shell(
        stack.lower(0),
        "mkdir d; echo top >d/top; setfacl -m u:5:r d/top",
    );
    shell(
        stack.lower(1),
        "mkdir d; echo bottom >d/bottom; setfacl -m u:5:r d/bottom; setfattr -n user.a -v b d/bottom",
    );
    let mut middle = Vec::new();
    for kind in ["vfat", "tmpfs", "squashfs"] {
        if !is_here(kind) {
            continue;
        }
        let at = stack.dir.path().to_path_buf();
        if kind == "squashfs" {
            let content = at.join("content");
            fs::create_dir_all(content.join("d")).unwrap();
            fs::write(content.join("d/squashfs"), "squashfs").unwrap();
            shell(
                &at,
                "mksquashfs content squashfs.img -quiet -no-progress -no-xattrs >/dev/null",
            );
            middle.push(mount(&at, kind, "-o loop,ro squashfs.img"));
        } else {
            let disk = empty(&at, kind, kind);
            fs::create_dir(disk.at.join("d")).unwrap();
            fs::write(disk.at.join("d").join(kind), kind).unwrap();
            middle.push(disk);
        }
    }
    let between: Vec<_> = middle.iter().map(|disk| disk.at.clone()).collect();
    stack.lowers.splice(1..1, between.clone());
    let kinds: Vec<_> = between
        .iter()
        .map(|at| at.file_name().unwrap().to_string_lossy().into_owned())
        .collect();
    let mount = stack.mount();
    let mut expected = [kinds.clone(), vec!["top".into(), "bottom".into()]].concat();
    expected.sort();
    assert_eq!(names(mount.path("d")), expected);
    for kind in &kinds {
        let path = mount.path("d").join(kind);
        assert_eq!(&read(&path), kind);
        let mut buffer = [0; 64];
        for name in [
            "user.none",
            "system.posix_acl_access",
            "security.capability",
        ] {
            let got = rustix::fs::getxattr(&path, name, &mut buffer);
            assert_eq!(got, Err(rustix::io::Errno::NODATA), "{kind} {name}");
        }
        assert_eq!(rustix::fs::listxattr(&path, &mut buffer), Ok(0), "{kind}");
        shell(
            &mount.at,
            &format!(
                "getfacl d/{kind} >/dev/null; ls -l d/{kind} >/dev/null; echo changed >>d/{kind}; setfacl -m u:6:rw d/{kind}; setfattr -n user.x -v y d/{kind}"
            ),
        );
    }
    let acls = |mount: &Mount| shell(&mount.at, "getfacl -n -p d/*; getfattr -d -m user d/*");
    let told = acls(&mount);
    assert_eq!(told.matches("user:6:rw-").count(), kinds.len());
    assert_eq!(told.matches("user:5:r--").count(), 2);
    mount.unmount();
    let mount = stack.mount();
    assert_eq!(acls(&mount), told);
    mount.unmount();
}

#[test]
fn another_fuse_mount_works_as_a_lower() {
    support::need_fuse!();
    let base = Stack::new(1);
    shell(base.lower(0), LOWER);
    let expected = yardstick(&base);
    let lower = base.mount();
    let mut stack = Stack::new(1);
    stack.lowers = vec![lower.at.clone()];
    assert_eq!(live(&stack).1, expected);
    lower.unmount();
}

/// An upper whose disk knows no flags of renameat2(2), and tells no numbers in its listings: a FUSE
/// file system made with libfuse's high-level interface, as many are.
#[test]
fn an_upper_whose_disk_knows_no_rename_flags_works() {
    support::need_fuse!();
    let expected = {
        let base = Stack::new(1);
        shell(base.lower(0), LOWER);
        yardstick(&base)
    };
    let Some((stack, disk)) = fuse2fs_upper(Stack::new(1)) else {
        return;
    };
    shell(stack.lower(0), LOWER);
    // It stores no ACLs, and makes directories with 0755 at most, whatever it is asked for.
    let comparable = |told: &str| {
        let lines = told.lines().filter(|line| !line.contains("posix_acl"));
        let lines = lines.map(|line| line.replace("moved/file f 660", "moved/file f 600"));
        let lines = lines.map(|line| line.replace(" d 755 ", " d 777 "));
        lines.collect::<Vec<_>>().join("\n")
    };
    assert_eq!(comparable(&live(&stack).1), comparable(&expected));
    // What cannot be had there is said when it is asked for.
    for (option, says) in [
        ("whiteout=char", "RENAME_EXCHANGE"),
        ("redirect_dir=on", "RENAME_WHITEOUT"),
    ] {
        let (stack, _disk) = fuse2fs_upper(Stack::new(1).option(option)).unwrap();
        let refused = stack.try_mount();
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.contains(says), "{option}: {said}");
    }
    drop(disk);
}

fn fuse2fs_upper(stack: Stack) -> Option<(Stack, Mounted)> {
    if !has_program("fuse2fs") {
        return None;
    }
    let dir = stack.dir.path();
    shell(
        dir,
        "truncate -s 96M fuse.img; mkfs.ext4 -q -O ^has_journal fuse.img
         mkdir fuse; fuse2fs -o fakeroot fuse.img fuse 2>fuse2fs.log",
    );
    let disk = Mounted {
        at: dir.join("fuse"),
    };
    fs::remove_dir(disk.at.join("lost+found")).unwrap();
    Some((on(stack, &disk.at), disk))
}

/// A full disk is mounted, so that something can be deleted there.
#[test]
fn a_full_upper_lets_things_be_deleted() {
    support::need_fuse!();
    for (what, fill) in [
        (
            "blocks",
            "dd if=/dev/zero of=fill bs=64k status=none || true; dd if=/dev/zero of=fill1 bs=1k status=none || true",
        ),
        (
            "inodes",
            "mkdir many; i=0; while : >many/$i; do i=$((i + 1)); done",
        ),
    ] {
        for kind in ["tmpfs", "ext4"].into_iter().filter(|kind| is_here(kind)) {
            let stack = Stack::new(1);
            stack.file(0, "f", "low");
            let dir = stack.dir.path();
            let disk = if kind == "tmpfs" {
                mount(dir, "disk", "-t tmpfs -o size=2m,nr_inodes=100 tmpfs")
            } else {
                shell(
                    dir,
                    "truncate -s 8M disk.img; mkfs.ext4 -q -b 4096 -m 0 -N 64 disk.img",
                );
                mount(dir, "disk", "-o loop disk.img")
            };
            let stack = on(stack, &disk.at);
            let mounted = stack.mount();
            shell(&mounted.at, "echo changed >f; mkdir x; echo keep >x/keep");
            shell(&mounted.at, &format!("({fill}) 2>/dev/null || true"));
            mounted.unmount();
            let mounted = stack.mount();
            let context = format!("{kind} without {what}");
            assert_eq!(read(mounted.path("f")), "changed\n", "{context}");
            assert_eq!(read(mounted.path("x/keep")), "keep\n", "{context}");
            shell(&mounted.at, "rm -rf fill fill1 many");
            shell(&mounted.at, "echo again >again; rm f; mkdir f");
            mounted.unmount();
            let mounted = stack.mount();
            assert_eq!(
                names(&mounted.at)
                    .iter()
                    .filter(|n| *n != "lost+found")
                    .count(),
                3
            );
            assert_eq!(names(mounted.path("f")), [""; 0], "{context}");
            mounted.unmount();
        }
    }
}

/// Without a work directory yet there is no room to make one: that is what the message says.
#[test]
fn a_first_mount_without_room_says_so() {
    support::need_fuse!();
    let stack = Stack::new(1);
    let disk = mount(
        stack.dir.path(),
        "disk",
        "-t tmpfs -o size=1m,nr_inodes=4 tmpfs",
    );
    let stack = on(stack, &disk.at);
    shell(&disk.at, ": >last");
    let refused = stack.try_mount();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("No space left") && said.contains("make room"),
        "{said}"
    );
}
