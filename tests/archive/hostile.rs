//! Archives that want more than a layer may have. Each import must fail with the entry's name,
//! change nothing outside, and leave nothing; or be harmless.

use unionmount::internal::archive::extract::{ApplyMode, apply};
use unionmount::internal::archive::{Unpack, unpack};

use super::build::{Place, Tar, head, record};
use super::survey::{assert_same, survey};

struct Case {
    name: &'static str,
    tar: Vec<u8>,
    /// What the message must hold: the entry's name.
    entry: String,
}

fn case(name: &'static str, tar: Tar, entry: &str) -> Case {
    Case {
        name,
        tar: tar.end(),
        entry: format!("entry '{entry}'"),
    }
}

fn paths(outside: &str) -> Vec<Case> {
    let victim = format!("{outside}/victim");
    let evil = format!("{outside}/evil");
    let dirlink = || Tar::new().symlink("link", outside);
    let uplink = || Tar::new().symlink("link", "../outside");
    vec![
        case(
            "through an absolute link",
            dirlink().file("link/evil", b"x"),
            "link/evil",
        ),
        case(
            "through a relative link",
            uplink().file("link/evil", b"x"),
            "link/evil",
        ),
        case(
            "through a link to a file",
            dirlink().file("link/victim", b"x"),
            "link/victim",
        ),
        case(
            "a directory behind a link",
            dirlink().dir("link/evil/"),
            "link/evil/",
        ),
        case(
            "through a link below",
            Tar::new()
                .dir("d/")
                .symlink("d/up", "../..")
                .file("d/up/outside/evil", b"x"),
            "d/up/outside/evil",
        ),
        case(
            "through a link within",
            Tar::new()
                .dir("d/")
                .symlink("link", "d")
                .file("link/f", b"x"),
            "link/f",
        ),
        case(
            "two links",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", outside)
                .file("a/evil", b""),
            "a/evil",
        ),
        case("an absolute name", Tar::new().file(&evil, b"x"), &evil),
        case("an absolute link", Tar::new().symlink(&evil, "x"), &evil),
        case(
            "upwards",
            Tar::new().file("../outside/evil", b"x"),
            "../outside/evil",
        ),
        case(
            "upwards within",
            Tar::new().dir("a/").file("a/../../outside/evil", b""),
            "a/../../outside/evil",
        ),
        case("upwards at the end", Tar::new().dir("a/.."), "a/.."),
        case(
            "a record's name",
            Tar::new()
                .pax(&[("path", b"../outside/evil")])
                .file("good", b""),
            "../outside/evil",
        ),
        case(
            "GNU's long name",
            Tar::new().long(b'L', b"../outside/evil").file("good", b""),
            "../outside/evil",
        ),
        case(
            "two names",
            Tar::new()
                .pax(&[("path", b"a")])
                .long(b'L', b"b")
                .file("c", b""),
            "a",
        ),
        case(
            "the root is a link",
            Tar::new().symlink("./", outside),
            "./",
        ),
        case(
            "the root is a link, said shortly",
            Tar::new().symlink(".", outside).file("evil", b""),
            ".",
        ),
        case("the root is a file", Tar::new().file("./.", b"x"), "./."),
        case(
            "the root is a hard link",
            Tar::new().file("f", b"").hard_link(".", "f"),
            ".",
        ),
        case(
            "an absolute root that is a link",
            Tar::new().symlink("/", outside),
            "/",
        ),
        case(
            "a hard link to outside",
            Tar::new().hard_link("evil", &victim),
            "evil",
        ),
        case(
            "a hard link upwards",
            Tar::new().hard_link("evil", "../outside/victim"),
            "evil",
        ),
        case(
            "a hard link through a link",
            dirlink().hard_link("evil", "link/victim"),
            "evil",
        ),
        case(
            "a record's link",
            Tar::new()
                .pax(&[("linkpath", b"../outside/victim")])
                .hard_link("evil", "good"),
            "evil",
        ),
        case(
            "a hard link to nothing",
            Tar::new().hard_link("evil", "missing"),
            "evil",
        ),
        case(
            "a hard link to what comes later",
            Tar::new().hard_link("evil", "f").file("f", b""),
            "evil",
        ),
        case(
            "a hard link to a directory",
            Tar::new().dir("d/").hard_link("evil", "d"),
            "evil",
        ),
        case(
            "a hard link to the root",
            Tar::new().hard_link("evil", "."),
            "evil",
        ),
        case(
            "a hard link to a mark",
            Tar::new().file(".wh.x", b"").hard_link("evil", ".wh.x"),
            "evil",
        ),
        case(
            "below a file",
            Tar::new().file("f", b"").file("f/g", b""),
            "f/g",
        ),
        case(
            "a component of 256 bytes",
            Tar::new().pax(&[("path", &[b'n'; 256])]).file("x", b""),
            &"n".repeat(256),
        ),
        case("no name", Tar::new().file("", b""), ""),
    ]
}

fn marks(outside: &str) -> Vec<Case> {
    let mut cases = vec![
        case(
            "an opaque mark through a link",
            Tar::new()
                .symlink("link", outside)
                .file("link/.wh..wh..opq", b""),
            "link/.wh..wh..opq",
        ),
        case(
            "a whiteout through a link",
            Tar::new()
                .symlink("link", outside)
                .file("link/.wh.victim", b""),
            "link/.wh.victim",
        ),
    ];
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        cases.push(case(
            "hides nothing",
            Tar::new().dir("d/").file(name, b""),
            name,
        ));
    }
    for name in [".wh./", ".wh.x/", ".wh..wh..opq/"] {
        cases.push(case("a directory as a mark", Tar::new().dir(name), name));
    }
    for name in [".wh./x", ".wh.x/y", "d/.wh.x/y/z", ".wh..wh..opq/x"] {
        cases.push(case("below a mark", Tar::new().file(name, b""), name));
    }
    cases.push(case(
        "a link as a mark",
        Tar::new().symlink(".wh.x", outside),
        ".wh.x",
    ));
    cases.push(case(
        "a pipe as a mark",
        Tar::new().head(head(".wh.x", b'6', 0)),
        ".wh.x",
    ));
    cases
}

fn numbers() -> Vec<Case> {
    let mut all = head("f", b'0', 0);
    all.uid = vec![0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    let mut negative = head("f", b'0', 0);
    negative.gid = vec![0xff; 8];
    let mut odd = head("f", b'0', 0);
    odd.mode = b"rw-r--r-".to_vec();
    let mut below = head("f", b'0', 0);
    below.size = vec![0xff; 12];
    let huge = head("f", b'0', 0o77_777_777_777);
    let mut vol = head("f", b'V', 0);
    vol.magic = super::build::GNU;
    vec![
        case("an owner that means none", Tar::new().head(all), "f"),
        case("a negative group", Tar::new().head(negative), "f"),
        case("a mode that is no number", Tar::new().head(odd), "f"),
        case("a negative size", Tar::new().head(below), "f"),
        case(
            "a size of which nothing comes",
            Tar::new().head(huge).data(b"x"),
            "f",
        ),
        case("a volume label", Tar::new().head(vol), "f"),
        case(
            "a directory with content",
            Tar::new().head(head("d/", b'5', 3)).data(b"abc"),
            "d/",
        ),
        case(
            "a device with content",
            Tar::new().head(head("d", b'3', 600)).data(&[1; 600]),
            "d",
        ),
        case(
            "a file named as a directory",
            Tar::new().file("f/", b"x"),
            "f/",
        ),
        case(
            "damaged records",
            Tar::new()
                .head(head("x", b'x', 5))
                .data(b"9 a=b")
                .file("f", b""),
            "x",
        ),
        case(
            "a size that is no number",
            Tar::new().pax(&[("size", b"12x")]).file("f", b""),
            "PaxHeaders/x",
        ),
        case(
            "a link with a NUL",
            Tar::new().pax(&[("linkpath", b"a\0b")]).symlink("l", "x"),
            "PaxHeaders/x",
        ),
        case(
            "an unknown sparse form",
            Tar::new()
                .pax(&[("GNU.sparse.major", b"2"), ("GNU.sparse.realsize", b"9")])
                .file("f", b""),
            "f",
        ),
    ]
}

#[test]
fn whatever_an_archive_tries_nothing_outside_changes() {
    let place = Place::new();
    let outside = place.at("outside");
    let outside = outside.to_str().unwrap();
    let before = survey(&place.at(""));
    let cases = [paths(outside), marks(outside), numbers()].concat_all();
    for Case { name, tar, entry } in &cases {
        let err = unpack(&tar[..], &place.target(), &Unpack::default())
            .expect_err(name)
            .to_string();
        assert!(err.contains(entry), "{name}: {err}");
        assert!(!err.contains('\n'), "{name}: {err}");
        assert_same(&before, &survey(&place.at("")), name);
        // A directory that does not exist yet does not exist then either.
        apply(
            &tar[..],
            &place.at("new"),
            ApplyMode::Layer,
            &Unpack::default(),
        )
        .expect_err(name);
        // A tree stays as it was.
        apply(
            &tar[..],
            &place.at("outside"),
            ApplyMode::Tree,
            &Unpack::default(),
        )
        .expect_err(name);
        let mut after = survey(&place.at(""));
        after.get_mut("").unwrap().mtime = before[""].mtime;
        assert_same(&before, &after, name);
        restore_mtime(&place, &before);
    }
}

/// Names were made and removed in it: that is all that may have happened.
fn restore_mtime(place: &Place, before: &super::survey::Survey) {
    let (tv_sec, tv_nsec) = before[""].mtime;
    let time = rustix::fs::Timespec { tv_sec, tv_nsec };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::empty();
    rustix::fs::utimensat(rustix::fs::CWD, place.at(""), &times, flags).unwrap();
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

/// Names that were links are replaced, not followed; nothing is set on what a link leads to.
#[test]
fn attributes_are_never_set_through_a_link() {
    let place = Place::new();
    let victim = place.at("outside/victim");
    let victim = victim.to_str().unwrap();
    let outside = place.at("outside");
    let outside = outside.to_str().unwrap();
    let before = survey(&place.at("outside"));
    let tar = Tar::new()
        .symlink("file", victim)
        .head(head("file", b'0', 0).mode(0o4777))
        .symlink("dir", outside)
        .head(head("dir/", b'5', 0).mode(0o1777))
        .symlink("pipe", victim)
        .head(head("pipe", b'6', 0).mode(0o666))
        .symlink("kept", victim)
        .hard_link("again", "kept")
        .head(head("odd", b'2', 0).to(victim).mode(0o7777))
        .end();
    unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
    assert_same(&before, &survey(&place.at("outside")), "outside");
    let inside = survey(&place.target());
    let kinds: String = ["again", "dir", "file", "kept", "odd", "pipe"]
        .iter()
        .map(|name| inside[*name].kind)
        .collect();
    assert_eq!(kinds, "ld-llp");
    assert_eq!((inside["file"].mode, inside["dir"].mode), (0o4777, 0o1777));
    assert_eq!(inside["again"].same_as, "again");
    assert_eq!(inside["kept"].same_as, "again");
}

/// CVE-2025-62518: the size of the record decides where the next header is.
#[test]
fn a_record_says_where_the_next_header_is() {
    let smuggled = Tar::new().file("smuggled", b"x").0;
    let tar = Tar::new()
        .pax(&[("size", smuggled.len().to_string().as_bytes())])
        .head(head("f", b'0', 0))
        .data(&smuggled)
        .file("last", b"")
        .end();
    let place = Place::new();
    unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
    let seen = survey(&place.target());
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["", "f", "last"]);
    assert_eq!(seen["f"].data, smuggled);
    // The other way round: the header's size is not skipped.
    let tar = Tar::new()
        .pax(&[("size", b"0")])
        .head(head("f", b'0', smuggled.len() as u64))
        .raw(&smuggled)
        .end();
    let place = Place::new();
    unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
    let seen = survey(&place.target());
    assert_eq!(seen.keys().collect::<Vec<_>>(), ["", "f", "smuggled"]);
}

/// Wherever an archive is cut, that is noticed; so is every damaged header.
#[test]
fn cut_and_damaged_archives_leave_nothing() {
    let tar = Tar::new()
        .dir("d/")
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"y")])
        .file("d/f", &[7; 700])
        .long(b'L', &[b'n'; 150])
        .file("x", b"abc")
        .end();
    let place = Place::new();
    let whole = tar.len() - 512;
    for cut in (0..whole).step_by(128).chain([1, whole - 1]) {
        let err = unpack(&tar[..cut], &place.target(), &Unpack::default());
        assert!(err.is_err(), "{cut}");
        assert_eq!(survey(&place.target()).len(), 1, "{cut}");
    }
    for at in (0..512).step_by(37) {
        let mut damaged = tar.clone();
        damaged[at] ^= 0x21;
        assert!(
            unpack(&damaged[..], &place.target(), &Unpack::default()).is_err(),
            "{at}"
        );
    }
    // Zeros in the middle would be the end for some readers, and not for others.
    let split = [&tar[..512], &[0; 512], &tar[512..]].concat();
    let err = unpack(&split[..], &place.target(), &Unpack::default()).unwrap_err();
    assert!(err.to_string().contains("zeros"), "{err}");
    assert!(unpack(&record("a", b"b")[..], &place.target(), &Unpack::default()).is_err());
    unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
}
