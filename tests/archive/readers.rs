//! What other programs make of the archives that we read, and of those that we write.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use support::images::has_program;
use support::shell;
use unionmount::internal::archive::{Compression, Digest, Pack, Unpack, diff, unpack};

use super::build::{GNU, Place, Tar, binary, head, octal};
use super::survey::{Survey, assert_same, survey};

/// A tree with something of everything that tar knows.
fn rich(at: &Path) {
    fs::create_dir_all(at.join("d/deep")).unwrap();
    let long = format!("{}/{}", "l".repeat(180), "m".repeat(240));
    fs::create_dir_all(at.join(&long).parent().unwrap()).unwrap();
    fs::write(at.join(&long), "long").unwrap();
    symlink(&long, at.join("long-link")).unwrap();
    fs::hard_link(at.join(&long), at.join("d/hard")).unwrap();
    fs::write(at.join("d/deep/text"), "text\n".repeat(3000)).unwrap();
    shell(
        at,
        r"truncate -s 4M sparse; printf middle | dd of=sparse bs=1 seek=2000001 conv=notrunc status=none
        truncate -s 1M d/hole; for i in 1 3 5 7 9 11; do printf x | dd of=many bs=64K seek=$i conv=notrunc status=none; done
        mkfifo -m 600 pipe; mknod null c 1 3; mknod disk b 8 17
        printf hello >'sp ace
        line'; touch $'\xff\xfe'
        chown 3000000:4000000000 d/deep/text; chown -h 5:6 long-link; chmod 4711 d/deep/text; chmod 1777 d; chmod 2750 d/deep
        setfattr -n user.a -v $'b\nc' d/hole; setfattr -n user.empty -v '' d; setfattr -n trusted.t -v t many
        setcap cap_net_raw+ep many 2>/dev/null || true
        touch -d '1955-03-04 05:06:07.123456789Z' d/hole; touch -d '@4294967300.5' many; touch -h -d '@-7.25' long-link
        touch -d '@1.000000001' d/deep; touch -d '@12345' pipe",
    );
}

/// A format without room for something says so in its own way: then what GNU tar reads back is the
/// measure.
#[test]
fn gnu_tar_s_archives_in_every_format() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let tree = place.at("tree");
    fs::create_dir(&tree).unwrap();
    rich(&tree);
    let small = "--exclude=l*";
    let formats = [
        format!(
            "--format=v7 {small} --exclude=null --exclude=disk --exclude=pipe --exclude=d/deep --exclude=d/hard --exclude=many --exclude=d/hole"
        ),
        format!(
            "--format=ustar {small} --exclude=d/deep --exclude=d/hard --exclude=many --exclude=d/hole"
        ),
        "--format=oldgnu --sparse".to_owned(),
        "--format=gnu --sparse".to_owned(),
        "--format=gnu --sparse --hole-detection=raw".to_owned(),
        "--format=posix --xattrs --xattrs-include=*".to_owned(),
        "--format=posix --sparse --sparse-version=0.0 --xattrs --xattrs-include=*".to_owned(),
        "--format=posix --sparse --sparse-version=0.1 --xattrs --xattrs-include=*".to_owned(),
        "--format=posix --sparse --sparse-version=1.0 --xattrs --xattrs-include=*".to_owned(),
    ];
    for (index, format) in formats.iter().enumerate() {
        let tar = format!("{index}.tar");
        shell(
            place.at(""),
            &format!("set -f; tar -C tree {format} -cf {tar} . 2>/dev/null || [ $? = 1 ]"),
        );
        let theirs = place.at(format!("theirs{index}"));
        fs::create_dir(&theirs).unwrap();
        shell(
            &theirs,
            &format!(
                "set -f; tar -xpf ../{tar} --numeric-owner --same-owner --xattrs --xattrs-include=*"
            ),
        );
        compare(&fs::read(place.at(tar)).unwrap(), &theirs, format);
    }
}

fn compare(tar: &[u8], theirs: &Path, how: &str) {
    let place = Place::new();
    unpack(tar, &place.target(), &Unpack::default()).unwrap_or_else(|err| panic!("{how}: {err}"));
    assert_same(&survey(theirs), &survey(&place.target()), how);
    let blocks = |root: &Path| {
        root.join("sparse")
            .metadata()
            .map_or(0, |meta| meta.blocks())
    };
    assert!(
        blocks(&place.target()) <= blocks(theirs) + 16,
        "{how}: holes"
    );
}

/// Extracts as it is, with what Python knows of times and owners.
const PYTHON: &str = r"
import sys, tarfile, os
with tarfile.open(sys.argv[1]) as tar:
    for member in tar:
        tar.extract(member, sys.argv[2], numeric_owner=True)
";

/// Python sets times as floating-point numbers, knows no xattrs, and reads sparse files, so that
/// those are compared.
fn as_python_can(mut seen: Survey) -> Survey {
    for object in seen.values_mut() {
        object.mtime.1 = 0;
        object.xattrs.clear();
        if matches!(object.kind, 'd' | 'l') {
            // It sets times as it comes by, and none of links.
            object.mtime = (0, 0);
        }
    }
    seen
}

#[test]
fn python_reads_what_we_read_and_what_we_write() {
    if !has_program("python3") || !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let tree = place.at("tree");
    fs::create_dir(&tree).unwrap();
    rich(&tree);
    let mut ours = Vec::new();
    diff(&tree, &[], &mut ours, &Pack::default()).unwrap();
    let mut early = head("early", b'0', 3);
    early.magic = GNU;
    early.mtime = binary(-100_000, 12);
    early.uid = binary(3_000_000, 8);
    let crafted = Tar::new()
        .head(early)
        .data(b"abc")
        .pax(&[
            ("path", "ü/ß".as_bytes()),
            ("mtime", b"-2.75"),
            ("uid", b"2097152"),
            ("size", b"4"),
        ])
        .head(head("short", b'0', 0))
        .data(b"four")
        .pax(&[("linkpath", &[b'z'; 300])])
        .symlink("link", "short")
        .long(b'L', &[b'n'; 140])
        .file("x", b"n")
        .head({
            let mut spaces = head("spaces", b'0', 0);
            spaces.mode = b"   644 \0".to_vec();
            spaces.mtime = octal(5, 12);
            spaces
        })
        .end();
    for (name, tar) in [("ours", &ours), ("crafted", &crafted)] {
        let (file, out) = (place.at(format!("{name}.tar")), place.at(name));
        fs::write(&file, tar).unwrap();
        fs::create_dir(&out).unwrap();
        let output = support::programs::program("python3")
            .args(["-c", PYTHON])
            .arg(&file)
            .arg(&out)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let into = Place::new();
        unpack(&tar[..], &into.target(), &Unpack::default()).unwrap();
        let (mut want, mut got) = (
            as_python_can(survey(&out)),
            as_python_can(survey(&into.target())),
        );
        // The parents of entries, and the root, have no attributes in the crafted one.
        for seen in [&mut want, &mut got] {
            if name == "crafted" {
                seen.retain(|_, object| object.kind != 'd');
            }
        }
        assert_same(&want, &got, name);
    }
}

#[test]
fn gnu_tar_reads_what_we_write() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let tree = place.at("tree");
    fs::create_dir(&tree).unwrap();
    rich(&tree);
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let name = compression.name();
        let options = Pack {
            compression,
            ..Pack::default()
        };
        let file = fs::File::create(place.at(format!("{name}.tar"))).unwrap();
        diff(&tree, &[], file, &options).unwrap();
        let out = place.at(name);
        fs::create_dir(&out).unwrap();
        shell(
            &out,
            &format!(
                "set -f; tar -xpf ../{name}.tar --numeric-owner --same-owner --xattrs --xattrs-include=*"
            ),
        );
        assert_same(&survey(&tree), &survey(&out), name);
        let blocks = out.join("sparse").metadata().unwrap().blocks();
        assert!(blocks < 400, "{blocks}");
    }
}

/// Our layer in an OCI layout, read by the reference tools.
#[test]
fn umoci_and_skopeo_read_what_we_write() {
    if !rustix::process::geteuid().is_root() || !has_program("umoci") {
        return;
    }
    let place = Place::new();
    let tree = place.at("tree");
    fs::create_dir(&tree).unwrap();
    rich(&tree);
    // umoci 0.4 stops at owners that are no Int32, and sets neither empty xattrs nor those of
    // trusted.
    shell(
        &tree,
        "chown 7:8 d/deep/text; setfattr -x trusted.t many; setfattr -x user.empty d",
    );
    let blobs = place.at("oci/blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let mut layer = Vec::new();
    let options = Pack {
        compression: Compression::Gzip,
        ..Pack::default()
    };
    let packed = diff(&tree, &[], &mut layer, &options).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    put(&layer);
    let (config, config_size) = put(
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            packed.diff_id
        )
        .as_bytes(),
    );
    let (manifest, manifest_size) = put(
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config}","size":{config_size}}},
            "layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"{}","size":{}}}]}}"#,
            packed.digest, packed.compressed_size
        )
        .as_bytes(),
    );
    fs::write(
        place.at("oci/oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    fs::write(
        place.at("oci/index.json"),
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "digest":"{manifest}","size":{manifest_size},"annotations":{{"org.opencontainers.image.ref.name":"t"}}}}]}}"#
        ),
    )
    .unwrap();
    shell(place.at(""), "umoci unpack --image oci:t bundle >/dev/null");
    assert_same(&survey(&tree), &survey(&place.at("bundle/rootfs")), "umoci");
    if has_program("skopeo") {
        shell(
            place.at(""),
            "skopeo copy -q --insecure-policy oci:oci:t docker-archive:docker.tar",
        );
        shell(place.at(""), "mkdir docker; tar -C docker -xf docker.tar");
        let inner = fs::read_dir(place.at("docker"))
            .unwrap()
            .map(|e| e.unwrap().path());
        let digests: Vec<Digest> = inner
            .filter(|path| path.is_file())
            .map(|path| Digest::of(&fs::read(path).unwrap()))
            .collect();
        assert!(
            digests.contains(&packed.diff_id),
            "skopeo took another layer"
        );
    }
}
