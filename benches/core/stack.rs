//! Layers in a temporary directory, and unions of them.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use unionmount::union::{Config, NodeId, Union};

/// Lower layers, the first one the newest, an upper and a work directory.
pub(crate) struct Stack {
    place: TempDir,
    layers: usize,
}

impl Stack {
    /// `layers` lower layers, each with an empty directory `dir`.
    pub(crate) fn with_layers(layers: usize) -> Self {
        let place = tempfile::tempdir().unwrap();
        let stack = Self { place, layers };
        for layer in 0..layers {
            fs::create_dir_all(stack.layer(layer).join("dir")).unwrap();
        }
        stack
    }

    fn layer(&self, number: usize) -> PathBuf {
        self.place.path().join(format!("layer{number}"))
    }

    /// Files `f0` to `f<count - 1>` of 4 KiB in a directory of a layer.
    pub(crate) fn fill(&self, layer: usize, dir: &str, count: usize) {
        let dir = self.layer(layer).join(dir);
        for name in 0..count {
            fs::write(dir.join(format!("f{name}")), [b'x'; 4096]).unwrap();
        }
    }

    /// The lower layers alone.
    pub(crate) fn config(&self) -> Config {
        Config {
            lowers: (0..self.layers).map(|layer| self.layer(layer)).collect(),
            ..Config::default()
        }
    }

    /// With an upper that is empty.
    pub(crate) fn open_writable(&self, volatile: bool) -> Union {
        let [upper, work] = ["upper", "work"].map(|name| {
            let path = self.place.path().join(name);
            fs::create_dir(&path).unwrap();
            Some(path)
        });
        Union::open(&Config {
            upper,
            work,
            volatile,
            ..self.config()
        })
        .unwrap()
    }
}

/// The node of a directory of the root; its lookup is never taken back.
pub(crate) fn dir_of(union: &Union, name: &str) -> NodeId {
    let entry = union.lookup(NodeId::ROOT, name.as_bytes()).unwrap();
    entry.unwrap().node
}
