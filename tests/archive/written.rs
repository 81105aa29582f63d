//! What the changes in an upper are written as.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use unionmount::internal::archive::tar::TarReader;
use unionmount::internal::archive::tar::{EntryKind, TarEntry};
use unionmount::internal::archive::{Digest, Limits, Pack, Times, diff, export};
use unionmount::layer::stat::Time;
use unionmount::union::{Caller, Config, New, NodeId, RenameMode, Union};

use super::build::Place;

fn tar_of(upper: &Path, lowers: &[&Path], options: &Pack<'_>) -> Vec<u8> {
    let lowers: Vec<_> = lowers.iter().map(|path| path.to_path_buf()).collect();
    let mut tar = Vec::new();
    let packed = diff(upper, &lowers, &mut tar, options).unwrap();
    assert_eq!(
        (packed.digest, packed.size),
        (Digest::of(&tar), tar.len() as u64)
    );
    tar
}

fn entries(tar: &[u8]) -> Vec<TarEntry> {
    let mut reader = TarReader::new(tar, Limits::default());
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push(entry);
    }
    all
}

fn names(tar: &[u8]) -> Vec<String> {
    let all = entries(tar);
    all.iter()
        .map(|entry| entry.path.escape_ascii().to_string())
        .collect()
}

#[test]
fn marks_come_first_and_everything_is_sorted() {
    let place = Place::new();
    let upper = place.target();
    for dir in ["b", "b/x", "opaque", "beside"] {
        fs::create_dir(upper.join(dir)).unwrap();
    }
    for file in [
        ".wh.zz",
        ".wh.aa",
        ".wh.beside",
        ".wh.file",
        "file",
        "a",
        "b/.wh..wh..opq",
        "b/.wh.gone",
        "opaque/f",
        ".wh..wh.aufs",
    ] {
        fs::write(upper.join(file), "").unwrap();
    }
    rustix::fs::setxattr(
        upper.join("opaque"),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let long = "n".repeat(255);
    let mark = |name: &Path| {
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, name, kind, rustix::fs::Mode::empty(), 0).unwrap();
    };
    mark(&upper.join(&long));
    mark(&upper.join("device"));
    let tar = tar_of(&upper, &[], &Pack::default());
    let want = [
        "./",
        ".wh.aa",
        ".wh.device",
        &format!(".wh.{long}"),
        ".wh.zz",
        "a",
        "b/",
        "b/.wh..wh..opq",
        "b/.wh.gone",
        "b/x/",
        "beside/",
        "beside/.wh..wh..opq",
        "file",
        "opaque/",
        "opaque/.wh..wh..opq",
        "opaque/f",
    ];
    assert_eq!(names(&tar), want);
    for entry in entries(&tar)
        .iter()
        .filter(|entry| entry.path.starts_with(b".wh."))
    {
        assert_eq!(
            (entry.what.clone(), entry.mode, entry.mtime),
            (EntryKind::File(0), 0, Time::default())
        );
    }
}

#[test]
fn bookkeeping_of_this_machine_stays_here() {
    let place = Place::new();
    let file = place.target().join("f");
    fs::write(&file, "x").unwrap();
    for name in [
        "user.mine",
        "trusted.overlay.origin",
        "user.fuseoverlayfs.x",
        "trusted.overlay.overlay.opaque",
        "user.containers.override_user.containers.x",
        "trusted.kept",
    ] {
        rustix::fs::setxattr(&file, name, b"v", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let all = entries(&tar_of(&place.target(), &[], &Pack::default()));
    let kept: Vec<String> = all[1]
        .xattrs
        .iter()
        .map(|(name, _)| name.escape_ascii().to_string())
        .collect();
    assert_eq!(
        kept,
        [
            "trusted.kept",
            "trusted.overlay.opaque",
            "user.containers.x",
            "user.mine"
        ]
    );
}

#[test]
fn times_are_as_asked_for() {
    let place = Place::new();
    let at = |secs| Time { secs, nanos: 0 };
    for (name, secs) in [("old", 100), ("new", 300)] {
        let file = fs::File::create(place.target().join(name)).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: secs,
            tv_nsec: 5,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).unwrap();
    }
    let times = |times| {
        let options = Pack {
            times,
            ..Pack::default()
        };
        let all = entries(&tar_of(&place.target(), &[], &options));
        (all[1].mtime, all[2].mtime)
    };
    let exact = |secs| Time { secs, nanos: 5 };
    assert_eq!(times(Times::Unchanged), (exact(300), exact(100)));
    assert_eq!(times(Times::NoLaterThan(at(200))), (at(200), exact(100)));
    assert_eq!(times(Times::All(at(-1))), (at(-1), at(-1)));
}

/// Which zeros are left out is decided by the content, not by the disk's holes.
#[test]
fn an_archive_does_not_know_the_holes_of_the_disk() {
    let place = Place::new();
    let data = [&[1; 5000][..], &[0; 300_000], &[2; 70_000], &[0; 100_000]].concat();
    let mut tars = Vec::new();
    for holes in [false, true] {
        let upper = place.at(if holes { "with" } else { "without" });
        fs::create_dir(&upper).unwrap();
        let file = fs::File::create(upper.join("f")).unwrap();
        if holes {
            rustix::io::pwrite(&file, &data[..5000], 0).unwrap();
            rustix::io::pwrite(&file, &data[305_000..375_000], 305_000).unwrap();
            file.set_len(data.len() as u64).unwrap();
        } else {
            rustix::io::pwrite(&file, &data, 0).unwrap();
        }
        let options = Pack {
            times: Times::All(Time::default()),
            ..Pack::default()
        };
        tars.push(tar_of(&upper, &[], &options));
    }
    assert!(tars[0] == tars[1]);
    assert!(tars[0].len() < 100_000, "{}", tars[0].len());
    let into = Place::new();
    unionmount::internal::archive::unpack(
        &tars[0][..],
        &into.target(),
        &unionmount::internal::archive::Unpack::default(),
    )
    .unwrap();
    assert!(fs::read(into.target().join("f")).unwrap() == data);
}

/// A renamed directory has no name for where it came from in a layer: it is written whole.
#[test]
fn renamed_directories_are_written_whole() {
    let place = Place::new();
    for dir in ["lower/old/in", "upper", "work"] {
        fs::create_dir_all(place.at(dir)).unwrap();
    }
    for file in ["lower/old/a", "lower/old/in/b", "lower/other"] {
        fs::write(place.at(file), file).unwrap();
    }
    let config = Config {
        lowers: vec![place.at("lower")],
        upper: Some(place.at("upper")),
        work: Some(place.at("work")),
        redirect_dir: true,
        volatile: true,
        ..Config::default()
    };
    let union = Union::open(&config).unwrap();
    union.lookup(NodeId::ROOT, b"old").unwrap().unwrap();
    union
        .rename(
            NodeId::ROOT,
            b"old",
            NodeId::ROOT,
            b"new",
            RenameMode::Replace,
        )
        .unwrap();
    let new = union.lookup(NodeId::ROOT, b"new").unwrap().unwrap().node;
    union.unlink(new, b"a").unwrap();
    union
        .make(new, b"c", &New::Dir { mode: 0o700 }, &Caller::default())
        .unwrap();
    drop(union);
    let upper = place.at("upper");
    let tar = tar_of(&upper, &[&place.at("lower")], &Pack::default());
    assert_eq!(
        names(&tar),
        [
            "./",
            ".wh.old",
            "new/",
            "new/.wh..wh..opq",
            "new/c/",
            "new/in/",
            "new/in/b"
        ]
    );
    let mut out = Vec::new();
    let err = diff(&upper, &[], &mut out, &Pack::default())
        .unwrap_err()
        .to_string();
    assert!(
        err.contains("entry 'new/'") && err.contains("--lower"),
        "{err}"
    );

    let mut flat = Vec::new();
    export(&config, &mut flat, &Pack::default()).unwrap();
    assert_eq!(
        names(&flat),
        ["./", "new/", "new/c/", "new/in/", "new/in/b", "other"]
    );
    assert_eq!(fs::read_dir(place.at("work/work")).unwrap().count(), 0);
}

/// Only the upper is read.
#[test]
fn the_cost_is_that_of_the_changes() {
    let place = Place::new();
    fs::write(place.target().join("f"), "x").unwrap();
    let missing = place.at("no such layer");
    assert_eq!(
        names(&tar_of(&place.target(), &[&missing], &Pack::default())),
        ["./", "f"]
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let place = Place::new();
    let mut out = Vec::new();
    let err = diff(&place.at("none"), &[], &mut out, &Pack::default())
        .unwrap_err()
        .to_string();
    assert!(err.contains("none"), "{err}");
    symlink("/etc/passwd", place.target().join("link")).unwrap();
    fs::write(place.target().join("f"), "x").unwrap();
    fs::set_permissions(place.target().join("f"), fs::Permissions::from_mode(0o600)).unwrap();
    let all = entries(&tar_of(&place.target(), &[], &Pack::default()));
    assert_eq!(all[2].what, EntryKind::Symlink(b"/etc/passwd".to_vec()));
}

/// Kernel overlayfs copies the attributes of a file only (metacopy): its bytes come from below.
#[test]
fn files_without_their_bytes_are_written_with_them() {
    let place = Place::new();
    for dir in ["lower/d", "upper/d"] {
        fs::create_dir_all(place.at(dir)).unwrap();
    }
    let data: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(place.at("lower/d/f"), &data).unwrap();
    let copy = fs::File::create(place.at("upper/d/f")).unwrap();
    copy.set_len(data.len() as u64).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o640);
    rustix::fs::fchmod(&copy, mode).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::fsetxattr(&copy, "user.overlay.metacopy", b"", flags).unwrap();
    fs::hard_link(place.at("upper/d/f"), place.at("upper/d/g")).unwrap();
    let upper = place.at("upper");
    let tar = tar_of(&upper, &[&place.at("lower")], &Pack::default());
    assert_eq!(names(&tar), ["./", "d/", "d/f", "d/g"]);
    let into = Place::new();
    unionmount::internal::archive::unpack(
        &tar[..],
        &into.target(),
        &unionmount::internal::archive::Unpack::default(),
    )
    .unwrap();
    assert!(fs::read(into.target().join("d/g")).unwrap() == data);
    let meta = into.target().join("d/f").metadata().unwrap();
    assert_eq!(meta.permissions().mode() & 0o7777, 0o640);

    // Zeros would be a lie.
    for lowers in [vec![], vec![place.at("outside")]] {
        let err = diff(&upper, &lowers, Vec::new(), &Pack::default()).unwrap_err();
        assert_eq!(err.entry(), Some(&b"d/f"[..]), "{err}");
        assert_eq!(
            err.to_string().contains("--lower"),
            lowers.is_empty(),
            "{err}"
        );
    }
}
