//! Where each byte of a file is, and why: for a person, without a request to the store and without loading the file. What is
//! said is true for a moment.

use std::collections::BTreeMap;
use std::time::Duration;

use granary_core::id::object_key;
use granary_core::{Ino, Kind, Result};
use granary_meta::lease::{LeaseKind, Scope};
use granary_meta::{Attr, Extent, FileType, Place};

use crate::extent_map::{ExtentMap, Piece};
use crate::stage::Shape;
use crate::tree::Shared;

/// Stretches of one file that are told; of a file in more pieces the sums are of all the same.
const STRETCHES_MAX: usize = 10_000;
/// Entries of a directory that are asked for at once.
const PAGE: usize = 1024;

/// Where bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spot {
    /// Nowhere: they are zeros.
    Hole,
    /// In this node's stage log: not in the store yet.
    StageLog { segment: u64, offset: u64 },
    /// In this node's stage file of the file; `clean`: a copy of what is in the store.
    StageFile { clean: bool },
    /// In another node's stage.
    Peer { node: String },
    /// In an object, `cached` bytes of them in the node's cache.
    Object { key: String, offset: u64, cached: u64, chunks: Vec<u32> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub offset: u64,
    pub len: u64,
    pub spot: Spot,
}

/// Whether the kernel would read the file itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passes {
    Yes,
    /// Why not.
    No(&'static str),
}

/// What a read of everything would ask of the store now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub requests: u64,
    pub bytes: u64,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub size: u64,
    pub version: u64,
    pub stretches: Vec<Stretch>,
    /// There are more stretches than were listed.
    pub more: bool,
    /// The metadata has a copy of all of it.
    pub inline: bool,
    /// Bytes at each kind of place; names as [`Spot::name`] gives them.
    pub places: BTreeMap<&'static str, u64>,
    pub cost: Cost,
    pub passthrough: Passes,
    /// Whether the lease of a shared file is held; `None`: nobody else has the namespace.
    pub lease: Option<&'static str>,
    /// Somebody has it open.
    pub open: bool,
    /// Of what is not in the store: since when, and when it leaves by itself; no time: only when it is closed.
    pub waits: Option<Leaves>,
}

/// What is not in the store yet, and when it goes there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaves {
    pub since: Duration,
    pub left: Option<Duration>,
    /// The setting that says so.
    pub by: &'static str,
    /// Why it does not, if that fails.
    pub failing: Option<String>,
}

/// All files below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    pub places: BTreeMap<&'static str, u64>,
    pub inline_files: u64,
    pub cost: Cost,
    /// Directories and files that were left out, since the asker may not read them.
    pub unreadable: u64,
    /// There are more files than were looked at.
    pub more: bool,
}

impl Spot {
    /// In one word. Of an object's bytes those in the cache have a name of their own.
    pub fn name(&self) -> &'static str {
        match self {
            Spot::Hole => "hole",
            Spot::StageLog { .. } => "stage_log",
            Spot::StageFile { clean: false } => "stage_file",
            Spot::StageFile { clean: true } => "clean_copy",
            Spot::Peer { .. } => "peer",
            Spot::Object { .. } => "store",
        }
    }
}

/// What is known of a file here, else of the metadata.
pub(crate) struct Known {
    pub size: u64,
    version: u64,
    pub map: ExtentMap,
    pub shape: Option<Shape>,
    /// Something of it is not in the store.
    pub held: bool,
    open: bool,
    written_by_kernel: bool,
}

impl Shared {
    /// `Stale` or `NotFound` when the file is gone.
    pub(crate) async fn known(&self, ino: Ino) -> Result<Known> {
        if let Some(file) = self.table.find(ino) {
            let mut s = file.state();
            s.alive(ino)?;
            if file.is_current(&s) {
                return Ok(Known {
                    size: file.current_size(&mut s),
                    version: if s.is_held() { s.held_version } else { s.committed.version },
                    shape: s.stage.as_ref().map(|stage| stage.shape),
                    held: s.is_held(),
                    open: file.has_users(),
                    written_by_kernel: s.writers > 0 || s.stage.as_ref().is_some_and(|stage| stage.mapped),
                    map: s.map.clone(),
                });
            }
        }
        let (attr, extents) = self.meta.extents(ino).await?;
        let clean = self.clean.version(ino).filter(|&version| version == attr.version);
        Ok(Known {
            size: attr.size,
            version: attr.version,
            map: ExtentMap::of(self.node).with(extents),
            shape: clean.map(Shape::Clean),
            held: false,
            open: false,
            written_by_kernel: false,
        })
    }

    /// `Stale` or `NotFound` when the file is gone.
    pub(crate) async fn explain(&self, ino: Ino) -> Result<Explanation> {
        let known = self.known(ino).await?;
        let inline = !known.held
            && self.meta.inline(ino).await?.is_some_and(|copy| {
                copy.version == known.version && copy.bytes.len() as u64 == known.size && copy.is_sound()
            });
        let mut all = Explanation {
            size: known.size,
            version: known.version,
            stretches: Vec::new(),
            more: false,
            inline,
            places: BTreeMap::new(),
            cost: Cost::default(),
            passthrough: self.passes(&known),
            lease: self.many.then(|| self.lease_of(ino)),
            open: known.open,
            waits: None,
        };
        let complete = known.shape.filter(|shape| *shape != Shape::Sparse);
        if let Some(shape) = complete
            && known.size > 0
        {
            let clean = matches!(shape, Shape::Clean(_));
            all.add(Stretch { offset: 0, len: known.size, spot: Spot::StageFile { clean } });
        } else {
            for piece in known.map.resolve(0, known.size) {
                match piece {
                    Piece::Hole { offset, len } => all.add(Stretch { offset, len, spot: Spot::Hole }),
                    Piece::Data { part, .. } => self.explain_extent(&part, &mut all).await?,
                }
            }
        }
        all.waits = self.leaves(ino, &known);
        Ok(all)
    }

    async fn explain_extent(&self, part: &Extent, all: &mut Explanation) -> Result<()> {
        let spot = match part.place {
            Place::Log { node, segment, offset } if node == self.node => Spot::StageLog { segment, offset },
            Place::StageFile { node } if node == self.node => Spot::StageFile { clean: false },
            Place::Log { node, .. } | Place::StageFile { node } => Spot::Peer { node: node.to_string() },
            Place::Object { kind, id, offset } => {
                let info = self.object(id).await?;
                let range = offset..offset + part.len;
                let look = self.reads.look_up(&info, range);
                if !all.inline {
                    all.cost.requests += look.requests;
                    all.cost.bytes += look.fetch_bytes;
                }
                let key = object_key(self.ns, kind, id);
                Spot::Object { key, offset, cached: look.cached_bytes, chunks: look.chunks }
            }
        };
        all.add(Stretch { offset: part.offset, len: part.len, spot });
        Ok(())
    }

    fn lease_of(&self, ino: Ino) -> &'static str {
        match Scope::Inode(ino) {
            scope if self.meta.holds(scope, LeaseKind::Write) => "write",
            scope if self.meta.holds(scope, LeaseKind::Read) => "read",
            _ => "none",
        }
    }

    fn passes(&self, known: &Known) -> Passes {
        match known.shape {
            _ if self.many => {
                Passes::No("other nodes use the namespace too, so its files go through the node process")
            }
            Some(Shape::Whole | Shape::Clean(_)) => Passes::Yes,
            Some(Shape::Sparse) => Passes::No("the stage file has only what was changed"),
            None if known.size <= self.policy().small_file_bytes_max => {
                Passes::No("it is small: the page cache serves it")
            }
            None => Passes::No("no whole copy of it is on this node"),
        }
    }

    /// When what is in the stage goes to the store.
    fn leaves(&self, ino: Ino, known: &Known) -> Option<Leaves> {
        let (now, policy) = (self.clock.monotonic(), self.policy());
        let failing = self.status().error;
        let dirty_stage = known.shape.is_some_and(|shape| !matches!(shape, Shape::Clean(_)));
        if dirty_stage && let Some(large) = self.large(ino) {
            let period = Duration::from_millis(policy.large_period_ms);
            let left = (large.last_write + period).saturating_sub(now);
            return Some(Leaves {
                since: now.saturating_sub(large.last_write),
                left: (!known.written_by_kernel).then_some(left),
                by: "large_period_ms",
                failing,
            });
        }
        let in_log = |segment: u64| {
            known.map.iter().any(
                |e| matches!(e.place, Place::Log { node, segment: of, .. } if node == self.node && of == segment),
            )
        };
        let segments = self.log.sealed().into_iter().chain(self.log.active());
        let first = segments.filter(|info| in_log(info.id)).map(|info| info.first_at).min()?;
        let left = (first + Duration::from_millis(policy.small_period_ms)).saturating_sub(now);
        Some(Leaves { since: now.saturating_sub(first), left: Some(left), by: "small_period_ms", failing })
    }

    /// Sums over what is below a directory: at most `files_max` files, and only what `may` says that the asker may read.
    /// Memory is bounded by the tree's depth.
    pub(crate) async fn explain_below(
        &self,
        dir: Ino,
        files_max: u64,
        may: &(dyn Fn(&Attr) -> bool + Send + Sync),
    ) -> Result<Below> {
        let mut sum = Below::default();
        let mut path = vec![(dir, 0)];
        while let Some((dir, cookie)) = path.pop() {
            let page = match self.meta.readdir(dir, cookie, PAGE, true).await {
                // Removed meanwhile.
                Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => continue,
                page => page?,
            };
            let Some(last) = page.last() else { continue };
            let mut rest = Some(last.cookie);
            for entry in &page {
                let Some(attr) = &entry.attr else { continue };
                let is_directory = attr.kind == FileType::Directory;
                if !is_directory && attr.kind != FileType::File {
                    continue;
                }
                sum.directories += u64::from(is_directory);
                if !may(attr) {
                    sum.unreadable += 1;
                } else if is_directory {
                    // What is after it is asked for again, afterwards.
                    path.push((dir, entry.cookie));
                    path.push((attr.ino, 0));
                    rest = None;
                    break;
                } else if sum.files >= files_max {
                    sum.more = true;
                    return Ok(sum);
                } else {
                    self.add_file(attr.ino, &mut sum).await?;
                }
            }
            path.extend(rest.map(|cookie| (dir, cookie)));
        }
        Ok(sum)
    }

    async fn add_file(&self, ino: Ino, sum: &mut Below) -> Result<()> {
        let one = match self.explain(ino).await {
            Err(e) if matches!(e.kind(), Kind::Stale | Kind::NotFound) => return Ok(()),
            one => one?,
        };
        sum.files += 1;
        sum.bytes += one.size;
        sum.inline_files += u64::from(one.inline);
        sum.cost.requests += one.cost.requests;
        sum.cost.bytes += one.cost.bytes;
        for (place, bytes) in one.places {
            *sum.places.entry(place).or_default() += bytes;
        }
        Ok(())
    }
}

impl Explanation {
    fn add(&mut self, stretch: Stretch) {
        let (name, cached) = match &stretch.spot {
            Spot::Object { cached, .. } => ("store", *cached),
            spot => (spot.name(), 0),
        };
        for (name, bytes) in [("cache", cached), (name, stretch.len - cached)] {
            if bytes > 0 {
                *self.places.entry(name).or_default() += bytes;
            }
        }
        if self.stretches.len() < STRETCHES_MAX {
            self.stretches.push(stretch);
        } else {
            self.more = true;
        }
    }
}
