//! Images made by ourselves: layers with everything that layers can have, as OCI layouts and as
//! archives of `docker save`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A layer under construction.
pub struct Layer {
    builder: Builder<Vec<u8>>,
}

/// How the layers of an image are compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pack {
    Plain,
    Gzip,
    Zstd,
}

/// What an entry has besides its name.
#[derive(Clone, Default)]
pub struct NewMetadata<'a> {
    pub mode: u32,
    pub owner: (u64, u64),
    /// As in pax: seconds, with a fraction.
    pub mtime: &'a str,
    pub xattrs: &'a [(&'a str, &'a [u8])],
}

pub const PLAIN: NewMetadata<'static> = NewMetadata {
    mode: 0o644,
    owner: (0, 0),
    mtime: "1700000000.5",
    xattrs: &[],
};

impl Layer {
    pub fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    fn add(
        &mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        content: &[u8],
        looks: &NewMetadata<'_>,
        device: (u32, u32),
    ) {
        let mut pax: Vec<(String, Vec<u8>)> = vec![
            ("path".into(), name.as_bytes().to_vec()),
            ("mtime".into(), looks.mtime.as_bytes().to_vec()),
        ];
        if !link.is_empty() {
            pax.push(("linkpath".into(), link.as_bytes().to_vec()));
        }
        for (name, value) in looks.xattrs {
            pax.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        }
        let records: Vec<(&str, &[u8])> = pax
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_slice()))
            .collect();
        self.builder.append_pax_extensions(records).unwrap();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path("short").unwrap();
        header.set_mode(looks.mode);
        header.set_uid(looks.owner.0);
        header.set_gid(looks.owner.1);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name("short").unwrap();
        }
        if device != (0, 0) {
            header.set_device_major(device.0).unwrap();
            header.set_device_minor(device.1).unwrap();
        }
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
    }

    pub fn file(mut self, name: &str, content: &[u8], looks: &NewMetadata<'_>) -> Self {
        self.add(EntryType::Regular, name, "", content, looks, (0, 0));
        self
    }

    pub fn dir(mut self, name: &str, mode: u32) -> Self {
        let looks = NewMetadata { mode, ..PLAIN };
        self.add(
            EntryType::Directory,
            &format!("{name}/"),
            "",
            b"",
            &looks,
            (0, 0),
        );
        self
    }

    /// A directory, whose name ends with a slash.
    pub fn described(mut self, name: &str, looks: &NewMetadata<'_>) -> Self {
        self.add(EntryType::Directory, name, "", b"", looks, (0, 0));
        self
    }

    pub fn symlink(mut self, name: &str, target: &str) -> Self {
        self.add(
            EntryType::Symlink,
            name,
            target,
            b"",
            &NewMetadata {
                mode: 0o777,
                ..PLAIN
            },
            (0, 0),
        );
        self
    }

    /// Another name of a file; engines set its attributes once more from this entry.
    pub fn hard_link(mut self, name: &str, target: &str, looks: &NewMetadata<'_>) -> Self {
        self.add(EntryType::Link, name, target, b"", looks, (0, 0));
        self
    }

    pub fn special(mut self, name: &str, kind: EntryType, device: (u32, u32)) -> Self {
        self.add(kind, name, "", b"", &PLAIN, device);
        self
    }

    pub fn whiteout(self, name: &str) -> Self {
        let (dir, last) = name.rsplit_once('/').unwrap_or(("", name));
        let mark = if dir.is_empty() {
            format!(".wh.{last}")
        } else {
            format!("{dir}/.wh.{last}")
        };
        self.file(&mark, b"", &PLAIN)
    }

    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), b"", &PLAIN)
    }

    pub fn tar(self) -> Vec<u8> {
        self.builder.into_inner().unwrap()
    }
}

/// Three layers with all that can be in one.
pub fn rich_layers() -> Vec<Vec<u8>> {
    let long = "n".repeat(200);
    let deep = format!("{}/{}", "d".repeat(120), "e".repeat(120));
    // Version 2 of the VFS capability, cap_net_raw+ep, little endian (linux/capability.h).
    let capability: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .collect();
    let zeros = vec![0; 300_000];
    let base = Layer::new()
        .dir("./", 0o755)
        .dir("bin", 0o755)
        .file(
            "bin/tool",
            &[7; 70_000],
            &NewMetadata {
                mode: 0o4755,
                ..PLAIN
            },
        )
        .file(
            "bin/ping",
            b"ping",
            &NewMetadata {
                mode: 0o755,
                xattrs: &[("security.capability", &capability)],
                ..PLAIN
            },
        )
        .hard_link(
            "bin/other",
            "bin/tool",
            &NewMetadata {
                mode: 0o4755,
                ..PLAIN
            },
        )
        .symlink("bin/link", "tool")
        .dir("etc", 0o755)
        .file(
            "etc/conf",
            b"old",
            &NewMetadata {
                owner: (12, 34),
                mode: 0o600,
                ..PLAIN
            },
        )
        .file("etc/gone", b"gone", &PLAIN)
        .file(
            "etc/old",
            b"1960",
            &NewMetadata {
                mtime: "-315619200",
                ..PLAIN
            },
        )
        .file(
            "etc/tagged",
            b"x",
            &NewMetadata {
                xattrs: &[("user.name", b"a\0b\xff"), ("trusted.x", b"y")],
                ..PLAIN
            },
        )
        .dir("replaced", 0o755)
        .dir("replaced/by", 0o755)
        .file("replaced/by/file", b"x", &PLAIN)
        .file("turned", b"file", &PLAIN)
        .dir("opaque", 0o1777)
        .file("opaque/below", b"x", &PLAIN)
        .dir("tree", 0o2755)
        .dir("tree/sub", 0o700)
        .file("tree/sub/f", b"deleted with its directory", &PLAIN)
        .file(&long, b"long", &PLAIN)
        .dir(&"d".repeat(120), 0o755)
        .file(&deep, b"deep", &PLAIN)
        .file("zeros", &zeros, &PLAIN)
        .special("pipe", EntryType::Fifo, (0, 0))
        .special("null", EntryType::Char, (1, 3))
        .dir("data", 0o750)
        .file(
            "data/seed",
            b"seed",
            &NewMetadata {
                owner: (5, 6),
                ..PLAIN
            },
        )
        .tar();
    let middle = Layer::new()
        .dir("etc", 0o711)
        .whiteout("etc/gone")
        .file("etc/conf", b"new", &PLAIN)
        .whiteout("replaced")
        .file("replaced", b"now a file", &PLAIN)
        .whiteout("turned")
        .dir("turned", 0o755)
        .file("turned/inside", b"now a directory", &PLAIN)
        .dir("opaque", 0o1777)
        .opaque("opaque")
        .file("opaque/above", b"y", &PLAIN)
        .whiteout("tree")
        .tar();
    let top = Layer::new()
        .dir("etc", 0o711)
        .file("etc/gone", b"back again", &PLAIN)
        .dir("tree", 0o755)
        .file(
            "tree/new",
            b"new tree",
            &NewMetadata {
                mtime: "1700000000.123456789",
                ..PLAIN
            },
        )
        .hard_link(
            "tree/again",
            "tree/new",
            &NewMetadata {
                mtime: "1700000000.123456789",
                ..PLAIN
            },
        )
        .dir("bin", 0o755)
        .whiteout("bin/other")
        .tar();
    vec![base, middle, top]
}

/// A small image: quick to load, many times.
pub fn small_layers(count: usize) -> Vec<Vec<u8>> {
    (0..count)
        .map(|number| {
            let name = format!("f{number}");
            Layer::new()
                .dir("./", 0o755)
                .dir("d", 0o755)
                .file(
                    &format!("d/{name}"),
                    format!("content {number}").as_bytes(),
                    &PLAIN,
                )
                .file("d/same", name.as_bytes(), &PLAIN)
                .tar()
        })
        .collect()
}

/// As many layers that no other image has.
pub fn other_layers(count: usize) -> Vec<Vec<u8>> {
    let layer = |number: usize| {
        let mut layer = Layer::new().dir("o", 0o755);
        for file in 0..20 {
            let name = format!("o/{number}-{file}");
            layer = layer.file(&name, name.repeat(500).as_bytes(), &PLAIN);
        }
        layer.tar()
    };
    (0..count).map(layer).collect()
}

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An image in memory.
pub struct Image {
    pub blobs: BTreeMap<String, Vec<u8>>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Image {
    pub fn new(layers: Vec<Vec<u8>>, pack: Pack) -> Self {
        Self::with(layers, pack, json!({}))
    }

    /// `more` is added to the configuration.
    pub fn with(layers: Vec<Vec<u8>>, pack: Pack, more: Value) -> Self {
        let mut config = json!({
            "created": "2024-01-02T03:04:05.678Z",
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Cmd": ["/bin/tool"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|l| digest(l)).collect::<Vec<_>>()},
            "history": layers.iter().enumerate().flat_map(|(n, _)| [
                json!({"created": "2024-01-02T03:04:05Z", "created_by": format!("COPY {n} /")}),
                json!({"created": "2024-01-02T03:04:05Z", "created_by": "ENV A=b", "empty_layer": true}),
            ]).collect::<Vec<_>>(),
        });
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        // Odd spaces, which have to survive.
        let config = serde_json::to_string_pretty(&config).unwrap().into_bytes();
        let mut blobs = BTreeMap::new();
        let mut listed = Vec::new();
        for layer in &layers {
            let (blob, suffix) = match pack {
                Pack::Plain => (layer.clone(), ""),
                Pack::Gzip => {
                    let mut encoder =
                        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    encoder.write_all(layer).unwrap();
                    (encoder.finish().unwrap(), "+gzip")
                }
                Pack::Zstd => (zstd::encode_all(&layer[..], 1).unwrap(), "+zstd"),
            };
            listed.push(json!({
                "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
                "digest": digest(&blob), "size": blob.len(),
            }));
            blobs.insert(digest(&blob), blob);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                       "digest": digest(&config), "size": config.len()},
            "layers": listed,
            "annotations": {"odd": "kept"},
        });
        let manifest = serde_json::to_string_pretty(&manifest)
            .unwrap()
            .into_bytes();
        blobs.insert(digest(&config), config.clone());
        blobs.insert(digest(&manifest), manifest.clone());
        Self {
            blobs,
            config,
            manifest,
            layers,
        }
    }

    pub fn id(&self) -> String {
        digest(&self.config)
    }

    pub fn manifest_digest(&self) -> String {
        digest(&self.manifest)
    }

    pub fn descriptor(&self, name: &str) -> Value {
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": self.manifest_digest(), "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        })
    }

    /// The files of an OCI layout.
    pub fn layout(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        layout_of(
            &json!({"schemaVersion": 2, "manifests": [self.descriptor(name)]}),
            &[self],
        )
    }

    /// The files of an archive of `docker save`.
    pub fn docker(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let config = format!("{}.json", &self.id()[7..]);
        let mut files = BTreeMap::new();
        let mut names = Vec::new();
        for layer in &self.layers {
            let file = format!("{}/layer.tar", &digest(layer)[7..]);
            names.push(file.clone());
            files.insert(file, layer.clone());
        }
        files.insert(config.clone(), self.config.clone());
        let list = json!([{"Config": config, "RepoTags": [name], "Layers": names}]);
        files.insert("manifest.json".into(), list.to_string().into_bytes());
        files
    }
}

/// An OCI layout with this index and the blobs of these images.
pub fn layout_of(index: &Value, images: &[&Image]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    files.insert(
        "oci-layout".into(),
        br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
    );
    files.insert("index.json".into(), index.to_string().into_bytes());
    for (digest, blob) in images.iter().flat_map(|image| &image.blobs) {
        files.insert(format!("blobs/sha256/{}", &digest[7..]), blob.clone());
    }
    files
}

pub fn write_dir(files: &BTreeMap<String, Vec<u8>>, dir: &Path) {
    for (name, bytes) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub fn write_tar(files: &BTreeMap<String, Vec<u8>>, path: &Path) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    for (name, bytes) in files {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.finish().unwrap();
}
