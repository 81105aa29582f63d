//! Unpacking the layers that are missing, several at a time, into an area.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::LoadProgress;
use super::plan::{ImagePlan, PlannedLayer};
use super::ready::{LayerBuilder, StagedLayer};
use crate::archive::{Compression, Digest, Expect, Limits, Unpack, keep, unpack};
use crate::store::base::{Area, Result, StoreError, ids::DiffId};
use crate::store::catalog::layers;
use crate::store::image::source::ImageSource;
use crate::sync::lock;

/// Layers that are unpacked at a time, at most: more would not make a disk faster, and each takes
/// memory.
const MOST_WORKERS: usize = 4;

/// What has to be done.
#[derive(Clone, Debug)]
pub(super) struct Job {
    layer: PlannedLayer,
    unpack: bool,
}

impl Job {
    /// Whether a tree comes of it.
    pub(super) fn unpacks(&self) -> bool {
        self.unpack
    }

    pub(super) fn is_of(&self, diff_id: &DiffId) -> bool {
        self.layer.diff_id == *diff_id
    }
}

/// The layers that are neither stored nor ready, and the archives of stored layers that are not
/// stored. The largest come first: then the last ones end together.
pub(super) fn missing(
    db: &Connection,
    plans: &[ImagePlan],
    ready: &BTreeMap<Digest, StagedLayer>,
) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut planned = BTreeSet::new();
    let mut trees = BTreeSet::new();
    for layer in plans.iter().flat_map(|plan| &plan.layers) {
        let key = key(layer);
        let diff_id = layer.diff_id;
        let is_ready = ready.get(&key).is_some_and(|ready| ready.has_tree)
            || ready
                .values()
                .any(|r| r.has_tree && r.blob.diff_id == diff_id);
        let has_tree =
            is_ready || trees.contains(&diff_id) || layers::find(db, &diff_id)?.is_some();
        let has_blob = match &layer.blob {
            Some((digest, size)) => {
                ready.contains_key(&key) || is_stored(db, layer, digest, *size)?
            }
            // Any archive of the layer will do.
            None => is_ready || !layers::blobs_of(db, &diff_id)?.is_empty(),
        };
        if (has_tree && has_blob) || !planned.insert(key) {
            continue;
        }
        trees.insert(diff_id);
        jobs.push(Job {
            layer: layer.clone(),
            unpack: !has_tree,
        });
    }
    Ok(jobs)
}

/// Whether an archive is stored.
///
/// # Errors
/// It is, and is not what the manifest says about it: the manifest is wrong.
fn is_stored(db: &Connection, layer: &PlannedLayer, digest: &Digest, size: u64) -> Result<bool> {
    let Some(blob) = layers::find_blob(db, digest)? else {
        return Ok(false);
    };
    check_compression(layer, blob.compression)?;
    if blob.diff_id == layer.diff_id && blob.size == size {
        return Ok(true);
    }
    Err(StoreError::malformed(
        format!(
            "layer {} is stored with {} bytes and diffID {}, not {size} bytes and {} as the image says",
            digest.short(),
            blob.size,
            blob.diff_id,
            layer.diff_id
        ),
        "the image is damaged or not the one expected: download or build it again",
    ))
}

/// What distinguishes layers of plans: the archive where it is known, else the layer.
fn key(layer: &PlannedLayer) -> Digest {
    match layer.blob {
        Some((digest, _)) => digest,
        None => layer.diff_id.digest(),
    }
}

/// Does all jobs. The first error ends it.
pub(super) fn run(
    source: &ImageSource,
    area: &Area,
    jobs: Vec<Job>,
    limits: &Limits,
    watch: &dyn LoadProgress,
    ready: &mut BTreeMap<Digest, StagedLayer>,
) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let mut sized = Vec::with_capacity(jobs.len());
    for job in jobs {
        let size = source.require(&job.layer.member)?.size;
        if let Some((_, expected)) = job.layer.blob
            && expected != size
        {
            return Err(StoreError::malformed(
                format!(
                    "layer '{}' has {size} bytes, not {expected} as its manifest says",
                    job.layer.member
                ),
                "the image is damaged or not the one expected: download or build it again",
            ));
        }
        sized.push((size, job));
    }
    sized.sort_by_key(|(size, _)| std::cmp::Reverse(*size));
    let workers = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(MOST_WORKERS)
        .min(sized.len());
    let work = Work {
        source,
        area,
        limits,
        watch,
        queue: Mutex::new(sized.into_iter().enumerate().collect()),
        done: Mutex::new(Vec::new()),
        failed: AtomicBool::new(false),
        failure: Mutex::new(None),
        first: ready.len(),
    };
    if workers <= 1 {
        work.go();
    } else {
        std::thread::scope(|scope| {
            for _ in 1..workers {
                scope.spawn(|| work.go());
            }
            work.go();
        });
    }
    if let Some(failure) = lock(&work.failure).take() {
        return Err(failure);
    }
    let done = std::mem::take(&mut *lock(&work.done));
    ready.extend(done);
    Ok(())
}

/// What the threads share. Lock order: each is held for one statement, none with another one.
struct Work<'a> {
    source: &'a ImageSource,
    area: &'a Area,
    limits: &'a Limits,
    watch: &'a dyn LoadProgress,
    queue: Mutex<VecDeque<(usize, (u64, Job))>>,
    done: Mutex<Vec<(Digest, StagedLayer)>>,
    failed: AtomicBool,
    failure: Mutex<Option<StoreError>>,
    /// The number of the first directory.
    first: usize,
}

impl Work<'_> {
    fn go(&self) {
        while !self.failed.load(Ordering::Relaxed) {
            let next = lock(&self.queue).pop_front();
            let Some((number, (size, job))) = next else {
                return;
            };
            match self.one(self.first + number, size, &job) {
                Ok(ready) => lock(&self.done).push((key(&job.layer), ready)),
                Err(error) => {
                    self.failed.store(true, Ordering::Relaxed);
                    lock(&self.failure).get_or_insert(error);
                }
            }
        }
    }

    fn one(&self, number: usize, size: u64, job: &Job) -> Result<StagedLayer> {
        let layer = &job.layer;
        let builder = LayerBuilder::begin(self.area, &format!("layer-{number}"), job.unpack)?;
        let progress = self.watch.begins(&layer.diff_id.short(), size);
        let reader = self.source.require(&layer.member)?.reader;
        let expect = Expect {
            digest: layer.blob.map(|(digest, _)| digest),
            diff_id: Some(layer.diff_id.digest()),
            compressed_size: Some(size),
            size: None,
        };
        let options = Unpack {
            expect,
            limits: *self.limits,
            keep: Some(builder.archive()),
            progress: &*progress,
            ..Unpack::default()
        };
        let got = match builder.tree() {
            Some(tree) => unpack(reader, tree, &options),
            None => keep(reader, &options),
        };
        let got = got.map_err(|error| {
            StoreError::failed(
                format_args!("layer {}", layer.diff_id.short()),
                error,
                "nothing was loaded; the file is damaged or not the one expected: download or build it again",
            )
        })?;
        check_compression(layer, got.compression)?;
        builder.end(&got)
    }
}

/// The media type and the first bytes have to agree: readers that trust one of them would see
/// different things.
fn check_compression(layer: &PlannedLayer, found: Compression) -> Result<()> {
    match layer.compression {
        Some(named) if named != found => Err(StoreError::malformed(
            format!(
                "layer {} is said to have compression {}, but has {}",
                layer.diff_id.short(),
                named.name(),
                found.name()
            ),
            "build the image again, with the right media types",
        )),
        _ => Ok(()),
    }
}
