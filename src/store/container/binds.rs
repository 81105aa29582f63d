//! What is shown in a new container: the places that are asked for, checked, with volumes that are
//! there and filled.

use std::path::{Component, Path, PathBuf};

use crate::store::Store;
use crate::store::base::{Result, StoreError};
use crate::store::catalog::containers::{Bind, BindSource};
use crate::union::Config;

/// What is shown in a container, as the user asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BindRequest {
    /// `None` is a new volume without a name.
    pub(crate) source: Option<BindSource>,
    /// The absolute path inside the container.
    pub(crate) target: PathBuf,
    /// Nothing can be changed through it.
    pub(crate) read_only: bool,
    /// An empty volume stays empty.
    pub(crate) no_copy: bool,
}

impl Store {
    /// Makes the volumes that are missing, and fills those that are empty.
    ///
    /// # Errors
    /// A target is no path of its own, a source is not there, and those of the disk. Volumes that
    /// were made before stay.
    pub(super) fn prepare_binds(
        &mut self,
        requests: &[BindRequest],
        image: &Config,
    ) -> Result<Vec<Bind>> {
        let mut binds: Vec<Bind> = Vec::new();
        for request in requests {
            let target = &request.target;
            check_target(target, &binds)?;
            let source = self.prepare_source(request.source.as_ref())?;
            if let BindSource::Volume(name) = &source
                && !request.no_copy
            {
                self.fill_volume(name, image, target)?;
            }
            binds.push(Bind {
                source,
                target: target.clone(),
                read_only: request.read_only,
            });
        }
        Ok(binds)
    }

    fn prepare_source(&mut self, wanted: Option<&BindSource>) -> Result<BindSource> {
        Ok(match wanted {
            Some(BindSource::Directory(path)) => {
                BindSource::Directory(path.canonicalize().map_err(|error| {
                    StoreError::failed(
                        format_args!("the mount source '{}'", path.display()),
                        error,
                        "create it first, or name a volume",
                    )
                })?)
            }
            Some(BindSource::Volume(name)) => BindSource::Volume(self.create_volume(Some(name))?),
            None => BindSource::Volume(self.create_volume(None)?),
        })
    }
}

fn check_target(target: &Path, others: &[Bind]) -> Result<()> {
    let problem = if !target.is_absolute() || target == Path::new("/") {
        "is not an absolute path below /"
    } else if target.components().any(|part| part == Component::ParentDir) {
        "has '..' in it"
    } else if others.iter().any(|bind| bind.target == target) {
        "is given twice"
    } else {
        return Ok(());
    };
    Err(StoreError::invalid(
        format!("the mount target '{}' {problem}", target.display()),
        "give each mount an absolute path of its own inside the container",
    ))
}
