//! Putting a union together from directories, and proving beforehand that everything it will need
//! works.

mod layers;
mod stat_overrides;
mod writable;

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use dashmap::DashMap;

use crate::layer::ReadOnlyDir;
use crate::layer::stat::Kind;
use crate::sync::lock;
use crate::union::Union;
use crate::union::config::{CacheMode, Config, Setup, SetupError};
use crate::union::idmap::IdMaps;
use crate::union::node::changes::Attributes;
use crate::union::node::followers::Live;
use crate::union::node::forgotten::ForgottenNodes;
use crate::union::node::identity::{Disk, Numbering};
use crate::union::node::ids::NodeId;
use crate::union::node::inode::{DirNode, DirState, Inode, Node};
use crate::union::node::nodes::Nodes;
use crate::union::node::others::Others;
use crate::union::node::table::Table;
use crate::union::node::volumes::Volumes;
use crate::union::rules::Rules;
use crate::union::volume::attach::open_sources;
use crate::union::volume::list::Streams;
use layers::Roots;

/// The `st_ino` of the root, on every mount: no file of any layer has it.
const ROOT_INO: u64 = 1;

impl Union {
    /// Opens the layers, locks and empties the work directory, and proves by trying that the upper
    /// can store what the configuration asks for. Nothing in the upper's tree is changed but the
    /// markers on its root: of its whiteout form, and that it keeps owners and modes in xattrs.
    pub fn open(config: &Config) -> Setup<Self> {
        let roots = Roots::open(config)?;
        let (writable, plain_wh_names) = writable::open(config, &roots)?;
        let (list, sources): (Vec<_>, Vec<_>) = open_sources(&config.volumes)?.into_iter().unzip();
        let root = root_of(&roots);
        let live = live_of(config, &roots.lowers, &root)?;
        let ids = IdMaps::new(config);
        // A read-only view of an upper shows what another mount is writing there.
        let shared_upper = roots.upper.is_some() && writable.is_none();
        let union = Self {
            nodes: nodes_of(config, root, roots.disks()?),
            layers: roots.into_layers(plain_wh_names),
            volumes: Volumes {
                list,
                ids: ids.squash_only(),
                mounts: RwLock::default(),
            },
            rules: rules_of(config, ids, shared_upper),
            others: Others {
                live,
                changes: OnceLock::new(),
                attributes: Attributes::default(),
            },
            streams: Streams::default(),
            writable,
            lost: AtomicI32::new(0),
            kernel_keeps_mtime: AtomicBool::new(false),
            renames: Mutex::new(()),
        };
        if let Some(work) = &config.work {
            union.adopt_index(work);
        }
        union.attach(&config.volumes, &sources)?;
        Ok(union)
    }
}

/// Returns the root of the merged tree.
fn root_of(roots: &Roots) -> Arc<Inode> {
    let node = Node::Dir(Box::new(DirNode {
        place: Mutex::new(None),
        watched: AtomicBool::new(false),
        state: Mutex::new(DirState {
            id: Some(NodeId::ROOT),
            upper: roots.upper.clone(),
            lowers: roots.lowers.clone(),
            ..DirState::default()
        }),
    }));
    let root = Inode::new(NodeId::ROOT, ROOT_INO, Kind::Dir, node);
    // It never goes away.
    root.lookups.store(1, Ordering::Relaxed);
    Arc::new(root)
}

/// Returns what watches layers that are edited, with the root as the first that it watches.
fn live_of(config: &Config, lowers: &[ReadOnlyDir], root: &Arc<Inode>) -> Setup<Option<Arc<Live>>> {
    if config.cache == CacheMode::Static {
        return Ok(None);
    }
    let live = Live::new(lowers).map_err(|errno| {
        SetupError::new(
            format!("cannot look at layers that are edited: {errno}"),
            "raise the number of descriptors (ulimit -n), or mount without cache=auto",
        )
        .caused_by(&errno)
    })?;
    if let Node::Dir(dir) = &root.node {
        lock(&dir.state).live = Some(live.dir(Arc::downgrade(root)));
    }
    Ok(Some(live))
}

fn nodes_of(config: &Config, root: Arc<Inode>, disks: Vec<Disk>) -> Nodes {
    let table = Table::new();
    table.add_lookup(&root);
    Nodes {
        numbers: Numbering::new(config.short_inos, disks),
        table,
        shared: DashMap::new(),
        root,
        notes: config.nfs_export.then(ForgottenNodes::default),
        name_changes: AtomicU64::new(0),
    }
}

fn rules_of(config: &Config, ids: IdMaps, shared_upper: bool) -> Rules {
    Rules {
        ids,
        volatile: config.volatile,
        noatime: config.noatime,
        redirect_dir: config.redirect_dir,
        no_acl: config.no_acl,
        no_xattrs: config.no_xattrs,
        static_nlink: config.static_nlink,
        cache: if shared_upper {
            CacheMode::Auto
        } else {
            config.cache
        },
        daemon: (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        ),
    }
}
