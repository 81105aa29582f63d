//! What unpacking makes of archives of every kind.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use unionmount::internal::archive::extract::{ApplyMode, apply};
use unionmount::internal::archive::{
    Compression, Digest, ErrorKind, Expect, Ownership, Pack, Unpack, Whiteouts, codec, diff, unpack,
};

use super::build::{GNU, Place, Tar, binary, head, octal, seal};
use super::survey::{survey, xattrs};

fn packed(tar: &[u8], how: Compression) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = codec::Encoder::new(Vec::new(), how).unwrap();
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

fn extracted(tar: &[u8]) -> (Place, super::survey::Survey) {
    let place = Place::new();
    unpack(tar, &place.target(), &Unpack::default()).unwrap();
    let seen = survey(&place.target());
    (place, seen)
}

#[test]
fn the_last_of_two_entries_counts() {
    let tar = Tar::new()
        .dir("d/")
        .file("d/old", b"old")
        .file("f", b"first")
        .file("f", b"second")
        .file("d2", b"")
        .dir("d2/")
        .file("d2/in", b"")
        .head(head("d/", b'5', 0).mode(0o700))
        .file("gone/x/y", b"")
        .file("gone", b"file")
        .symlink("f2", "f")
        .file("f2", b"own")
        .end();
    let (_place, seen) = extracted(&tar);
    assert_eq!(seen["f"].data, b"second");
    assert_eq!(seen["d/old"].data, b"old");
    assert_eq!((seen["d"].mode, seen["d2"].kind), (0o700, 'd'));
    assert_eq!(seen["gone"].data, b"file");
    assert!(!seen.contains_key("gone/x"));
    assert_eq!((seen["f2"].kind, &seen["f2"].data[..]), ('-', &b"own"[..]));
}

/// Who reads a layer's directory without our marks sees what its undescribed directories look like
/// in the layers below, where those were named; a union sees what they look like in those that it
/// has.
#[test]
fn missing_parents_look_as_in_the_layers_that_are_named() {
    let place = Place::new();
    let bases = ["one", "two"].map(|name| place.at(name));
    for (base, (mode, owner)) in bases.iter().zip([(0o1777, 5), (0o2750, 7)]) {
        let mut tmp = head("tmp/", b'5', 0).mode(mode);
        (tmp.uid, tmp.gid) = (octal(owner, 8), octal(owner + 1, 8));
        let tar = Tar::new().head(tmp).file("file", b"").end();
        std::fs::create_dir(base).unwrap();
        unpack(&tar[..], base, &Unpack::default()).unwrap();
    }
    let tar = Tar::new().file("tmp/x/y", b"").file("file/z", b"").end();
    std::fs::write(place.at("layer.tar"), &tar).unwrap();
    let output = std::process::Command::new(super::commands::binary())
        .args(["layer", "apply", "--lower"])
        .arg(&bases[0])
        .arg("--lower")
        .arg(&bases[1])
        .arg(place.at("layer.tar"))
        .arg(place.target())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let looks = |dir: &std::path::Path| {
        let meta = std::fs::metadata(dir).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!(looks(&place.target().join("tmp")), (0o1777, 5, 6));
    assert_eq!(
        std::fs::metadata(place.target().join("tmp"))
            .unwrap()
            .mtime(),
        std::fs::metadata(bases[0].join("tmp")).unwrap().mtime()
    );
    for unknown in ["tmp/x", "file"] {
        assert_eq!(
            looks(&place.target().join(unknown)),
            (0o755, 0, 0),
            "{unknown}"
        );
    }
    for (base, want) in bases.iter().zip([(0o1777, 5, 6), (0o2750, 7, 8)]) {
        let config = unionmount::union::Config {
            lowers: vec![place.target(), base.clone()],
            ..Default::default()
        };
        let union = unionmount::union::Union::open(&config).unwrap();
        let root = unionmount::union::NodeId::ROOT;
        let attr = union.lookup(root, b"tmp").unwrap().unwrap().attr;
        assert_eq!((attr.mode & 0o7777, attr.uid, attr.gid), want);
    }
}

/// What no entry describes is not described by what is made of the layer again: it would change
/// what lies below.
#[test]
fn directories_without_an_entry_get_none_in_a_diff() {
    let place = Place::new();
    let tar = Tar::new().file("a/b/c", b"").dir("a/").end();
    unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
    let names = || -> Vec<String> {
        let mut layer = Vec::new();
        diff(&place.target(), &[], &mut layer, &Pack::default()).unwrap();
        let mut tar = tar::Archive::new(&layer[..]);
        let entries = tar.entries().unwrap();
        entries
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    };
    assert_eq!(names(), ["./", "a/", "a/b/c"]);
    // Nothing else would say that it is there.
    std::fs::remove_file(place.target().join("a/b/c")).unwrap();
    assert_eq!(names(), ["./", "a/", "a/b/"]);
    // Once an archive says what it looks like it is described.
    std::fs::write(place.target().join("a/b/c"), "").unwrap();
    let mode = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(place.target().join("a/b"), mode).unwrap();
    assert_eq!(names(), ["./", "a/", "a/b/", "a/b/c"]);
}

#[test]
fn missing_parents_are_made_and_told() {
    let place = Place::new();
    let tar = Tar::new().file("a/b/c", b"").dir("a/").end();
    let unpacked = unpack(&tar[..], &place.target(), &Unpack::default()).unwrap();
    assert_eq!(unpacked.implied, [b"a/b".to_vec()]);
    assert!(!unpacked.has_root);
    assert_eq!((unpacked.entries, unpacked.content), (2, 0));
    let seen = survey(&place.target());
    assert_eq!((seen["a/b"].mode, seen["a/b"].owner), (0o755, (0, 0)));
    assert_eq!(seen["a"].mtime, (1_000_000_000, 0));
}

#[test]
fn numbers_times_and_names_of_every_form() {
    let mut early = head("early", b'0', 0);
    early.magic = GNU;
    early.mtime = binary(-86400, 12);
    early.uid = binary(3_000_000_000, 8);
    early.gid = octal(0o7_777_777, 8);
    let mut large = head("large", b'0', 0);
    large.size = binary(3, 12);
    let mut v7 = head("v7/", 0, 0);
    v7.magic = [0; 8];
    let mut plain = head("v7/f", 0, 0);
    plain.magic = [0; 8];
    let mut prefixed = head("name", b'0', 0).block();
    prefixed[345..352].copy_from_slice(b"pre/fix");
    seal(&mut prefixed);
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(255));
    let value: Vec<u8> = (0..=255).collect();
    let tar = Tar::new()
        .records(
            b'g',
            &[
                ("uid", b"77"),
                ("mtime", b"5"),
                ("SCHILY.xattr.user.global", b"x"),
            ],
        )
        .head(early)
        .head(large)
        .data(b"abc")
        .head(v7)
        .head(plain)
        .raw(&prefixed)
        .long(b'K', long.as_bytes())
        .long(b'L', long.as_bytes())
        .head(head("x", b'2', 0).to("y"))
        .pax(&[
            ("path", b"pax/\xff name\n"),
            ("uid", b"4294967294"),
            ("gid", b"2097152"),
            ("mtime", b"-1.5"),
            ("SCHILY.xattr.user.binary", &value),
            (
                "SCHILY.xattr.security.capability",
                b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            ),
        ])
        .file("ignored", b"data")
        .file("after", b"")
        .end();
    let (place, seen) = extracted(&tar);
    let early = &seen["early"];
    assert_eq!(
        (early.mtime, early.owner),
        ((-86400, 0), (3_000_000_000, 0o7_777_777))
    );
    assert_eq!(seen["large"].data, b"abc");
    assert_eq!((seen["v7"].kind, seen["v7/f"].kind), ('d', '-'));
    assert_eq!(seen["pre/fix/name"].kind, '-');
    assert_eq!(seen[&long].data, long.as_bytes());
    let pax = &seen["pax/\\xff name\\n"];
    assert_eq!(
        (pax.owner, pax.mtime),
        ((4_294_967_294, 2_097_152), (-2, 500_000_000))
    );
    assert_eq!(pax.data, b"data");
    assert_eq!(pax.xattrs["user.binary"], value);
    assert_eq!(pax.xattrs["security.capability"].len(), 20);
    // Global records, and those of another entry, say nothing about this one.
    assert_eq!(
        (seen["after"].owner, seen["after"].mtime),
        ((0, 0), (1_000_000_000, 0))
    );
    assert!(seen["after"].xattrs.is_empty());
    drop(place);
}

#[test]
fn devices_pipes_and_sockets_are_unpacked() {
    let mut null = head("null", b'3', 0);
    null.device = (1, 3);
    let mut disk = head("disk", b'4', 0);
    disk.device = (259, 70000);
    let tar = Tar::new()
        .head(null)
        .head(disk)
        .head(head("pipe", b'6', 0).mode(0o600))
        .pax(&[("SCHILY.filetype", b"socket")])
        .head(head("socket", b'0', 0))
        .end();
    let (_place, seen) = extracted(&tar);
    assert_eq!(
        (seen["null"].kind, seen["null"].rdev),
        ('c', rustix::fs::makedev(1, 3))
    );
    assert_eq!(
        (seen["disk"].kind, seen["disk"].rdev),
        ('b', rustix::fs::makedev(259, 70000))
    );
    assert_eq!(
        (seen["pipe"].kind, seen["pipe"].mode, seen["socket"].kind),
        ('p', 0o600, 's')
    );
}

/// In all four forms the holes stay holes.
#[test]
fn sparse_files_stay_sparse() {
    const SIZE: u64 = 8 << 20;
    let size = SIZE.to_string();
    let data = [b'x'; 512];
    let at = |seen: &super::survey::Survey, place: &Place| {
        let mut want = vec![0; SIZE as usize];
        want[4096..4608].fill(b'x');
        want[1 << 20..(1 << 20) + 512].fill(b'x');
        assert!(seen["sparse"].data == want);
        assert_eq!(seen.len(), 3);
        let blocks = place.target().join("sparse").metadata().unwrap().blocks();
        assert!(blocks < 64, "{blocks}");
    };
    let after = |tar: Tar| tar.data(&[data, data].concat()).file("after", b"").end();
    let real: (&str, &[u8]) = ("GNU.sparse.size", size.as_bytes());
    let name: (&str, &[u8]) = ("GNU.sparse.name", b"sparse");
    let invented = head("GNUSparseFile.0/sparse", b'0', 1024);
    let first = Tar::new().pax(&[
        real,
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"4096"),
        ("GNU.sparse.numbytes", b"512"),
        ("GNU.sparse.offset", b"1048576"),
        ("GNU.sparse.numbytes", b"512"),
    ]);
    let second = Tar::new().pax(&[real, name, ("GNU.sparse.map", b"4096,512,1048576,512")]);
    let map = b"3\n4096\n512\n1048576\n512\n8388608\n0\n";
    let third = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.realsize", size.as_bytes()),
            name,
        ])
        .head(head("GNUSparseFile.0/sparse", b'0', 1536))
        .data(map);
    let mut old = head("sparse", b'S', 1024);
    old.magic = GNU;
    let mut old = old.block();
    for (index, (offset, len)) in [(4096, 512), (1 << 20, 512)].iter().enumerate() {
        let at = 386 + index * 24;
        old[at..at + 12].copy_from_slice(&octal(*offset, 12));
        old[at + 12..at + 24].copy_from_slice(&octal(*len, 12));
    }
    old[483..495].copy_from_slice(&octal(SIZE, 12));
    seal(&mut old);
    for tar in [
        after(first.head(head("sparse", b'0', 1024))),
        after(second.head(invented)),
        after(third),
        after(Tar::new().raw(&old)),
    ] {
        let (place, seen) = extracted(&tar);
        at(&seen, &place);
    }
}

#[test]
fn marks_are_recorded_in_either_form() {
    let long = "n".repeat(255);
    let whiteout = format!(".wh.{long}");
    let tar = Tar::new()
        .pax(&[("path", whiteout.as_bytes())])
        .file("x", b"")
        .file(".wh.gone", b"")
        .file(".wh.before", b"")
        .dir("before/")
        .file("before/f", b"")
        .dir("after/")
        .file(".wh.after", b"")
        .file("file", b"x")
        .file(".wh.file", b"")
        .dir("opaque/")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/.wh.x", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .hard_link(".wh.linked", ".wh..wh.aufs")
        .end();
    let (_place, wh) = extracted(&tar);
    let names: Vec<&str> = wh.keys().map(String::as_str).collect();
    let want = [
        "",
        ".wh.after",
        ".wh.before",
        ".wh.file",
        ".wh.gone",
        ".wh.linked",
        "after",
        "before",
        "before/f",
        "file",
        &long,
        "opaque",
        "opaque/.wh..wh..opq",
        "opaque/.wh.x",
    ];
    assert_eq!(names, want);
    assert_eq!((wh[&long].kind, wh[&long].rdev), ('c', 0));

    let place = Place::new();
    let options = Unpack {
        whiteouts: Whiteouts::Char,
        ..Unpack::default()
    };
    unpack(&tar[..], &place.target(), &options).unwrap();
    let char = survey(&place.target());
    for name in ["gone", "linked", &long, "opaque/x"] {
        assert_eq!((char[name].kind, char[name].rdev), ('c', 0), "{name}");
    }
    for name in ["before", "after", "opaque"] {
        assert_eq!(char[name].xattrs["trusted.overlay.opaque"], b"y", "{name}");
    }
    assert_eq!(
        (char["file"].kind, &char["file"].data[..]),
        ('-', &b"x"[..])
    );
    assert!(!char.keys().any(|name| name.contains(".wh.")));
}

/// What says something about a layer to a union must not come from an archive.
#[test]
fn marks_by_xattr_are_only_names_in_an_archive() {
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.fuseoverlayfs.opaque", b"y"),
            (
                "SCHILY.xattr.user.containers.override_stat",
                b"0:0:4755:file",
            ),
        ])
        .dir("d/")
        .end();
    let (place, seen) = extracted(&tar);
    let names: Vec<&str> = seen["d"].xattrs.keys().map(String::as_str).collect();
    let want = [
        "trusted.overlay.overlay.opaque",
        "user.containers.override_user.containers.override_stat",
        "user.containers.override_user.fuseoverlayfs.opaque",
        "user.overlay.overlay.redirect",
    ];
    assert_eq!(names, want);
    assert!(xattrs(&place.target()).is_empty());
}

#[test]
fn digests_and_sizes_are_verified() {
    let tar = Tar::new().file("f", b"content").end();
    let place = Place::new();
    let mut seen = Vec::new();
    for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let blob = packed(&tar, how);
        let known = Expect {
            digest: Some(Digest::of(&blob)),
            diff_id: Some(Digest::of(&tar)),
            compressed_size: Some(blob.len() as u64),
            size: Some(tar.len() as u64),
        };
        let try_with = |expect: Expect, blob: &[u8]| {
            let options = Unpack {
                expect,
                ..Unpack::default()
            };
            let unpacked = unpack(blob, &place.target(), &options);
            if unpacked.is_ok() {
                assert_eq!(survey(&place.target()).len(), 2);
                std::fs::remove_file(place.target().join("f")).unwrap();
            } else {
                assert_eq!(survey(&place.target()).len(), 1);
            }
            unpacked
        };
        let unpacked = try_with(known, &blob).unwrap();
        assert_eq!(
            (unpacked.digest, unpacked.diff_id),
            (Digest::of(&blob), Digest::of(&tar))
        );
        assert_eq!((unpacked.compression, unpacked.content), (how, 7));
        seen.push(unpacked.compressed_size);
        let other = Digest::of(b"other");
        for wrong in [
            Expect {
                digest: Some(other),
                ..known
            },
            Expect {
                diff_id: Some(other),
                ..known
            },
            Expect {
                compressed_size: Some(1 << 20),
                ..known
            },
            Expect {
                compressed_size: Some(9),
                ..known
            },
            Expect {
                size: Some(1 << 20),
                ..known
            },
            Expect {
                size: Some(512),
                ..known
            },
        ] {
            let err = try_with(wrong, &blob).unwrap_err();
            assert!(
                matches!(
                    err.kind(),
                    ErrorKind::Mismatch | ErrorKind::Limit | ErrorKind::Io
                ),
                "{err}"
            );
        }
        // What follows belongs to the blob, though it has no meaning.
        let longer = [&blob[..], b"trailing"].concat();
        assert!(try_with(known, &longer).is_err());
        let expect = Expect {
            digest: Some(Digest::of(&longer)),
            ..Expect::default()
        };
        assert_eq!(
            try_with(expect, &longer).unwrap().compressed_size,
            longer.len() as u64
        );
        let cut = &blob[..blob.len() - 3];
        if how != Compression::None {
            assert!(try_with(Expect::default(), cut).is_err());
        }
    }
    assert_eq!(seen[0], tar.len() as u64);
}

/// An archive without an end mark may have been cut; a digest says that it was not.
#[test]
fn an_archive_without_an_end_needs_a_digest() {
    let tar = Tar::new().file("f", b"x").0;
    let place = Place::new();
    let err = unpack(&tar[..], &place.target(), &Unpack::default()).unwrap_err();
    assert!(err.to_string().contains("end mark"), "{err}");
    assert!(unpack(&b""[..], &place.target(), &Unpack::default()).is_err());
    let expect = Expect {
        diff_id: Some(Digest::of(&tar)),
        ..Expect::default()
    };
    let options = Unpack {
        expect,
        ..Unpack::default()
    };
    unpack(&tar[..], &place.target(), &options).unwrap();
    // It is not empty any more.
    let err = unpack(&tar[..], &place.target(), &options).unwrap_err();
    assert!(err.to_string().contains("not empty"), "{err}");
    assert_eq!(survey(&place.target()).len(), 2);
}

#[test]
fn a_copy_of_the_blob_is_kept() {
    let tar = Tar::new().file("f", &[3; 100_000]).end();
    for how in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let blob = packed(&tar, how);
        let place = Place::new();
        let kept = File::create(place.at("kept")).unwrap();
        let options = Unpack {
            keep: Some(&kept),
            ..Unpack::default()
        };
        unpack(&blob[..], &place.target(), &options).unwrap();
        let kept = std::fs::read(place.at("kept")).unwrap();
        if how == Compression::None {
            assert_eq!(Compression::of(&kept), Compression::Zstd);
            assert!(kept.len() < 1000);
            let again = place.at("again");
            let unpacked = apply(&kept[..], &again, ApplyMode::Layer, &Unpack::default()).unwrap();
            assert_eq!(unpacked.diff_id, Digest::of(&blob));
        } else {
            assert!(kept == blob);
        }
    }
}

#[test]
fn a_layer_is_carried_out_on_a_tree() {
    let place = Place::new();
    let tree = place.at("tree");
    std::fs::create_dir_all(tree.join("keep/in")).unwrap();
    for name in ["gone", "replaced", "keep/in/f", "keep/gone"] {
        std::fs::write(tree.join(name), "old").unwrap();
    }
    for name in ["opaque/x", "hidden/x", "gonedir/x"] {
        std::fs::create_dir_all(tree.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", tree.join("link")).unwrap();
    let before = survey(&tree);
    let tar = Tar::new()
        .file(".wh.gone", b"")
        .file(".wh.gonedir", b"")
        .file(".wh.never", b"")
        .file("keep/.wh.gone", b"")
        .head(head("replaced/", b'5', 0).mode(0o700))
        .file("replaced/f", b"new")
        .dir("opaque/")
        .file("opaque/new", b"")
        .file("opaque/.wh..wh..opq", b"")
        .dir("hidden/")
        .file(".wh.hidden", b"")
        .dir("link/")
        .file("link/passwd", b"ours")
        .hard_link("link/again", "link/passwd")
        .end();
    apply(&tar[..], &tree, ApplyMode::Auto, &Unpack::default()).unwrap();
    let after = survey(&tree);
    let names: Vec<&str> = after.keys().map(String::as_str).collect();
    let want = [
        "",
        "hidden",
        "keep",
        "keep/in",
        "keep/in/f",
        "link",
        "link/again",
        "link/passwd",
        "opaque",
        "opaque/new",
        "replaced",
        "replaced/f",
    ];
    assert_eq!(names, want);
    // No entry describes it: it stays as it was.
    assert_eq!(after["keep"], before["keep"]);
    assert_eq!(after[""].mtime, before[""].mtime);
    assert_eq!(after["replaced"].mode, 0o700);
    assert_eq!(after["link/passwd"].same_as, "link/again");
    assert_eq!(
        survey(&place.at(""))
            .keys()
            .filter(|name| name.contains("unionmount"))
            .count(),
        0
    );
}

#[test]
fn ownership_is_what_this_process_can_do() {
    let want = match rustix::process::geteuid().is_root() {
        true => Ownership::Real,
        false => Ownership::Recorded,
    };
    assert_eq!(Ownership::possible(), want);
}

/// Images of AUFS's time: a file with several names was kept under one of its own.
#[test]
fn hard_links_to_what_aufs_left_are_files() {
    let tar = Tar::new()
        .head(head("./", b'5', 0).mode(0o755))
        .file(".wh..wh.aufs", b"")
        .dir(".wh..wh.plnk/")
        .file(".wh..wh.plnk/93.1", b"content")
        .file("unlinked", b"plain")
        .hard_link(".wh..wh.plnk/94.1", "unlinked")
        .hard_link(".wh..wh.plnk/95.1", "nothing")
        .dir("d/")
        .hard_link("d/one", ".wh..wh.plnk/93.1")
        .hard_link("two", "./.wh..wh.plnk//93.1")
        .hard_link("three", ".wh..wh.plnk/94.1")
        .end();
    for ownership in [Ownership::possible(), Ownership::Recorded] {
        let place = Place::new();
        let options = Unpack {
            ownership,
            ..Unpack::default()
        };
        unpack(&tar[..], &place.target(), &options).unwrap();
        let seen = survey(&place.target());
        let names: Vec<&str> = seen.keys().map(String::as_str).collect();
        assert_eq!(names, ["", "d", "d/one", "three", "two", "unlinked"]);
        assert_eq!(seen["d/one"].data, b"content");
        assert_eq!(seen["d/one"].same_as, seen["two"].same_as);
        assert_eq!(seen["three"].same_as, seen["unlinked"].same_as);
        assert_eq!(seen[""].mtime, (1_000_000_000, 0));
        let links = place.target().join("two").metadata().unwrap().nlink();
        assert_eq!(links, 2);
    }
    let tar = Tar::new().hard_link("f", ".wh..wh.plnk/1").end();
    let place = Place::new();
    let err = unpack(&tar[..], &place.target(), &Unpack::default()).unwrap_err();
    assert!(
        err.to_string().contains("is not in the layer before it"),
        "{err}"
    );
    assert_eq!(survey(&place.target()).len(), 1);
}
