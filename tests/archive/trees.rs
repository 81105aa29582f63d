//! Layers that are carried out on a tree: what is refused before anything is changed.

use unionmount::archive::Unpack;
use unionmount::archive::target::{Onto, apply};

use super::build::{Place, Tar};
use super::survey::survey;

/// Mounted on, for as long as this lives.
struct Bound(std::path::PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _gone = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A container's /home may be the host's: nothing is removed there, nor anything before that is noticed.
#[test]
fn what_is_mounted_on_a_tree_is_not_changed() {
    let place = Place::new();
    let tree = place.at("tree");
    std::fs::create_dir_all(tree.join("srv/home/me")).unwrap();
    std::fs::write(tree.join("first"), "old").unwrap();
    if rustix::mount::mount_bind(place.at("outside"), tree.join("srv/home/me")).is_err() {
        eprintln!("skipped: nothing can be mounted here");
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
        let applied = apply(&tar.end()[..], &tree, Onto::Tree, &Unpack::default());
        let said = applied.unwrap_err().to_string();
        let want = format!("entry '{entry}': it would change the mount point 'srv/home/me'");
        assert!(said.starts_with(&want), "{said}");
        assert_eq!(survey(&tree), before, "{entry}");
    }
    let tar = begin()
        .file("srv/home/you", b"")
        .file("srv/home/.wh.gone", b"")
        .end();
    apply(&tar[..], &tree, Onto::Tree, &Unpack::default()).unwrap();
    assert_eq!(std::fs::read(tree.join("first")).unwrap(), b"new");
}

/// A descriptor for each level must not run out when half is done.
#[test]
fn a_layer_that_is_too_deep_for_a_tree_changes_nothing() {
    // The stack of a program's first thread; tests have a quarter of it.
    let thread = std::thread::Builder::new().stack_size(8 << 20);
    thread.spawn(too_deep_for_a_tree).unwrap().join().unwrap();
}

fn too_deep_for_a_tree() {
    let place = Place::new();
    let tree = place.at("tree");
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("first"), "old").unwrap();
    let before = survey(&tree);
    let deep = |levels: usize| {
        let path = vec!["d"; levels].join("/");
        let tar = Tar::new().file("first", b"new");
        tar.pax(&[("path", path.as_bytes())])
            .file("x", b"deep")
            .end()
    };
    let err = apply(&deep(520)[..], &tree, Onto::Tree, &Unpack::default()).unwrap_err();
    assert!(err.to_string().contains("it is 520 levels deep"), "{err}");
    assert!(err.entry().unwrap().starts_with(b"d/d/d"));
    assert_eq!(survey(&tree), before);
    apply(&deep(512)[..], &tree, Onto::Tree, &Unpack::default()).unwrap();
    assert_eq!(std::fs::read(tree.join("first")).unwrap(), b"new");
    let mut path = tree.clone();
    path.extend(vec!["d"; 512]);
    assert_eq!(std::fs::read(path).unwrap(), b"deep");
    // As a layer it may be as deep as the disk allows.
    apply(
        &deep(520)[..],
        &place.at("layer"),
        Onto::Layer,
        &Unpack::default(),
    )
    .unwrap();
}
