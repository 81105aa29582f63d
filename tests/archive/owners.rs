//! Whose the files are: for root, for an ordinary user, and in a user namespace.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use unionmount::internal::archive::extract::{ApplyMode, apply};
use unionmount::internal::archive::{Ownership, Pack, Unpack, diff, unpack};
use unionmount::layer::stat::Kind;
use unionmount::union::{Config, NodeId, Union};

use super::build::{Place, Tar, head};
use super::commands::binary;
use super::survey::{assert_same, survey};

fn rich() -> Vec<u8> {
    let mut null = head("dev/null", b'3', 0).mode(0o666);
    null.device = (1, 3);
    let mut zero = head("dev/zero", b'3', 0);
    zero.device = (0, 0);
    let mut su = head("bin/su", b'0', 3).mode(0o4755);
    su.gid = super::build::octal(42, 8);
    Tar::new()
        .head(head("./", b'5', 0).mode(0o755))
        .dir("bin/")
        .pax(&[(
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        )])
        .head(su)
        .data(b"su\n")
        .hard_link("bin/sudo", "bin/su")
        .dir("dev/")
        .head(null)
        .head(zero)
        .head(head("dev/pipe", b'6', 0).mode(0o600))
        .head(head("tmp/", b'5', 0).mode(0o1777))
        .symlink("link", "bin/su")
        .head(head("secret", b'0', 0).mode(0))
        .end()
}

type Shown = (Kind, u32, u32, u32, u64, u32);

/// What the union shows of a path.
fn shown(union: &Union, path: &str) -> Shown {
    let mut node = NodeId::ROOT;
    for name in path.split('/') {
        node = union.lookup(node, name.as_bytes()).unwrap().unwrap().node;
    }
    let attr = union.getattr(node).unwrap();
    (
        attr.kind(),
        attr.mode & 0o7777,
        attr.uid,
        attr.gid,
        attr.rdev,
        attr.nlink,
    )
}

/// The same with the link count that the disk has for a directory.
fn counted(layer: &std::path::Path, path: &str, mut want: Shown) -> Shown {
    if want.0 == Kind::Dir {
        let links = std::fs::metadata(layer.join(path)).unwrap().nlink();
        want.5 = links.try_into().unwrap();
    }
    want
}

fn check_shown(layer: &std::path::Path) {
    let config = Config {
        lowers: vec![layer.to_owned()],
        ..Config::default()
    };
    let union = Union::open(&config).unwrap();
    let null = rustix::fs::makedev(1, 3);
    for (path, want) in [
        ("bin/su", (Kind::File, 0o4755, 0, 42, 0, 2)),
        ("dev", (Kind::Dir, 0o755, 0, 0, 0, 1)),
        ("dev/null", (Kind::Char, 0o666, 0, 0, null, 1)),
        ("dev/zero", (Kind::Char, 0o644, 0, 0, 0, 1)),
        ("dev/pipe", (Kind::Fifo, 0o600, 0, 0, 0, 1)),
        ("tmp", (Kind::Dir, 0o1777, 0, 0, 0, 1)),
        ("secret", (Kind::File, 0, 0, 0, 0, 1)),
    ] {
        assert_eq!(shown(&union, path), counted(layer, path, want), "{path}");
    }
    let bin = union.lookup(NodeId::ROOT, b"bin").unwrap().unwrap().node;
    let su = union.lookup(bin, b"su").unwrap().unwrap().node;
    assert_eq!(
        union.getxattr(su, b"security.capability").unwrap().len(),
        20
    );
}

#[test]
fn recorded_owners_are_shown_and_written_as_real_ones() {
    let tar = rich();
    let mut tars = Vec::new();
    for ownership in [Ownership::Real, Ownership::Recorded] {
        let place = Place::new();
        let options = Unpack {
            ownership,
            ..Unpack::default()
        };
        unpack(&tar[..], &place.target(), &options).unwrap();
        check_shown(&place.target());
        let mut again = Vec::new();
        diff(&place.target(), &[], &mut again, &Pack::default()).unwrap();
        tars.push(again);
        if ownership == Ownership::Recorded {
            for (name, object) in survey(&place.target()) {
                assert!(matches!(object.kind, '-' | 'd' | 'l'), "{name}");
                assert_eq!(object.mode & 0o6000, 0, "{name}");
            }
        }
    }
    assert!(tars[0] == tars[1], "one layer, two archives");
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_ordinary_user_unpacks_a_root_file_system() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // The build directory may be where others cannot go.
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("unionmount");
    std::fs::copy(binary(), &copy).unwrap();
    std::fs::write(dir.path().join("layer.tar"), rich()).unwrap();
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(12345), Some(12345)).unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let user = || {
        let mut command = support::programs::program("setpriv");
        command
            .args(["--reuid=12345", "--regid=12345", "--clear-groups"])
            .arg(&copy);
        command
    };
    let layer = home.join("layer");
    let output = run(user()
        .args(["layer", "apply"])
        .arg(dir.path().join("layer.tar"))
        .arg(&layer));
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(layer.join("bin/su").metadata().unwrap().uid(), 12345);
    let by_user = run(user().args(["layer", "diff", "--upper"]).arg(&layer));
    assert!(by_user.status.success(), "{}", said(&by_user));
    let place = Place::new();
    unpack(&rich()[..], &place.target(), &Unpack::default()).unwrap();
    let mut by_root = Vec::new();
    diff(&place.target(), &[], &mut by_root, &Pack::default()).unwrap();
    // A symlink cannot carry a record: it belongs to the user.
    let place = Place::new();
    unpack(&by_user.stdout[..], &place.target(), &Unpack::default()).unwrap();
    let mut seen = survey(&place.target());
    assert_eq!(seen["link"].owner, (12345, 12345));
    seen.get_mut("link").unwrap().owner = (0, 0);
    let place = Place::new();
    unpack(&by_root[..], &place.target(), &Unpack::default()).unwrap();
    assert_same(&survey(&place.target()), &seen, "as a user");
    // An archive that says nothing of its root: it is root's, as when root unpacks it.
    let tar = dir.path().join("bare.tar");
    std::fs::write(&tar, Tar::new().file("f", b"").end()).unwrap();
    let bare = home.join("bare");
    let output = run(user().args(["layer", "apply"]).arg(&tar).arg(&bare));
    assert!(output.status.success(), "{}", said(&output));
    let mut record = [0; 64];
    rustix::fs::getxattr(&bare, "user.containers.override_stat", &mut record).unwrap();
    assert!(record.starts_with(b"0:0:"), "{record:?}");
}

/// Runs `unshare -U bash -c 'read ..'`, which begins once its ids 0 to `count` are mapped to the
/// same ones outside.
fn mapped(command: &mut Command, count: u32) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let user = |process: &str| fs::read_link(format!("/proc/{process}/ns/user")).unwrap();
    let pid = child.id().to_string();
    let begun = Instant::now();
    while user(&pid) == user("self") {
        assert!(begun.elapsed() < Duration::from_secs(30), "unshare hangs");
        std::thread::sleep(Duration::from_millis(2));
    }
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), format!("0 0 {count}")).unwrap();
    }
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait_with_output().unwrap()
}

/// CVE-2023-0386, CVE-2021-3493: a user namespace must not get files of owners that it does not
/// have.
#[test]
fn a_user_namespace_refuses_owners_that_it_does_not_map() {
    let place = Place::new();
    let mut su = head("bin/su", b'0', 0).mode(0o4755);
    su.uid = super::build::octal(70000, 8);
    std::fs::write(place.at("su.tar"), Tar::new().head(su).end()).unwrap();
    std::fs::write(place.at("dev.tar"), rich().as_slice()).unwrap();
    let apply = |tar: &str, dir: &str| {
        let mut command = support::programs::program("unshare");
        command.args(["-U", "bash", "-c", r#"read -r && exec "$@""#, "sh"]);
        command.arg(binary()).args(["layer", "apply"]);
        mapped(command.arg(place.at(tar)).arg(place.at(dir)), 60)
    };
    let output = apply("su.tar", "new");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("entry 'bin/su': owner 70000:0 is not mapped"),
        "{}",
        said(&output)
    );
    assert!(!place.at("new").exists());
    // Devices cannot be made there: they are recorded.
    let output = apply("dev.tar", "layer");
    assert!(output.status.success(), "{}", said(&output));
    check_shown(&place.at("layer"));
    assert!(place.at("layer/dev/null").metadata().unwrap().is_file());
}

/// Others who could use a tree before can do so afterwards: what is recorded has the tree's mode on
/// the disk.
#[test]
fn a_recorded_layer_leaves_a_tree_as_open_as_it_was() {
    let place = Place::new();
    let options = Unpack {
        ownership: Ownership::Recorded,
        ..Unpack::default()
    };
    for mode in [0o755, 0o750] {
        let tree = place.at(format!("tree-{mode:o}"));
        std::fs::create_dir_all(tree.join("bin")).unwrap();
        let perm = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&tree, perm(mode)).unwrap();
        apply(&rich()[..], &tree, ApplyMode::Tree, &options).unwrap();
        for name in ["", "bin", "bin/su", "dev", "tmp", "secret"] {
            let found = tree.join(name).metadata().unwrap().mode() & 0o7777;
            assert_eq!(found, mode, "{name}: {found:o}");
        }
        check_shown(&tree);
    }
}

/// A layer by root, on a tree by an ordinary user: what it describes is as it says, all else as it
/// was.
#[test]
fn real_owners_replace_recorded_ones() {
    if Ownership::possible() != Ownership::Real {
        return;
    }
    let place = Place::new();
    let tree = place.at("tree");
    let options = |ownership| Unpack {
        ownership,
        ..Unpack::default()
    };
    let recorded = options(Ownership::Recorded);
    apply(&rich()[..], &tree, ApplyMode::Layer, &recorded).unwrap();
    for with_root in [false, true] {
        let mut bin = head("bin/", b'5', 0).mode(0o710);
        bin.uid = super::build::octal(7, 8);
        let mut tar = Tar::new();
        if with_root {
            let mut root = head("./", b'5', 0).mode(0o711);
            root.gid = super::build::octal(9, 8);
            tar = tar.head(root);
        }
        let tar = tar.head(bin).file("dev/new", b"").end();
        apply(&tar[..], &tree, ApplyMode::Tree, &options(Ownership::Real)).unwrap();
        let config = Config {
            lowers: vec![tree.clone()],
            ..Config::default()
        };
        let union = Union::open(&config).unwrap();
        for (path, want) in [
            ("bin", (Kind::Dir, 0o710, 7, 0, 0, 1)),
            ("bin/su", (Kind::File, 0o4755, 0, 42, 0, 2)),
            ("dev", (Kind::Dir, 0o755, 0, 0, 0, 1)),
            ("dev/new", (Kind::File, 0o644, 0, 0, 0, 1)),
            ("tmp", (Kind::Dir, 0o1777, 0, 0, 0, 1)),
            ("dev/pipe", (Kind::Fifo, 0o600, 0, 0, 0, 1)),
        ] {
            assert_eq!(shown(&union, path), counted(&tree, path, want), "{path}");
        }
        let root = union.getattr(NodeId::ROOT).unwrap();
        let want = if with_root { (0o711, 9) } else { (0o755, 0) };
        assert_eq!((root.mode & 0o7777, root.gid), want);
    }
}
