//! What is kept under an inode's lease.

use std::collections::HashMap;
use std::sync::Arc;

use granary_core::NodeId;

use crate::types::{Attr, Commit, Extent, FileType, Inline, Place, SetAttr};

/// Extents of a file with more are asked for each time.
const EXTENTS_MAX: usize = 4096;
/// Extended attributes kept of an inode, present or known to be missing.
const XATTRS_MAX: usize = 64;
/// What the kernel asks before each write, and what changing owner, size or content takes away.
const CAPABILITY: &[u8] = b"security.capability";

#[derive(Debug, Default)]
pub struct Inode {
    pub attr: Option<Attr>,
    pub extents: Option<Arc<[Extent]>>,
    /// As it came with the extents: see [`Inode::inline`].
    copy: Option<Inline>,
    pub target: Option<Arc<[u8]>>,
    xattrs: HashMap<Box<[u8]>, Option<Arc<[u8]>>>,
    /// Made by us: it has no extended attribute that we did not set, but for those that it inherits (`system.`).
    xattrs_known: bool,
    names: Option<Vec<Vec<u8>>>,
}

impl Inode {
    pub fn bytes(&self) -> usize {
        let xattrs: usize = self
            .xattrs
            .iter()
            .map(|(name, value)| 96 + name.len() + value.as_ref().map_or(0, |v| v.len()))
            .sum();
        let names: usize = self.names.iter().flatten().map(|name| 24 + name.len()).sum();
        size_of::<Inode>()
            + self.extents.as_ref().map_or(0, |e| e.len() * size_of::<Extent>())
            + self.copy.as_ref().map_or(0, |copy| copy.bytes.len())
            + self.target.as_ref().map_or(0, |t| t.len())
            + xattrs
            + names
    }

    pub fn put_attr(&mut self, attr: &Attr) {
        self.attr = Some(attr.clone());
    }

    /// We made it: it has no content and nothing but what was said.
    pub fn put_new(&mut self, attr: &Attr, target: &[u8]) {
        self.put_attr(attr);
        self.xattrs_known = true;
        match attr.kind {
            FileType::File => self.extents = Some(Arc::from([])),
            FileType::Symlink => self.target = Some(Arc::from(target)),
            _ => {}
        }
    }

    /// Kept are only extents that nobody else moves soon: what another node has staged goes into an object one day. What is in
    /// an object moves too, when another node compacts; who finds it gone asks by `extents_anew`.
    pub fn put_extents(&mut self, extents: &[Extent], node: NodeId) {
        let stays = |e: &Extent| match e.place {
            Place::Object { .. } => true,
            Place::Log { node: at, .. } | Place::StageFile { node: at } => at == node,
        };
        let keep = extents.len() <= EXTENTS_MAX && extents.iter().all(stays);
        self.extents = keep.then(|| Arc::from(extents));
    }

    pub fn put_inline(&mut self, copy: Option<&Inline>) {
        self.copy = copy.cloned();
    }

    /// The copy of its bytes that came last, if it is of the present content.
    pub fn inline(&self) -> Option<Inline> {
        let version = self.attr.as_ref()?.version;
        self.copy.clone().filter(|copy| copy.version == version)
    }

    /// After a commit of ours: the extents of a file that had none are those of the commit.
    pub fn committed(&mut self, attr: &Attr, commit: &Commit, node: NodeId) {
        self.put_attr(attr);
        self.copy = None;
        let empty = self.extents.as_ref().is_some_and(|e| e.is_empty());
        self.extents = None;
        let mut extents = commit.extents.clone();
        extents.sort_unstable_by_key(|e| e.offset);
        if empty && extents.is_sorted_by(|a, b| a.end() <= b.offset) {
            self.put_extents(&extents, node);
        }
        self.content_changed();
    }

    pub fn attributes_set(&mut self, attr: &Attr, set: &SetAttr) {
        self.put_attr(attr);
        if set.size.is_some() {
            self.extents = None;
            self.copy = None;
        }
        if set.size.is_some() || set.uid.is_some() || set.gid.is_some() {
            self.content_changed();
        }
        if set.mode.is_some() {
            // The mode and an access ACL are two views of one thing.
            self.forget_xattrs(|name| name.starts_with(b"system."));
        }
    }

    fn content_changed(&mut self) {
        if self.xattrs.get(CAPABILITY).is_some_and(Option::is_some) {
            self.forget_xattrs(|name| name == CAPABILITY);
        }
    }

    fn forget_xattrs(&mut self, which: impl Fn(&[u8]) -> bool) {
        self.names = None;
        let before = self.xattrs.len();
        self.xattrs.retain(|name, _| !which(name));
        if self.xattrs.len() != before {
            self.xattrs_known = false;
        }
    }

    /// `None`: unknown; `Some(None)`: it has none of this name.
    pub fn xattr(&self, name: &[u8]) -> Option<Option<Arc<[u8]>>> {
        match self.xattrs.get(name) {
            Some(value) => Some(value.clone()),
            None => (self.xattrs_known && !name.starts_with(b"system.")).then_some(None),
        }
    }

    pub fn put_xattr(&mut self, name: &[u8], value: Option<&[u8]>) {
        if self.xattrs.len() >= XATTRS_MAX && !self.xattrs.contains_key(name) {
            self.xattrs.clear();
            self.xattrs_known = false;
        }
        self.xattrs.insert(name.into(), value.map(Arc::from));
    }

    /// A change of ours. An ACL alters the mode, and other ACLs: nothing of that is guessed.
    pub fn xattr_set(&mut self, name: &[u8], value: Option<&[u8]>) {
        self.names = None;
        if name.starts_with(b"system.") {
            self.forget_xattrs(|name| name.starts_with(b"system."));
        } else {
            self.put_xattr(name, value);
        }
    }

    pub fn names(&self) -> Option<&Vec<Vec<u8>>> {
        self.names.as_ref()
    }

    pub fn put_names(&mut self, names: &[Vec<u8>]) {
        self.names = Some(names.to_vec());
    }

    /// Something changed in a way that is not known here.
    pub fn forget(&mut self) {
        *self = Inode::default();
    }
}
