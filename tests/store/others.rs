//! Stores of other engines, and ordinary users.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::env::{Env, as_podman, assert_same, have, survey};
use crate::make::{Image, Layer, NewMetadata, PLAIN, Pack, rich_layers, write_dir, write_tar};
use support::{self, read, shell};

fn overlay2_layer(store: &Path, id: &str, short: &str, lower: &str) {
    fs::create_dir_all(store.join(id).join("diff")).unwrap();
    fs::create_dir_all(store.join("l")).unwrap();
    fs::write(store.join(id).join("link"), short).unwrap();
    symlink(format!("../{id}/diff"), store.join("l").join(short)).unwrap();
    if !lower.is_empty() {
        fs::write(store.join(id).join("lower"), lower).unwrap();
    }
}

#[test]
fn a_layer_of_dockers_directory_is_mounted() {
    support::need_fuse!();
    let env = Env::new();
    let store = env.at("overlay2");
    overlay2_layer(&store, "aaaa", "AAA", "");
    overlay2_layer(&store, "bbbb", "BBB", "l/AAA");
    fs::write(store.join("aaaa/diff/old"), "old").unwrap();
    fs::write(store.join("aaaa/diff/gone"), "gone").unwrap();
    fs::write(store.join("bbbb/diff/new"), "new").unwrap();
    // docker's whiteouts are devices.
    shell(&store, "mknod bbbb/diff/gone c 0 0");
    fs::create_dir(env.at("m")).unwrap();
    env.ok(&["mount", "--overlay2", "overlay2/bbbb", "m"]);
    assert_eq!(support::names(env.at("m")), ["new", "old"]);
    assert!(fs::write(env.at("m/x"), "x").is_err());
    env.ok(&["umount", "m"]);
    let said = env.fails(&["mount", "--overlay2", "overlay2", "m"]);
    assert!(said.contains("no layer of an overlay2 directory"), "{said}");
}

#[test]
fn a_podman_store_is_mounted_without_podman() {
    support::need_fuse!();
    if !have("podman") {
        return;
    }
    let env = Env::new();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_tar(&image.layout("localhost/rich:1"), &env.at("in.tar"));
    let podman = "podman --root $PWD/pr --runroot $PWD/prr --storage-driver overlay";
    shell(env.dir.path(), &format!("{podman} load -q -i in.tar"));
    fs::create_dir(env.at("m")).unwrap();
    for word in ["rich:1", "localhost/rich:1", &image.id()[7..19]] {
        env.ok(&["mount", "--podman", word, "--store", "pr", "m"]);
        assert_eq!(read(env.at("m/tree/new")), "new tree", "{word}");
        assert!(!env.at("m/bin/other").exists());
        env.ok(&["umount", "m"]);
    }
    let at = shell(env.dir.path(), &format!("{podman} image mount rich:1"));
    let theirs = as_podman(&survey(Path::new(at.trim_end())));
    env.ok(&["mount", "--podman", "rich:1", "--store", "pr", "m"]);
    let ours = as_podman(&survey(&env.at("m")));
    env.ok(&["umount", "m"]);
    shell(env.dir.path(), &format!("{podman} image umount rich:1"));
    assert_same(&theirs, &ours, "podman image mount");
    // Our own store shows the same.
    env.ok(&["image", "load", "-q", "in.tar"]);
    env.ok(&["mount", "--image", "rich:1", "m"]);
    assert_same(&theirs, &as_podman(&survey(&env.at("m"))), "our store");
    env.ok(&["umount", "m"]);
    // Changes that we write as a layer, alone and as the last one of an image, are read by podman.
    env.ok(&["container", "create", "--name", "box", "rich:1"]);
    let merged = env.mount("box");
    shell(
        &merged,
        "rm -r etc/gone bin/tool; echo more >> etc/conf; mkdir -m 700 fresh; echo x > fresh/f; ln fresh/f fresh/g
         ln -s /no fresh/link; setfattr -n user.mark -v y fresh; rm -r opaque; mkdir opaque; chown 7:8 fresh/f",
    );
    let ours = as_podman(&survey(&merged));
    env.ok(&["container", "umount", "box"]);
    let upper = env.ok(&[
        "container",
        "inspect",
        "-f",
        "{{.GraphDriver.Data.UpperDir}}",
        "box",
    ]);
    env.ok(&[
        "layer",
        "diff",
        "--upper",
        upper.trim_end(),
        "-o",
        "diff.tar",
    ]);
    env.ok(&["container", "commit", "box", "localhost/mine:1"]);
    env.ok(&["image", "save", "mine:1", "-o", "mine.tar"]);
    shell(
        env.dir.path(),
        &format!("{podman} load -q -i mine.tar; {podman} import -q diff.tar localhost/diff:1"),
    );
    let at = shell(env.dir.path(), &format!("{podman} image mount mine:1"));
    let theirs = as_podman(&survey(Path::new(at.trim_end())));
    assert_same(&theirs, &ours, "podman's view of our layer");
    let at = shell(env.dir.path(), &format!("{podman} image mount diff:1"));
    let alone = Path::new(at.trim_end());
    assert_eq!(support::names(alone.join("fresh")), ["f", "g", "link"]);
    // Where nothing is below, podman shows a whiteout as the device that it makes of it.
    let gone = fs::symlink_metadata(alone.join("etc/gone"))
        .map(|meta| std::os::unix::fs::FileTypeExt::is_char_device(&meta.file_type()));
    assert!(gone.unwrap_or(true));
    assert_eq!(support::names(alone.join("etc"))[0], "conf");
    shell(env.dir.path(), &format!("{podman} image umount -a"));
    shell(
        env.dir.path(),
        &format!("{podman} rmi -f rich:1; rm -rf pr prr"),
    );
}

/// What an ordinary user does with an image; `$B` is the program.
const LIFE: &str = r#"
set -eu
trap 'cd /; fusermount3 -uq "$D"/root/containers/*/merged 2>/dev/null || true' EXIT
export UNIONMOUNT_ROOT=$D/root
$B image load -q in.tar
$B container create --name box -v data:/data rich:1 >/dev/null
m=$($B container mount box)
# What is in a volume is the user's: nobody may make up other owners there.
test "$(stat -c '%u:%g %a' $m/bin/tool $m/opaque $m/data)" = "0:0 4755
0:0 1777
$(id -u):$(id -g) 750"
test "$(stat -c '%F %t:%T' $m/null)" = "character special file 1:3"
test ! -e $m/bin/other
echo mine > $m/opaque/mine; chmod 4711 $m/opaque/mine; mkdir -m 700 $m/opaque/dir; mkfifo $m/opaque/dir/pipe
if rm $m/bin/tool 2>/dev/null; then exit 1; fi
list() { (cd $m; find . \( -path ./data -o -path ./tree/sub -o -path ./etc \) -prune -o -printf '%P %y %m %U:%G %s %T@ %n\n' | sort); }
before=$(list)
test "$($B container diff box)" = "C /opaque
A /opaque/dir
A /opaque/dir/pipe
A /opaque/mine"
$B container commit box mine:1 >/dev/null
$B container umount box
$B container create --name again -v data:/data mine:1 >/dev/null
m=$($B container mount again)
test "$(list)" = "$before"
$B container rm -f box again
$B image save mine:1 -o out.tar
$B system check --deep
$B image rm mine:1 rich:1; $B volume rm data; $B system prune --force
test -z "$(ls root/layers root/containers root/tmp root/volumes | grep -v :)"
"#;

#[test]
fn an_ordinary_user_has_a_store_too() {
    support::need_fuse!();
    const USER: &str = "64125";
    let user: u32 = USER.parse().unwrap();
    let dir = tempfile::Builder::new()
        .prefix("unionmount-user.")
        .tempdir_in("/var/tmp")
        .unwrap();
    std::os::unix::fs::chown(dir.path(), Some(user), Some(user)).unwrap();
    fs::copy(support::binary(), dir.path().join("unionmount")).unwrap();
    let image = Image::new(rich_layers(), Pack::Gzip);
    write_tar(&image.layout("rich:1"), &dir.path().join("in.tar"));
    let device = fs::metadata("/dev/fuse").unwrap();
    if std::os::unix::fs::PermissionsExt::mode(&device.permissions()) & 0o6 != 0o6
        || !have("fusermount3")
    {
        support::skip("ordinary users cannot open /dev/fuse here");
        return;
    }
    // fusermount3 wants to know the user's name.
    shell(
        "/",
        &format!(
            "getent passwd {USER} >/dev/null || useradd -u {USER} -M -N -d /nonexistent umtest{USER}"
        ),
    );
    let output = support::programs::program("setpriv")
        .args([
            "--reuid",
            USER,
            "--regid",
            USER,
            "--clear-groups",
            "bash",
            "-c",
            LIFE,
        ])
        .current_dir(dir.path())
        .env("D", dir.path())
        .env("HOME", dir.path())
        .env("B", dir.path().join("unionmount"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A directory that its layer has no entry for looks as it does below also for who reads the layers
/// without us, whether the layers came together or one by one; and a check knows what it is, and
/// makes it so again.
#[test]
fn the_kernel_sees_what_no_entry_describes_as_below() {
    support::need_fuse!();
    let env = Env::new();
    let looks = |mode, owner, mtime| NewMetadata {
        mode,
        owner,
        mtime,
        xattrs: &[("user.mark", b"below")],
    };
    let base = Layer::new()
        .described("tmp/", &looks(0o1777, (7, 8), "1400000000"))
        .described("tmp/in/", &looks(0o2750, (9, 9), "1300000000"))
        .tar();
    let over = |file: &str| Layer::new().file(file, b"f", &PLAIN).tar();
    let layers = [base, over("tmp/in/f"), over("tmp/in/made/g"), over("tmp/h")];
    for (tag, count) in [("some:1", 2), ("all:1", 4)] {
        let image = Image::new(layers.get(..count).unwrap().to_vec(), Pack::Gzip);
        let archive = tag.trim_end_matches(":1");
        write_dir(&image.layout(tag), &env.at(archive));
        env.ok(&["image", "load", "-q", archive]);
    }
    env.ok(&["container", "create", "--name", "c", "all:1"]);
    let seen_by_the_kernel = || {
        let inspected = env.json(&["container", "inspect", "c"]);
        let lowers = inspected.pointer("/0/GraphDriver/Data/LowerDir");
        let lowers = lowers.and_then(Value::as_str).unwrap().to_owned();
        assert_eq!(lowers.split(':').count(), 4, "{inspected}");
        let script = format!(
            "mkdir -p seen && mount -t overlay overlay -o lowerdir={lowers} seen && cd seen && \
             stat -c '%n %a %u:%g %Y' tmp tmp/in; stat -c '%n %a %u:%g' tmp/in/made; \
             getfattr --only-values -n user.mark tmp/in; cd .. && umount seen"
        );
        (lowers, support::shell(env.dir.path(), &script))
    };
    let expected =
        "tmp 1777 7:8 1400000000\ntmp/in 2750 9:9 1300000000\ntmp/in/made 755 0:0\nbelow";
    let (lowers, seen) = seen_by_the_kernel();
    assert_eq!(seen, expected);
    env.is_sound();
    // Layers that are lost come back as they were.
    for lower in lowers.split(':').take(3) {
        fs::remove_dir_all(lower).unwrap();
        env.ok(&["system", "check", "--repair"]);
    }
    assert_eq!(seen_by_the_kernel().1, expected);
    env.is_sound();
}
