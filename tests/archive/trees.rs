//! Layers that are carried out on a tree: what is refused before anything is changed.

use unionmount::internal::archive::extract::{ApplyMode, apply};
use unionmount::internal::archive::{Limits, Pack, Unpack, diff};

use super::build::{Place, Tar};
use super::survey::survey;

/// Mounted on, for as long as this lives.
struct Bound(std::path::PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A container's /home may be the host's: nothing is removed there, nor anything before that is
/// noticed.
#[test]
fn what_is_mounted_on_a_tree_is_not_changed() {
    let place = Place::new();
    let tree = place.at("tree");
    std::fs::create_dir_all(tree.join("srv/home/me")).unwrap();
    std::fs::write(tree.join("first"), "old").unwrap();
    if rustix::mount::mount_bind(place.at("outside"), tree.join("srv/home/me")).is_err() {
        support::skip("nothing can be mounted here");
        return;
    }
    let _bound = Bound(tree.join("srv/home/me"));
    let before = survey(&tree);
    let begin = || Tar::new().file("first", b"new");
    for (tar, entry) in [
        (begin().file(".wh.srv", b""), "srv"),
        (begin().file("srv/.wh.home", b""), "srv/home"),
        (begin().file("srv/home/.wh..wh..opq", b""), "srv/home"),
        (begin().file("srv/home/.wh.me", b""), "srv/home/me"),
        (begin().file("srv/home", b""), "srv/home"),
        (begin().file("srv/home/me/x", b""), "srv/home/me"),
    ] {
        let applied = apply(&tar.end()[..], &tree, ApplyMode::Tree, &Unpack::default());
        let said = applied.unwrap_err().to_string();
        let want = format!("entry '{entry}': it would change the mount point 'srv/home/me'");
        assert!(said.starts_with(&want), "{said}");
        assert_eq!(survey(&tree), before, "{entry}");
    }
    let tar = begin()
        .file("srv/home/you", b"")
        .file("srv/home/.wh.gone", b"")
        .end();
    apply(&tar[..], &tree, ApplyMode::Tree, &Unpack::default()).unwrap();
    assert_eq!(std::fs::read(tree.join("first")).unwrap(), b"new");
}

/// A descriptor for each level must not run out when half is done.
/// Deeper than there are descriptors, by a path that is longer than the kernel takes.
#[test]
fn a_deep_layer_is_carried_out() {
    const LEVELS: usize = 3000;
    let place = Place::new();
    let tree = place.at("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("first"), "old").unwrap();
    let path = vec!["d"; LEVELS].join("/");
    let tar = |name: &str, content: &[u8]| {
        let path = format!("{path}/{name}");
        let tar = Tar::new().file("first", content);
        tar.pax(&[("path", path.as_bytes())])
            .file("x", content)
            .end()
    };
    let options = Unpack {
        limits: Limits {
            path: 3 * LEVELS,
            ..Limits::default()
        },
        ..Unpack::default()
    };
    for (name, content) in [("one", &b"first"[..]), ("two", b"second")] {
        apply(&tar(name, content)[..], &tree, ApplyMode::Tree, &options).unwrap();
        assert_eq!(std::fs::read(tree.join("first")).unwrap(), content);
    }
    let mut at = std::fs::File::open(&tree).unwrap();
    for _ in 0..LEVELS {
        let flags = rustix::fs::OFlags::DIRECTORY;
        let below = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap();
        at = below.into();
    }
    for name in ["one", "two"] {
        assert!(rustix::fs::statat(&at, name, rustix::fs::AtFlags::empty()).is_ok());
    }
    // A whiteout takes all of it.
    let gone = Tar::new().file(".wh.d", b"").end();
    apply(&gone[..], &tree, ApplyMode::Tree, &options).unwrap();
    assert!(!tree.join("d").exists());
    apply(
        &tar("one", b"x")[..],
        &place.at("layer"),
        ApplyMode::Layer,
        &options,
    )
    .unwrap();
    let packed = diff(&place.at("layer"), &[], std::io::sink(), &Pack::default()).unwrap();
    // The directories above it were not described, and are not now.
    assert_eq!(packed.entries, 2);
}
