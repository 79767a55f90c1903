//! What is only read.

use granary_core::{EntryName, Error, Ino, Kind, ObjectId, Result};

use super::view::{Records, View};
use super::{inline as copies, trash};
use crate::record::{Family, Key, Span, Value};
use crate::types::{Attr, DeadObject, DirEntry, Extent, Inline, LiveObject, ObjectInfo, Usage};

pub fn lookup(view: &mut dyn View, dir: Ino, name: EntryName<'_>) -> Result<Attr> {
    if let Some(entry) = view.entry(dir, name.as_bytes())? {
        return view.inode(entry.ino).map(|inode| inode.attr.clone());
    }
    if trash::is_name(dir, name.as_bytes()) {
        return view.inode(Ino::TRASH).map(|inode| inode.attr.clone());
    }
    view.directory(dir)?;
    Err(Error::new(Kind::NotFound, "the directory has no such entry"))
}

/// Entries with cookies above `cookie`, in order of cookies.
pub fn readdir(
    view: &mut dyn View,
    dir: Ino,
    cookie: u64,
    max: usize,
    with_attr: bool,
) -> Result<Vec<DirEntry>> {
    let mut out = Vec::new();
    if view.directory(dir)?.entries == 0 || cookie == u64::MAX || max == 0 {
        return Ok(out);
    }
    let from = Key::Listing(dir, cookie + 1);
    view.scan(Span::Of(Family::Listing, dir), Some(&from), &mut |key, value| {
        if let (Key::Listing(_, cookie), Value::Listing(listing)) = (key, value) {
            let (ino, kind, name) = (listing.ino, listing.kind, listing.name.into_vec());
            out.push(DirEntry { name, ino, kind, cookie, attr: None });
        }
        Ok(out.len() < max)
    })?;
    if with_attr {
        for entry in &mut out {
            entry.attr = Some(view.inode(entry.ino)?.attr.clone());
        }
    }
    Ok(out)
}

pub fn readlink(view: &mut dyn View, ino: Ino) -> Result<Vec<u8>> {
    match view.get(&Key::Target(ino))? {
        Some(Value::Target(target)) => Ok(target.to_vec()),
        _ => {
            view.inode(ino)?;
            Err(Error::new(Kind::Invalid, "it is no symlink"))
        }
    }
}

pub fn getxattr(view: &mut dyn View, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
    if view.inode(ino)?.xattr_names > 0
        && let Some(Value::Xattr(value)) = view.get(&Key::Xattr(ino, name.into()))?
    {
        return Ok(value.to_vec());
    }
    Err(Error::new(Kind::NoAttribute, "there is no such extended attribute"))
}

pub fn listxattr(view: &mut dyn View, ino: Ino) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    if view.inode(ino)?.xattr_names > 0 {
        view.scan(Span::Of(Family::Xattr, ino), None, &mut |key, _| {
            if let Key::Xattr(_, name) = key {
                names.push(name.into_vec());
            }
            Ok(true)
        })?;
    }
    Ok(names)
}

pub fn extents(view: &mut dyn View, ino: Ino) -> Result<(Attr, Vec<Extent>)> {
    let inode = view.inode(ino)?;
    let mut extents = inode.extents.clone();
    if inode.spilled > 0 {
        extents.reserve_exact(inode.spilled as usize);
        view.scan(Span::Of(Family::Extent, ino), None, &mut |_, value| {
            if let Value::Extent(extent) = value {
                extents.push(extent);
            }
            Ok(true)
        })?;
    }
    Ok((inode.attr.clone(), extents))
}

/// The copy of a tiny file's present content, if there is one. What is damaged counts as not being there: the object has the bytes.
pub fn inline(view: &mut dyn View, ino: Ino) -> Result<Option<Inline>> {
    let inode = view.inode(ino)?;
    if copies::whole(&inode).is_none() {
        return Ok(None);
    }
    match view.get(&Key::Inline(ino)) {
        Ok(Some(Value::Inline(copy))) if copy.version == inode.attr.version && copy.is_sound() => {
            Ok(Some(Inline::clone(&copy)))
        }
        Ok(_) => Ok(None),
        Err(e) if e.kind() == Kind::Corrupt => Ok(None),
        Err(e) => Err(e),
    }
}

pub fn parent(view: &mut dyn View, dir: Ino) -> Result<Ino> {
    view.directory(dir).map(|inode| inode.parent)
}

pub fn object(view: &mut dyn View, id: ObjectId) -> Result<ObjectInfo> {
    let record = view.find_object(id)?;
    record.map(|r| r.info).ok_or_else(|| Error::new(Kind::NotFound, format!("object {id} is not known here")))
}

pub fn dead_objects(view: &mut dyn View, max: usize) -> Result<Vec<DeadObject>> {
    let mut found = Vec::new();
    view.scan(Span::All(Family::Dead), None, &mut |key, _| {
        if found.len() >= max {
            return Ok(false);
        }
        if let Key::Dead(since, id) = key {
            found.push((since, id));
        }
        Ok(true)
    })?;
    found.into_iter().map(|(since, id)| Ok(DeadObject { object: object(view, id)?, since })).collect()
}

/// Objects that are not dead, after `after` in the order of their ids (`ObjectId(0)`: from the start), at most `max`.
pub fn live_objects(view: &mut dyn View, after: ObjectId, max: usize) -> Result<Vec<LiveObject>> {
    let mut found = Vec::new();
    view.scan(Span::All(Family::Object), Some(&Key::Object(after)), &mut |_, value| {
        if found.len() >= max {
            return Ok(false);
        }
        if let Value::Object(record) = value
            && record.dead_since.is_none()
            && record.info.id != after
        {
            found.push(LiveObject { object: record.info, live: record.live });
        }
        Ok(true)
    })?;
    Ok(found)
}

pub fn usage(view: &mut dyn View) -> Result<Usage> {
    let (counters, settings) = (view.counters()?, view.settings()?);
    let held = view.inode(Ino::TRASH)?.held;
    Ok(Usage {
        bytes: counters.bytes,
        inodes: counters.inodes,
        trash_bytes: held.bytes,
        trash_inodes: held.inodes,
        bytes_max: settings.bytes_max,
        inodes_max: settings.inodes_max,
    })
}

/// Inodes without a name that are not freed yet, at most `max`, after `after`.
pub fn orphans(view: &mut dyn View, after: Ino, max: usize) -> Result<Vec<Ino>> {
    let mut found = Vec::new();
    let from = Key::Orphan(Ino(after.0.saturating_add(1)));
    view.scan(Span::All(Family::Orphan), Some(&from), &mut |key, _| {
        if let Key::Orphan(ino) = key {
            found.push(ino);
        }
        Ok(found.len() < max)
    })?;
    Ok(found)
}
