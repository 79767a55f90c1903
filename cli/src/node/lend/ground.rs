//! What one connection is for: whose it is, which namespace, and where names lead in it.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use granary_cache::Tree;
use granary_cache::read::{NextUse, Reader};
use granary_cache::tree::lend::{LendLimits, LendWish, Lent};
use granary_core::{Error, Kind, NamespaceName, Result};
use granary_fuse::vfs::rights::{READ, Rights, SEARCH};
use granary_loader::node::wire::{FILES_MAX, FileOf, PIECE_BYTES};
use granary_meta::{Attr, FileType, Metadata, PackedSource};
use granary_packed::{SHARDS_NAME, manifest_of};
use granary_packer::manifest::{self, Manifest};
use granary_store::key::check_key;

use crate::exit::{Failure, Outcome};
use crate::node::peer::Peer;
use crate::node::warmup::walk::resolve;
use crate::node::{Node, blocking};
use crate::packed;

/// Entries of a folder that are looked through.
const ENTRIES_MAX: usize = 1 << 20;
/// Asked for at once.
const PAGE: usize = 1024;

/// Where names lead.
enum Root {
    /// Below this folder of the namespace.
    Folder(PathBuf),
    /// Into the data set that the namespace shows: its shards are files there under other names, and its manifest is not.
    Packed { source: PackedSource, manifest: (String, Bytes), files: HashMap<String, PathBuf> },
}

pub struct Ground {
    node: Arc<Node>,
    peer: Peer,
    name: NamespaceName,
    root: Root,
    /// Who asks, as the cache knows them; forgotten with the connection.
    reader: OnceLock<Reader>,
}

impl Ground {
    /// `root`: a namespace, and a folder of it.
    ///
    /// Errors: `NotFound` for a namespace that was not granted to the peer, as if it did not exist, and for one that is not open on this node.
    pub async fn open(node: Arc<Node>, peer: Peer, root: &str) -> Outcome<Ground> {
        let mut parts = root.splitn(3, '/');
        let (Some(kind), Some(leaf)) = (parts.next(), parts.next()) else {
            return Err(Failure::usage(format!(
                "granary://{root} names no namespace; give one, and a folder: granary://group/asr/sets/v1"
            )));
        };
        let name: NamespaceName = format!("{kind}/{leaf}").parse()?;
        let folder = parts.next().unwrap_or_default().trim_end_matches('/');
        let (who, asked) = (peer.clone(), name.clone());
        blocking(move || who.check(&asked)).await?;
        if node.mounts.table().tree(&name).is_none() {
            return Err(absent(&name));
        }
        let root = match node.mounts.table().packed(&name).filter(|_| folder.is_empty()) {
            Some(source) => Root::packed(source, &node).await?,
            None => {
                if !folder.is_empty() {
                    check_key(folder)?;
                }
                Root::Folder(PathBuf::from(folder))
            }
        };
        Ok(Ground { node, peer, name, root, reader: OnceLock::new() })
    }

    /// Where the data set itself is, for those who have keys of their own.
    pub fn source(&self) -> Option<&str> {
        match &self.root {
            Root::Folder(_) => None,
            Root::Packed { source, .. } => Some(&source.url),
        }
    }

    /// The namespace as it is open now, and what the peer may do there.
    fn now(&self) -> Result<(Arc<Tree>, Arc<dyn Metadata>, Rights)> {
        let table = self.node.mounts.table();
        let (Some(tree), Some(meta)) = (table.tree(&self.name), table.meta(&self.name)) else {
            return Err(Error::new(Kind::NotFound, absent(&self.name).message));
        };
        let lists = table.keeps_acls(&self.name);
        let (uid, gids, all) = (self.peer.uid, self.peer.gids.clone(), self.peer.administrator);
        Ok((tree, meta, Rights { uid, gids, all, lists }))
    }

    /// A file that the peer may read.
    async fn file(&self, name: &str) -> Result<(Arc<Tree>, Attr)> {
        check_key(name)?;
        let path = match &self.root {
            Root::Folder(folder) => folder.join(name),
            Root::Packed { files, .. } => files.get(name).cloned().ok_or_else(|| none(name))?,
        };
        let (tree, meta, rights) = self.now()?;
        let mut attr = resolve(&*meta, &rights, &path).await?;
        if attr.kind != FileType::File || !rights.may(&*meta, &attr, READ).await? {
            return Err(none(name));
        }
        tree.overlay(&mut attr);
        Ok((tree, attr))
    }

    /// `next`: of each piece that the range touches, when it is wanted again; empty: that is not known.
    pub async fn bytes(
        &self,
        name: &str,
        range: Range<u64>,
        limits: LendLimits,
        check: bool,
        next: &[u32],
    ) -> Result<Vec<Lent>> {
        if let Root::Packed { manifest: (key, bytes), .. } = &self.root
            && key == name
        {
            let end = range.end.min(range.start.saturating_add(limits.copy_bytes_max));
            if range.end > bytes.len() as u64 {
                return Err(Error::new(Kind::Invalid, format!("{name} has {} bytes", bytes.len())));
            }
            return Ok(vec![Lent::Bytes(bytes.slice(range.start as usize..end as usize))]);
        }
        let (tree, attr) = self.file(name).await?;
        // All trees of a node have one cache.
        let reader = self.reader.get_or_init(|| tree.reader());
        let first = range.start / PIECE_BYTES;
        let next = (!next.is_empty()).then_some(NextUse { reader, first, after_mib: next });
        tree.lend(&attr, LendWish { range, check, next }, limits).await
    }

    pub async fn length(&self, name: &str) -> Result<FileOf> {
        if let Some(file) = self.manifest().filter(|file| file.name == name) {
            return Ok(file);
        }
        let (_, attr) = self.file(name).await?;
        Ok(shown(name.to_owned(), &attr))
    }

    /// The regular files of one folder, in the order of their names.
    pub async fn files(&self, folder: &str, after: &str, max: u64) -> Result<Vec<FileOf>> {
        let within = folder.strip_suffix('/').ok_or_else(|| {
            Error::new(Kind::Invalid, format!("{folder:?} is no folder; give one with a slash at its end"))
        })?;
        let max = usize::try_from(max).unwrap_or(FILES_MAX).min(FILES_MAX);
        let root = match &self.root {
            Root::Folder(root) => root,
            Root::Packed { .. } => {
                let one = self.manifest().filter(|file| folder == manifest::FOLDER && *file.name > *after);
                return Ok(one.into_iter().take(max).collect());
            }
        };
        check_key(within)?;
        let (tree, meta, rights) = self.now()?;
        let dir = match resolve(&*meta, &rights, &root.join(within)).await {
            // As a bucket says it.
            Err(e) if e.kind() == Kind::NotFound => return Ok(Vec::new()),
            dir => dir?,
        };
        if dir.kind != FileType::Directory || !rights.may(&*meta, &dir, READ | SEARCH).await? {
            return Ok(Vec::new());
        }
        let (mut found, mut cookie, mut seen) = (BTreeMap::new(), 0, 0);
        loop {
            let page = meta.readdir(dir.ino, cookie, PAGE, true).await?;
            let Some(last) = page.last() else { break };
            (cookie, seen) = (last.cookie, seen + page.len());
            if seen > ENTRIES_MAX {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!("{folder} has more than {ENTRIES_MAX} entries"),
                ));
            }
            for entry in page {
                let Some(mut attr) = entry.attr.filter(|attr| attr.kind == FileType::File) else { continue };
                let Ok(name) = String::from_utf8(entry.name) else { continue };
                let name = format!("{folder}{name}");
                if *name > *after {
                    tree.overlay(&mut attr);
                    found.insert(name.clone(), shown(name, &attr));
                }
                if found.len() > max {
                    found.pop_last();
                }
            }
        }
        Ok(found.into_values().collect())
    }

    fn manifest(&self) -> Option<FileOf> {
        match &self.root {
            Root::Folder(_) => None,
            Root::Packed { manifest: (name, bytes), .. } => {
                Some(FileOf { name: name.clone(), bytes: bytes.len() as u64, modified_ms: 0 })
            }
        }
    }
}

impl Root {
    /// Of the version that the namespace shows.
    async fn packed(source: PackedSource, node: &Node) -> Outcome<Root> {
        let manifest = manifest_of(&packed::place(&source, &node.settings)?, &source).await?;
        let encoded = (manifest::key(manifest.version()), Bytes::from(manifest.encode()?));
        Ok(Root::Packed { source, manifest: encoded, files: shard_files(&manifest) })
    }
}

/// Where the namespace shows each file of the data set.
fn shard_files(manifest: &Manifest) -> HashMap<String, PathBuf> {
    let names = granary_packed::shards::file_names(manifest);
    let one = |(name, number, which): (String, u32, granary_packed::shards::Which)| {
        let shard = manifest.shards().get(number as usize)?;
        let key = match which {
            granary_packed::shards::Which::Tar => shard.path.clone(),
            granary_packed::shards::Which::Index => shard.index_path(),
        };
        Some((key, Path::new(OsStr::from_bytes(SHARDS_NAME)).join(name)))
    };
    names.into_iter().filter_map(one).collect()
}

fn shown(name: String, attr: &Attr) -> FileOf {
    FileOf { name, bytes: attr.size, modified_ms: attr.mtime.unix_ms() }
}

/// Whether it is not there, or not theirs to read, is nothing for them to learn.
fn none(name: &str) -> Error {
    Error::new(Kind::NotFound, format!("there is no {name}"))
}

/// Told to those only whom it was granted.
fn absent(name: &NamespaceName) -> Failure {
    Failure::of_kind(
        Kind::NotFound,
        format!("{name} is not mounted on this machine; mount it with `granary mount {name} DIR`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_packer::key::Grouping;
    use granary_packer::manifest::{Runs, Shard};

    #[test]
    fn each_file_of_a_data_set_has_a_name_in_the_mount() {
        let shard = |path: &str| Shard {
            path: path.to_owned(),
            bytes: 1,
            files: 1,
            samples: 1,
            index_bytes: 1,
            index_crc32c: 0,
            dead_samples: Runs::default(),
            dead_files: Runs::default(),
        };
        let shards = vec![shard("a/x.tar"), shard("b/x.tar"), shard("b/y.tar")];
        let manifest = Manifest::new(1, [1; 16], Grouping::Stem, "test", shards).unwrap();
        let files = shard_files(&manifest);
        assert_eq!(files.len(), 6);
        let at = |name: &str| files[name].to_str().unwrap().to_owned();
        assert_eq!(at("b/y.tar"), ".shards/y.tar");
        assert_eq!(at("b/x.gidx"), ".shards/000001-x.gidx");
        assert_eq!(at("a/x.tar"), ".shards/000000-x.tar");
    }
}
