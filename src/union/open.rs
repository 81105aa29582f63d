//! Putting a union together from directories, and proving beforehand that everything it will need
//! works.

use crate::union::config::cure_for_work;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock, RwLock};

use dashmap::DashMap;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::layer::dir::{Dir, LayerNo};
use crate::layer::marks::TRUSTED_PREFIX;
use crate::layer::marks::root::{
    KernelNamespaces, has_kernel_xattr, reads_plain_names, set_devices,
};
use crate::layer::probe::{keeps_stat_overrides, probe};
use crate::layer::stat::{BirthTime, Kind, Stat};
use crate::layer::stat_override::{StatOverride, StatOverrideForm, StatOverrides};
use crate::layer::xattr_name::XattrMapping;
use crate::layer::{FdCache, ReadOnlyDir, WritableDir};
use crate::sync::lock;
use crate::union::Union;
use crate::union::config::{CacheMode, Config, SetupError, WhiteoutForm};
use crate::union::copyup::publish_names::finish_publications;
use crate::union::idmap::IdMaps;
use crate::union::merge::hardlink::LayerLinks;
use crate::union::merge::layers::Layers;
use crate::union::merge::lookup::open_root;
use crate::union::merge::redirect::visible_roots;
use crate::union::node::changes::Attributes;
use crate::union::node::followers::Live;
use crate::union::node::forgotten::ForgottenNodes;
use crate::union::node::identity::{Disk, Numbering};
use crate::union::node::inode::{DirNode, DirState, Inode, Node, NodeId};
use crate::union::node::nodes::Nodes;
use crate::union::node::others::Others;
use crate::union::node::table::Table;
use crate::union::node::volumes::Volumes;
use crate::union::rules::Rules;
use crate::union::volume::attach::open_sources;
use crate::union::volume::list::Streams;
use crate::union::work::stage::WorkDir;
use crate::union::work::writable::Writable;

type Setup<T> = std::result::Result<T, SetupError>;

/// Descriptors that are not the cache's: standard streams, FUSE devices, the stage, system calls
/// under way.
const RESERVED_FDS: usize = 64;
/// Most descriptors worth keeping open.
const MOST_CACHED_FDS: usize = 8192;
/// The `st_ino` of the root, on every mount: no file of any layer has it.
const ROOT_INO: u64 = 1;

impl Union {
    /// Opens the layers, locks and empties the work directory, and proves by trying that the upper
    /// can store what the configuration asks for. Nothing in the upper's tree is changed but the
    /// markers on its root: of its whiteout form, and that it keeps owners and modes in xattrs.
    pub fn open(config: &Config) -> Setup<Self> {
        let layers = config.lowers.len()
            + config.data_only.len()
            + config.volumes.len()
            + usize::from(config.upper.is_some());
        let fds = FdCache::new(cached_fds(layers)?);
        let mut lowers = Vec::with_capacity(config.lowers.len());
        for (index, path) in config.lowers.iter().enumerate() {
            let number = LayerNo::try_from(index + 1)
                .map_err(|_| SetupError::new("more than 65534 lower layers", "use fewer layers"))?;
            let fd = open_root(path).map_err(|errno| cannot_open("lower layer", path, errno))?;
            lowers.push(ReadOnlyDir::root(number, fd, &fds));
        }
        let mut data_only = Vec::with_capacity(config.data_only.len());
        for path in &config.data_only {
            let fd = open_root(path).map_err(|errno| cannot_open("data layer", path, errno))?;
            data_only.push(ReadOnlyDir::root(LayerNo::MAX, fd, &fds));
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
        let (writable, plain_wh_names) = match (&upper, &config.upper) {
            (Some(root), Some(path)) if !config.read_only => {
                let writable = open_writable(config, root, path, &fds)?;
                let plain = writable.char_marks && has_plain_names(&writable, root, path)?;
                (Some(writable), plain)
            }
            (Some(root), _) => {
                let auto = config.whiteout == WhiteoutForm::Auto;
                (
                    None,
                    reads_plain_names(root) || (auto && has_kernel_xattr(root)),
                )
            }
            _ => (None, false),
        };
        let (volumes, sources): (Vec<_>, Vec<_>) =
            open_sources(&config.volumes)?.into_iter().unzip();
        let link_index = lowers.iter().map(|_| LayerLinks::default()).collect();
        let root = Arc::new(Inode {
            id: NodeId::ROOT,
            st_ino: ROOT_INO,
            kind: Kind::Dir,
            volume: None,
            birth: BirthTime::UNKNOWN,
            lookups: AtomicU64::new(1),
            xattrs: AtomicU64::new(0),
            node: Node::Dir(Box::new(DirNode {
                place: Mutex::new(None),
                watched: AtomicBool::new(false),
                state: Mutex::new(DirState {
                    id: Some(NodeId::ROOT),
                    upper: upper.clone(),
                    lowers: lowers.clone(),
                    ..DirState::default()
                }),
            })),
        });
        let table = Table::new();
        table.add_lookup(&root);
        let daemon = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        // A read-only view of an upper shows what another mount is writing there.
        let shared_upper = upper.is_some() && writable.is_none();
        let live = match config.cache {
            CacheMode::Auto => Some(Live::new(&lowers).map_err(|errno| {
                SetupError::new(
                    format!("cannot look at layers that are edited: {errno}"),
                    "raise the number of descriptors (ulimit -n), or mount without cache=auto",
                )
            })?),
            CacheMode::Static => None,
        };
        if let (Some(live), Node::Dir(dir)) = (&live, &root.node) {
            lock(&dir.state).live = Some(live.dir(Arc::downgrade(&root)));
        }
        let ids = IdMaps::new(config);
        let numbers = Numbering::new(config.short_inos, disks_of(upper.as_ref(), &lowers)?);
        let union = Self {
            layers: Layers {
                redirect_roots: visible_roots(upper.as_ref(), plain_wh_names, &lowers),
                lowers,
                data_only,
                upper,
                plain_wh_names,
                link_index,
                fds,
            },
            nodes: Nodes {
                numbers,
                table,
                shared: DashMap::new(),
                root,
                notes: config.nfs_export.then(ForgottenNodes::default),
                name_changes: AtomicU64::new(0),
            },
            volumes: Volumes {
                list: volumes,
                ids: ids.squash_only(),
                mounts: RwLock::default(),
            },
            rules: Rules {
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
                daemon,
            },
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

/// The disks of the layers' roots, the upper's first.
fn disks_of(upper: Option<&WritableDir>, lowers: &[ReadOnlyDir]) -> Setup<Vec<Disk>> {
    let disk_of = |dir: &Dir| -> rustix::io::Result<Disk> {
        Ok(Disk {
            device: dir.device()?,
            mixed: dir.is_overlay()?,
        })
    };
    let upper = upper.map_or(Ok(Disk::default()), |upper| disk_of(upper));
    std::iter::once(upper)
        .chain(lowers.iter().map(|lower| disk_of(lower)))
        .collect::<rustix::io::Result<_>>()
        .map_err(|errno| {
            SetupError::new(
                format!("cannot stat the root of a layer: {errno}"),
                "see whether its disk is healthy and mounted",
            )
        })
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

fn cannot_open(what: &str, path: &Path, errno: Errno) -> SetupError {
    SetupError::new(
        format!("cannot open {what} {}: {errno}", path.display()),
        match errno {
            Errno::NOENT => "create it, or correct the path",
            Errno::NOTDIR => "give a directory",
            Errno::ACCESS | Errno::PERM => "give a directory that you may read",
            _ => "see whether its disk is healthy and mounted",
        },
    )
}

fn open_writable(
    config: &Config,
    root: &WritableDir,
    path: &Path,
    fds: &Arc<FdCache>,
) -> Setup<Writable> {
    let Some(work) = &config.work else {
        return Err(SetupError::new(
            "an upper directory needs a work directory",
            "give one with --work, on the same file system",
        ));
    };
    let problem = |what: &str, errno: Errno| {
        SetupError::new(
            format!("{what} {}: {errno}", work.display()),
            cure_for_work(errno),
        )
    };
    let stage = WorkDir::open(work, fds, root.records().cloned())?;
    let disk_of = |dir: &WritableDir| match dir.stat() {
        Ok(stat) => Ok(stat.dev),
        Err(errno) => Err(problem("cannot stat upper or work directory", errno)),
    };
    if disk_of(root)? != disk_of(stage.dir())? {
        return Err(SetupError::new(
            format!(
                "work directory {} is not on the file system of the upper {}",
                work.display(),
                path.display()
            ),
            "give a work directory beside the upper",
        ));
    }
    finish_publications(root, stage.dir())
        .map_err(|errno| problem("cannot finish what a killed mount left in", errno))?;
    stage
        .empty()
        .map_err(|errno| problem("cannot empty work directory", errno))?;
    let mut abilities =
        probe(stage.dir()).map_err(|errno| problem("cannot write to work directory", errno))?;
    // What the kernel wrote with `userxattr`, it reads that way again: `trusted.` marks would mean
    // nothing to it.
    if abilities.overlay_xattrs.is_some() && KernelNamespaces::of(root).only_user() {
        abilities.overlay_xattrs = Some("user.");
    }
    let char_marks = match config.whiteout {
        WhiteoutForm::Wh if reads_plain_names(root) => {
            // Its `.wh.` names are ordinary entries: a whiteout of that form would be taken for
            // one.
            log::warn!(
                "{} was begun with whiteout=char and goes on with it",
                path.display()
            );
            true
        }
        WhiteoutForm::Wh => false,
        WhiteoutForm::Char => true,
        WhiteoutForm::Auto => {
            reads_plain_names(root) || (has_kernel_xattr(root) && abilities.whiteout_devices)
        }
    };
    let unable = |what: &str, cure: &str| {
        let disk = path.display();
        SetupError::new(format!("the file system of {disk} {what}"), cure)
    };
    if char_marks && !(abilities.whiteout_devices && abilities.overlay_xattrs.is_some()) {
        return Err(unable(
            "cannot store 0/0 devices and overlay xattrs",
            "mount with whiteout=wh (an upper that was begun with whiteout=char needs the rights it was begun with)",
        ));
    }
    if char_marks && !(abilities.exchange && abilities.rename_whiteout) {
        return Err(unable(
            "knows no RENAME_EXCHANGE and RENAME_WHITEOUT, which whiteouts that are devices need",
            "mount with whiteout=wh",
        ));
    }
    if config.redirect_dir && !abilities.rename_whiteout {
        return Err(unable(
            "knows no RENAME_WHITEOUT, which redirects need",
            "mount without redirect_dir=on",
        ));
    }
    if !char_marks && !abilities.whiteout_files {
        return Err(unable(
            "cannot store whiteouts",
            "use an upper on a POSIX file system (ext4, xfs, btrfs, tmpfs), or mount with whiteout=char",
        ));
    }
    if abilities.own_xattrs.is_none() && !config.no_xattrs {
        return Err(unable(
            "cannot store extended attributes",
            "use another file system for the upper, or mount with noxattrs (inode numbers then change at a remount)",
        ));
    }
    if !abilities.hard_links {
        log::warn!(
            "the file system of {} has no hard links: files of a layer that have several names cannot be changed",
            path.display()
        );
    }
    if let Some(records) = root.records() {
        begin_records(records, root, stage.dir(), path)?;
    }
    let trusted = abilities.own_xattrs == Some(TRUSTED_PREFIX);
    let form = root.records().map(|records| records.form());
    Ok(Writable {
        stage,
        abilities,
        char_marks,
        keeping: XattrMapping::of(form, trusted),
    })
}

/// The root of the upper, which says itself, or gets a mark now, whether owners and modes are kept
/// in xattrs.
fn upper_root(
    config: &Config,
    path: &Path,
    fd: std::os::fd::OwnedFd,
    fds: &Arc<FdCache>,
) -> Setup<WritableDir> {
    let fd = Arc::new(fd);
    let found = StatOverrides::of_root(&fd);
    let wanted = config.xattr_permissions.filter(|_| !config.read_only);
    let records = match (found, wanted) {
        (Some(found), Some(form)) if found.form() != form => {
            return Err(SetupError::new(
                format!(
                    "{} was begun with another form of xattr_permissions: it keeps owners and modes in {}",
                    path.display(),
                    String::from_utf8_lossy(found.xattr())
                ),
                format!("mount with xattr_permissions={}", number(found.form())),
            ));
        }
        (Some(found), None) if !config.read_only => {
            log::warn!(
                "{} was begun with xattr_permissions={} and goes on with it",
                path.display(),
                number(found.form())
            );
            Some(found)
        }
        (Some(found), _) => Some(found),
        (None, Some(form)) => {
            let perm = Stat::of_fd(&fd)
                .map_err(|errno| cannot_open("upper directory", path, errno))?
                .perm();
            Some(StatOverrides::new(form, perm))
        }
        (None, None) => None,
    };
    Ok(WritableDir::root_with(fd, fds, records))
}

/// The value of `xattr_permissions` for a form.
fn number(form: StatOverrideForm) -> u8 {
    match form {
        StatOverrideForm::Privileged => 1,
        StatOverrideForm::User => 2,
    }
}

/// Proves that records can be stored, and marks the upper as keeping them.
fn begin_records(
    records: &StatOverrides,
    root: &WritableDir,
    stage: &WritableDir,
    path: &Path,
) -> Setup<()> {
    let xattr = String::from_utf8_lossy(records.xattr());
    let cure = match records.form() {
        StatOverrideForm::Privileged => {
            "mount as root of the first user namespace, or with xattr_permissions=2"
        }
        StatOverrideForm::User => "use an upper on a file system with user xattrs",
    };
    let problem = |errno: Errno| {
        SetupError::new(
            format!(
                "cannot keep owners and modes of {} in {xattr}: {errno}",
                path.display()
            ),
            cure,
        )
    };
    match keeps_stat_overrides(stage) {
        Ok(true) => {}
        Ok(false) => return Err(problem(Errno::OPNOTSUPP)),
        Err(errno) => return Err(problem(errno)),
    }
    let is_marked = root
        .xattrs()
        .and_then(|xattrs| xattrs.get_opt(records.xattr()))
        .map_err(problem)?
        .is_some();
    if !is_marked {
        let this = root.this().map_err(problem)?;
        let stat = this.stat().map_err(problem)?;
        this.record(&StatOverride::of(&stat)).map_err(problem)?;
    }
    Ok(())
}

/// Whether `.wh.` names of the upper are ordinary: when devices were its whiteouts from the
/// beginning.
fn has_plain_names(writable: &Writable, root: &WritableDir, path: &Path) -> Setup<bool> {
    if reads_plain_names(root) || has_kernel_xattr(root) {
        return Ok(true);
    }
    let mut empty = true;
    let problem = |errno| {
        SetupError::new(
            format!(
                "cannot read and mark upper directory {}: {errno}",
                path.display()
            ),
            "give a directory that you may read and write",
        )
    };
    root.for_each(|_, _, _| empty = false).map_err(problem)?;
    let Some(prefix) = writable.abilities.own_xattrs.filter(|_| empty) else {
        return Ok(false);
    };
    set_devices(root, prefix).map_err(problem)?;
    Ok(true)
}
