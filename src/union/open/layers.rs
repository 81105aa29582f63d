//! The roots of the layers, opened and numbered.

use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use super::stat_overrides::upper_root;
use crate::layer::dir::{Dir, Source};
use crate::layer::{FdCache, ReadOnlyDir, WritableDir};
use crate::union::config::{Config, Setup, SetupError};
use crate::union::merge::hardlink::LayerLinks;
use crate::union::merge::layers::Layers;
use crate::union::merge::lookup::open_root;
use crate::union::merge::redirect::visible_roots;
use crate::union::node::identity::Disk;

/// Descriptors that are not the cache's: standard streams, FUSE devices, the stage, system calls
/// under way.
const RESERVED_FDS: usize = 64;
/// Most descriptors worth keeping open.
const MOST_CACHED_FDS: usize = 8192;

/// Most lower layers: inode numbers have 16 bits for the layer.
const MOST_LOWERS: u16 = u16::MAX - 1;

/// The roots of the layers of a union.
pub(super) struct Roots {
    pub(super) lowers: Vec<ReadOnlyDir>,
    pub(super) upper: Option<WritableDir>,
    data_only: Vec<ReadOnlyDir>,
    pub(super) fds: Arc<FdCache>,
}

impl Roots {
    /// Opens what the configuration names.
    pub(super) fn open(config: &Config) -> Setup<Self> {
        let layers = config.lowers.len()
            + config.data_only.len()
            + config.volumes.len()
            + usize::from(config.upper.is_some());
        let fds = FdCache::new(cached_fds(layers)?);
        let mut lowers = Vec::with_capacity(config.lowers.len());
        for (index, path) in config.lowers.iter().enumerate() {
            let number = u16::try_from(index).ok().filter(|no| *no < MOST_LOWERS);
            let Some(number) = number else {
                let problem = format!("more than {MOST_LOWERS} lower layers");
                return Err(SetupError::new(problem, "use fewer layers"));
            };
            let fd = open_root(path).map_err(|errno| cannot_open("lower layer", path, errno))?;
            lowers.push(ReadOnlyDir::root(Source::Lower(number), fd, &fds));
        }
        let mut data_only = Vec::with_capacity(config.data_only.len());
        for path in &config.data_only {
            let fd = open_root(path).map_err(|errno| cannot_open("data layer", path, errno))?;
            data_only.push(ReadOnlyDir::root(Source::DataOnly, fd, &fds));
        }
        if lowers.is_empty() && config.upper.is_none() {
            return Err(SetupError::new(
                "no layer given",
                "give at least one --lower",
            ));
        }
        let upper = match &config.upper {
            Some(path) => {
                let fd = open_root(path).map_err(|e| cannot_open("upper directory", path, e))?;
                Some(upper_root(config, path, fd, &fds)?)
            }
            None => None,
        };
        Ok(Self {
            lowers,
            upper,
            data_only,
            fds,
        })
    }

    /// Returns the disks of the roots, the upper's first.
    pub(super) fn disks(&self) -> Setup<Vec<Disk>> {
        let disk_of = |dir: &Dir| -> rustix::io::Result<Disk> {
            Ok(Disk {
                device: dir.device()?,
                mixed: dir.is_overlay()?,
            })
        };
        let upper = self.upper.as_ref();
        let upper = upper.map_or(Ok(Disk::default()), |upper| disk_of(upper));
        std::iter::once(upper)
            .chain(self.lowers.iter().map(|lower| disk_of(lower)))
            .collect::<rustix::io::Result<_>>()
            .map_err(|errno| {
                SetupError::new(
                    format!("cannot stat the root of a layer: {errno}"),
                    "see whether its disk is healthy and mounted",
                )
                .caused_by(&errno)
            })
    }

    /// Returns them as the union keeps them.
    pub(super) fn into_layers(self, plain_wh_names: bool) -> Layers {
        Layers {
            redirect_roots: visible_roots(self.upper.as_ref(), plain_wh_names, &self.lowers),
            link_index: self.lowers.iter().map(|_| LayerLinks::default()).collect(),
            lowers: self.lowers,
            data_only: self.data_only,
            upper: self.upper,
            plain_wh_names,
            fds: self.fds,
        }
    }
}

/// How many descriptors the cache may hold, by what this process may open.
fn cached_fds(layers: usize) -> Setup<usize> {
    let limit = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let needed = layers + 2 * RESERVED_FDS;
    if limit < needed {
        return Err(SetupError::new(
            format!("too few descriptors: {layers} layers need {needed}, the limit is {limit}"),
            "raise it (ulimit -n), or use fewer layers",
        ));
    }
    Ok(((limit - layers - RESERVED_FDS) / 2).min(MOST_CACHED_FDS))
}

pub(super) fn cannot_open(what: &str, path: &Path, errno: Errno) -> SetupError {
    SetupError::new(
        format!("cannot open {what} {}: {errno}", path.display()),
        match errno {
            Errno::NOENT => "create it, or correct the path",
            Errno::NOTDIR => "give a directory",
            Errno::ACCESS | Errno::PERM => "give a directory that you may read",
            _ => "see whether its disk is healthy and mounted",
        },
    )
    .caused_by(&errno)
}
