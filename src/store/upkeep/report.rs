//! What a check finds.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Finding {
    /// What, in one line.
    pub(crate) what: String,
    /// It was repaired.
    pub(crate) repaired: bool,
    /// The hint for when it was not.
    pub(crate) cure: String,
}

/// How thorough a check is, and whether it repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CheckOptions {
    /// Read every archive, verify its digests, and compare each layer with it, entry by entry.
    pub(crate) deep: bool,
    /// Repair what can be repaired.
    pub(crate) repair: bool,
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Report {
    /// Layers that were looked at.
    pub(crate) layers: usize,
    /// Images that were looked at.
    pub(crate) images: usize,
    /// Containers that were looked at.
    pub(crate) containers: usize,
    /// Volumes that were looked at.
    pub(crate) volumes: usize,
    /// What is not as it should be.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    /// Whether something is still wrong.
    #[must_use]
    pub(crate) fn is_bad(&self) -> bool {
        self.findings.iter().any(|finding| !finding.repaired)
    }

    pub(super) fn add(&mut self, what: String, repaired: bool, cure: &str) {
        self.findings.push(Finding {
            what,
            repaired,
            cure: cure.to_owned(),
        });
    }
}

pub(super) const REPAIR: &str = "run 'unionmount system check --repair'";
pub(super) const RELOAD: &str =
    "remove the images that have it (unionmount layer ls) and load them again";

/// Whether a directory is there. A failed stat(2) is an error, not an answer.
pub(super) fn is_dir(path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if is_missing(&error) => Ok(false),
        meta => Ok(meta?.is_dir()),
    }
}

pub(super) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}
