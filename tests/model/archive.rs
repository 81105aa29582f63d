//! The changes in an upper as an archive: applied elsewhere it must give the same tree, and always
//! be the same archive.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use unionmount::internal::archive::extract::{ApplyMode, apply};
use unionmount::internal::archive::{Pack, Unpack, Whiteouts, diff, export, unpack};
use unionmount::union::Config;

use super::build::write_merged;
use super::compare::History;
use super::export::merged;
use super::stack::{Layer, merge};
use super::tree::{Look, Tree, read_tree};

/// What is checked: the directories of a stack, the layers that the lowers were made from, and the
/// tree they show.
pub struct Changes<'a> {
    /// There may be directories that refer to others: their other names come last, which nothing
    /// else does.
    pub redirects: bool,
    pub upper: &'a Path,
    pub lowers: &'a [PathBuf],
    pub layers: &'a [Layer],
    pub tree: &'a Tree,
    pub history: &'a mut History,
}

impl Changes<'_> {
    /// Errors: how an archive differs from what it should be.
    pub fn check(&mut self) -> Result<(), String> {
        let reserved = |at: &[u8]| {
            at.split(|byte| *byte == b'/')
                .any(|name| name.starts_with(b".wh."))
        };
        let made = self.diff(self.upper);
        if self.tree.keys().any(|at| reserved(at)) {
            // The one thing that no layer can hold.
            return match made {
                Err(message) if message.contains(".wh.") => Ok(()),
                other => Err(format!("a layer with such a name: {other:?}")),
            };
        }
        let tar = made?;
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        self.is_reproducible(&tar, dir.path())?;

        let base = dir.path().join("base");
        std::fs::create_dir(&base).unwrap();
        write_merged(&base, &merge(self.layers), self.layers);
        let options = Unpack::default();
        apply(&tar[..], &base, ApplyMode::Tree, &options).map_err(|e| format!("apply: {e}"))?;
        let seen = plain_tree(&base)?;
        self.compare(&seen, "applied to a copy of the base")?;

        for (form, whiteouts) in [("wh", Whiteouts::Wh), ("char", Whiteouts::Char)] {
            let layer = dir.path().join(form);
            std::fs::create_dir(&layer).unwrap();
            let options = Unpack {
                whiteouts,
                ..options
            };
            unpack(&tar[..], &layer, &options).map_err(|e| format!("unpack: {e}"))?;
            let again = self.diff(&layer)?;
            if again != tar && !self.redirects {
                return Err(format!(
                    "unpacked with {form} marks, it gives another archive"
                ));
            }
            let layers = [&[layer][..], self.lowers].concat();
            let seen = merged(&layers, false)?;
            self.compare(&seen, &format!("as a layer with {form} marks"))?;
        }
        self.exports(dir.path())
    }

    fn diff(&self, upper: &Path) -> Result<Vec<u8>, String> {
        let mut tar = Vec::new();
        diff(upper, self.lowers, &mut tar, &Pack::default()).map_err(|e| format!("diff: {e}"))?;
        Ok(tar)
    }

    fn is_reproducible(&self, tar: &[u8], dir: &Path) -> Result<(), String> {
        let copy = dir.join("copy");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.upper)
            .arg(&copy)
            .status();
        assert!(copied.unwrap().success());
        if self.diff(&copy)? != tar {
            return Err("a copy of the upper gives another archive".to_owned());
        }
        Ok(())
    }

    fn exports(&mut self, dir: &Path) -> Result<(), String> {
        let config = Config {
            lowers: self.lowers.to_vec(),
            upper: Some(self.upper.to_owned()),
            ..Config::default()
        };
        let mut tar = Vec::new();
        export(&config, &mut tar, &Pack::default()).map_err(|e| format!("export: {e}"))?;
        let flat = dir.join("flat");
        apply(&tar[..], &flat, ApplyMode::Tree, &Unpack::default())
            .map_err(|e| format!("apply: {e}"))?;
        let seen = plain_tree(&flat)?;
        self.compare(&seen, "exported")
    }

    fn compare(&mut self, seen: &Tree, how: &str) -> Result<(), String> {
        let compared = self.history.compare_disk(self.tree, seen);
        compared.map_err(|e| format!("the archive {how}: {e}"))
    }
}

/// A tree of ordinary directories, which only count themselves.
fn plain_tree(root: &Path) -> Result<Tree, String> {
    let mut tree = read_tree(File::open(root).unwrap(), Look::default())?;
    let mut names: HashMap<u64, u64> = HashMap::new();
    for object in tree.values() {
        *names.entry(object.ino).or_default() += 1;
    }
    for object in tree.values_mut() {
        object.nlink = names[&object.ino];
        // Short runs of zeros become data.
        object.blocks = 0;
    }
    Ok(tree)
}
