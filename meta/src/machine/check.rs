//! Does a namespace contradict itself? For `granary fsck` and for every random test.
//!
//! Reads all records. Keeps a few dozen bytes for each inode, directory entry and object, so memory grows with the
//! namespace; at most [`PROBLEMS_MAX`] problems are told.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use granary_core::{Ino, ObjectId, Result, Timestamp};

use super::repair::{Count, Fix};
use super::view::{Records, View};
use super::{inline, trash};
use crate::record::inode::Held;
use crate::record::{Entry, Family, Inode, Key, Listing, Orphan, Span, Value};
use crate::types::{Extent, FileType, Place};

pub const PROBLEMS_MAX: usize = 1000;

/// One contradiction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub text: String,
    /// What it is about.
    pub ino: Option<Ino>,
    pub object: Option<ObjectId>,
    /// The count that is wrong, when that is all there is to it.
    pub fix: Option<Fix>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Problem {
    fn from(text: String) -> Problem {
        Problem { text, ino: None, object: None, fix: None }
    }
}

impl Problem {
    fn of(self, ino: Ino) -> Problem {
        Problem { ino: Some(ino), ..self }
    }

    fn in_object(self, id: ObjectId) -> Problem {
        Problem { object: Some(id), ..self }
    }

    fn mended_by(self, fix: Option<Fix>) -> Problem {
        Problem { fix, ..self }
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Checked {
    /// At most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
    /// There is one, told or not, that no count mends.
    pub broken: bool,
}

#[derive(Default)]
struct Found {
    checked: Checked,
    inodes: BTreeMap<Ino, Seen>,
    live: HashMap<ObjectId, u64>,
    bytes: u64,
    capabilities: u64,
    /// Files that have their name in a directory of the trash's kind.
    places: HashMap<Ino, Ino>,
    /// What lies below each directory that is in the trash, and the inodes there.
    held: BTreeMap<Ino, (u64, u64)>,
}

/// What is known of an inode while reading.
struct Seen {
    kind: FileType,
    nlink: u32,
    parent: Ino,
    name: Box<[u8]>,
    held: Held,
    entries: u64,
    next_cookie: u64,
    xattr_names: u32,
    spilled: u64,
    stored: u64,
    size: u64,
    /// A tiny file in the store: the version of its content, and its extent's checksum.
    whole: Option<(u64, u32)>,
    // Counted while reading.
    names: u32,
    subdirs: u32,
    has_entries: u64,
    has_xattr_names: u32,
    has_spilled: u64,
    has_stored: u64,
    last_end: u64,
    orphan: bool,
    target: bool,
}

impl Found {
    fn report(&mut self, problem: impl Into<Problem>) {
        let problem = problem.into();
        self.checked.broken |= problem.fix.is_none();
        if self.checked.problems.len() < PROBLEMS_MAX {
            self.checked.problems.push(problem);
        }
    }

    /// A count of the namespace.
    fn expect(&mut self, what: &str, (has, should): (u64, u64), count: Count) {
        if has != should {
            let text = format!("the namespace counts {has} {what}, it has {should}");
            let fix = Some(Fix { count, has, should });
            self.report(Problem::from(text).mended_by(fix));
        }
    }

    fn inode(&mut self, inode: &Inode) {
        let a = &inode.attr;
        let mut seen = Seen {
            kind: a.kind,
            nlink: a.nlink,
            parent: inode.parent,
            name: inode.name.clone(),
            held: inode.held,
            entries: inode.entries,
            next_cookie: inode.next_cookie,
            xattr_names: inode.xattr_names,
            spilled: inode.spilled,
            stored: a.stored,
            size: a.size,
            whole: inline::whole(inode).map(|e| (a.version, e.crc)),
            names: 0,
            subdirs: 0,
            has_entries: 0,
            has_xattr_names: 0,
            has_spilled: 0,
            has_stored: 0,
            last_end: 0,
            orphan: false,
            target: false,
        };
        for extent in &inode.extents {
            self.extent(a.ino, extent, &mut seen);
        }
        self.inodes.insert(a.ino, seen);
    }

    fn extent(&mut self, ino: Ino, extent: &Extent, seen: &mut Seen) {
        if extent.offset < seen.last_end || extent.end() > seen.size {
            let text =
                format!("inode {ino}: extent {extent:?} overlaps another or lies beyond size {}", seen.size);
            self.report(Problem::from(text).of(ino));
        }
        seen.last_end = extent.end();
        seen.has_stored += extent.len;
        self.count(extent);
    }

    fn count(&mut self, extent: &Extent) {
        self.bytes += extent.len;
        if let Place::Object { id, .. } = extent.place {
            *self.live.entry(id).or_default() += extent.len;
        }
    }
}

impl Found {
    /// Sums up what lies below each directory of the trash.
    fn measure_trash(&mut self) {
        let mut held = BTreeMap::new();
        for (&ino, seen) in &self.inodes {
            let dir = match seen.kind {
                FileType::Directory if ino.is_of_trash() && ino != Ino::TRASH && seen.names > 0 => {
                    seen.parent
                }
                FileType::Directory => continue,
                _ => match self.places.get(&ino) {
                    Some(dir) => *dir,
                    None => continue,
                },
            };
            for above in self.chain(dir) {
                let (bytes, inodes): &mut (u64, u64) = held.entry(above).or_default();
                *bytes += seen.has_stored;
                *inodes += 1;
            }
        }
        self.held = held;
    }

    /// From a directory up to the trash; empty when it is not in it.
    fn chain(&self, dir: Ino) -> Vec<Ino> {
        let (mut chain, mut at) = (vec![dir], dir);
        while at != Ino::TRASH {
            match self.inodes.get(&at) {
                Some(seen) if at.is_of_trash() && seen.nlink > 0 && chain.len() <= 2 * trash::DEPTH_MAX => {
                    at = seen.parent;
                    chain.push(at);
                }
                _ => return Vec::new(),
            }
        }
        chain
    }
}

fn check_trash(found: &mut Found) {
    let mut reports: Vec<Problem> = Vec::new();
    for (&ino, seen) in &found.inodes {
        if seen.kind != FileType::Directory {
            let place = found.places.get(&ino).filter(|dir| !found.chain(**dir).is_empty());
            let told = (seen.parent.0 != 0 && !found.chain(seen.parent).is_empty()).then_some(&seen.parent);
            if place != told {
                let text = format!("inode {ino} lies in trash directory {place:?}, and says {told:?}");
                reports.push(Problem::from(text).of(ino));
            }
            continue;
        }
        if !ino.is_of_trash() {
            if seen.parent.is_of_trash() && !found.chain(seen.parent).is_empty() {
                let text = format!("directory {ino} lies in the trash but was not made for it");
                reports.push(Problem::from(text).of(ino));
            }
            continue;
        }
        let (bytes, inodes) = found.held.get(&ino).copied().unwrap_or_default();
        if found.chain(ino).is_empty() {
            continue;
        }
        for (what, has, should, count) in [
            ("bytes", seen.held.bytes, bytes, Count::HeldBytes(ino)),
            ("inodes", seen.held.inodes, inodes, Count::HeldInodes(ino)),
        ] {
            if has != should {
                let text =
                    format!("directory {ino} of the trash counts {has} {what} below it, it has {should}");
                let fix = Some(Fix { count, has, should });
                reports.push(Problem::from(text).of(ino).mended_by(fix));
            }
        }
    }
    reports.into_iter().for_each(|problem| found.report(problem));
}

/// All contradictions found, up to [`PROBLEMS_MAX`]; an error when a record cannot be read.
pub fn check(view: &mut dyn View) -> Result<Vec<Problem>> {
    examine(view).map(|checked| checked.problems)
}

/// The same, and whether that is all.
pub fn examine(view: &mut dyn View) -> Result<Checked> {
    let mut found = Found::default();
    view.scan(Span::All(Family::Inode), None, &mut |_, value| {
        if let Value::Inode(inode) = value {
            found.inode(&inode);
        }
        Ok(true)
    })?;
    check_orphans(view, &mut found)?;
    check_extents(view, &mut found)?;
    check_attributes(view, &mut found)?;
    check_inline(view, &mut found)?;
    check_entries(view, &mut found)?;
    found.measure_trash();
    check_trash(&mut found);
    check_inodes(&mut found);
    check_objects(view, &mut found)?;
    view.settings()?;
    check_counters(view, &mut found)?;
    Ok(found.checked)
}

fn check_counters(view: &mut dyn View, found: &mut Found) -> Result<()> {
    let counters = view.counters()?;
    let (trash_bytes, trash_inodes) = found.held.get(&Ino::TRASH).copied().unwrap_or_default();
    let itself = u64::from(found.inodes.contains_key(&Ino::TRASH));
    let inodes = found.inodes.len() as u64 - itself - trash_inodes;
    found.expect("bytes", (counters.bytes, found.bytes.saturating_sub(trash_bytes)), Count::Bytes);
    found.expect("files with capabilities", (counters.capabilities, found.capabilities), Count::Capabilities);
    found.expect("inodes", (counters.inodes, inodes), Count::Inodes);
    let last_below = |end: Ino| found.inodes.range(..end).next_back().map(|(ino, _)| *ino);
    let lasts = [
        (last_below(Ino::TRASH), counters.next_ino, Count::NextIno),
        (last_below(Ino(u64::MAX)), counters.next_of_trash, Count::NextOfTrash),
    ];
    for (last, next, count) in lasts {
        if let Some(last) = last
            && (last.is_of_trash() || count == Count::NextIno)
            && last >= next
        {
            let text = format!("inode {last} is not below the next inode number {next}");
            let fix = Fix { count, has: next.0, should: last.0 + 1 };
            found.report(Problem::from(text).of(last).mended_by(Some(fix)));
        }
    }
    Ok(())
}

fn check_orphans(view: &mut dyn View, found: &mut Found) -> Result<()> {
    view.scan(Span::All(Family::Orphan), None, &mut |key, value| {
        let (Key::Orphan(ino), Value::Orphan(orphan)) = (key, value) else { return Ok(true) };
        match found.inodes.get_mut(&ino) {
            Some(seen) if orphan != Orphan::Remains => seen.orphan = true,
            None if orphan == Orphan::Remains => {}
            _ => {
                let text = format!("orphan {ino}: its record and its inode contradict each other");
                found.report(Problem::from(text).of(ino));
            }
        }
        Ok(true)
    })
}

fn check_extents(view: &mut dyn View, found: &mut Found) -> Result<()> {
    let mut remains = Vec::new();
    view.scan(Span::All(Family::Extent), None, &mut |key, value| {
        let (Key::Extent(ino, _), Value::Extent(extent)) = (key, value) else { return Ok(true) };
        match found.inodes.remove(&ino) {
            Some(mut seen) => {
                seen.has_spilled += 1;
                found.extent(ino, &extent, &mut seen);
                found.inodes.insert(ino, seen);
            }
            None => {
                found.count(&extent);
                if remains.last() != Some(&ino) {
                    remains.push(ino);
                }
            }
        }
        Ok(true)
    })?;
    for ino in remains {
        if view.get(&Key::Orphan(ino))?.is_none() {
            found.report(Problem::from(format!("inode {ino} is gone but has extents")).of(ino));
        }
    }
    Ok(())
}

fn check_inline(view: &mut dyn View, found: &mut Found) -> Result<()> {
    view.scan(Span::All(Family::Inline), None, &mut |key, value| {
        let (Key::Inline(ino), Value::Inline(copy)) = (key, value) else { return Ok(true) };
        let seen = found.inodes.get(&ino).filter(|seen| seen.size == copy.bytes.len() as u64);
        let is_of_it = seen
            .and_then(|seen| seen.whole)
            .is_some_and(|(version, crc)| version == copy.version && (crc == 0 || crc == copy.crc));
        if !is_of_it {
            let text = format!("inode {ino} has a copy of bytes that are not its content");
            found.report(Problem::from(text).of(ino));
        } else if !copy.is_sound() {
            let text = format!("inode {ino}: the copy of its bytes beside it is damaged");
            found.report(Problem::from(text).of(ino));
        }
        Ok(true)
    })
}

fn check_attributes(view: &mut dyn View, found: &mut Found) -> Result<()> {
    view.scan(Span::All(Family::Xattr), None, &mut |key, _| {
        let Key::Xattr(ino, name) = key else { return Ok(true) };
        match found.inodes.get_mut(&ino) {
            Some(seen) => {
                seen.has_xattr_names += name.len() as u32 + 1;
                found.capabilities += u64::from(*name == *super::xattrs::CAPABILITY);
            }
            None => {
                let text = format!("inode {ino} is gone but has an extended attribute");
                found.report(Problem::from(text).of(ino));
            }
        }
        Ok(true)
    })?;
    view.scan(Span::All(Family::Target), None, &mut |key, value| {
        let (Key::Target(ino), Value::Target(target)) = (key, value) else { return Ok(true) };
        match found.inodes.get_mut(&ino) {
            Some(seen) if seen.size == target.len() as u64 => seen.target = true,
            _ => {
                let text = format!("inode {ino} is gone or of another size but has a symlink target");
                found.report(Problem::from(text).of(ino));
            }
        }
        Ok(true)
    })
}

fn check_entries(view: &mut dyn View, found: &mut Found) -> Result<()> {
    let mut entries: Vec<(Ino, Box<[u8]>, Entry)> = Vec::new();
    view.scan(Span::All(Family::Entry), None, &mut |key, value| {
        if let (Key::Entry(dir, name), Value::Entry(entry)) = (key, value) {
            entries.push((dir, name, entry));
        }
        Ok(true)
    })?;
    let mut listings: HashMap<(Ino, u64), Listing> = HashMap::new();
    view.scan(Span::All(Family::Listing), None, &mut |key, value| {
        if let (Key::Listing(dir, cookie), Value::Listing(l)) = (key, value) {
            listings.insert((dir, cookie), l);
        }
        Ok(true)
    })?;
    for (dir, name, entry) in entries {
        let what = format!("entry {dir}/{}", name.escape_ascii());
        if dir.is_of_trash() && entry.kind != FileType::Directory {
            found.places.insert(entry.ino, dir);
        }
        let listing = Listing { ino: entry.ino, kind: entry.kind, name: name.clone() };
        if listings.remove(&(dir, entry.cookie)) != Some(listing) {
            let text = format!("{what}: the listing has something else under its cookie");
            found.report(Problem::from(text).of(entry.ino));
        }
        match found.inodes.get_mut(&dir) {
            Some(d) if d.kind == FileType::Directory && entry.cookie < d.next_cookie => {
                d.has_entries += 1;
                d.subdirs += u32::from(entry.kind == FileType::Directory);
            }
            _ => {
                let text = format!("{what}: the directory is gone, none, or its next cookie too small");
                found.report(Problem::from(text).of(dir));
            }
        }
        match found.inodes.get_mut(&entry.ino) {
            Some(i)
                if i.kind == entry.kind
                    && (i.kind != FileType::Directory
                        || i.parent == dir && (i.name.is_empty() || i.name == name)) =>
            {
                i.names += 1
            }
            _ => {
                let text = format!(
                    "{what}: inode {} is gone, of another type, of another name, or elsewhere",
                    entry.ino
                );
                found.report(Problem::from(text).of(dir));
            }
        }
    }
    for ((dir, cookie), _) in listings {
        let text = format!("directory {dir}: the listing has cookie {cookie} without an entry");
        found.report(Problem::from(text).of(dir));
    }
    Ok(())
}

fn check_inodes(found: &mut Found) {
    let mut reports: Vec<Problem> = Vec::new();
    for (ino, s) in &found.inodes {
        let mut expect = |what: &str, has: u64, should: u64, count: Option<Count>| {
            if has != should {
                let text = format!("inode {ino}: {what} is {has}, should be {should}");
                let fix = count.map(|count| Fix { count, has, should });
                reports.push(Problem::from(text).of(*ino).mended_by(fix));
            }
        };
        let is_dir = s.kind == FileType::Directory;
        let is_root = [Ino::ROOT, Ino::TRASH].contains(ino);
        let nlink = match (is_dir, s.names > 0 || is_root) {
            (true, true) => 2 + s.subdirs,
            (true, false) => 0,
            (false, _) => s.names,
        };
        // An inode without a name is freed, which nothing that is counted here may bring about.
        let links = (nlink > 0 && !s.orphan).then_some(Count::Links(*ino));
        // Fewer extents than were counted are bytes that are lost: no count mends that.
        let more = |has: u64, counted: u64, count: Count| (has > counted).then_some(count);
        expect("link count", u64::from(s.nlink), u64::from(nlink), links);
        expect("orphan record", u64::from(s.orphan), u64::from(nlink == 0), None);
        expect("names of a directory", u64::from(is_dir && s.names > 1), 0, None);
        expect("names of the root", u64::from(is_root && s.names > 0), 0, None);
        expect("count of entries", s.entries, s.has_entries, Some(Count::Entries(*ino)));
        let names = (u64::from(s.xattr_names), u64::from(s.has_xattr_names));
        expect("length of attributes' names", names.0, names.1, Some(Count::XattrNames(*ino)));
        let spilled = more(s.has_spilled, s.spilled, Count::Spilled(*ino));
        expect("count of extent records", s.spilled, s.has_spilled, spilled);
        expect("stored bytes", s.stored, s.has_stored, more(s.has_stored, s.stored, Count::Stored(*ino)));
        expect("symlink target", u64::from(s.target), u64::from(s.kind == FileType::Symlink), None);
        if is_dir && s.entries == s.has_entries {
            let should = s.entries.saturating_mul(super::DIRECTORY_ENTRY_BYTES);
            expect("size of a directory", s.size, should, Some(Count::Size(*ino)));
        }
    }
    if !found.inodes.contains_key(&Ino::ROOT) {
        reports.push(Problem::from("the root directory is missing".to_owned()).of(Ino::ROOT));
    }
    reports.into_iter().for_each(|problem| found.report(problem));
}

fn check_objects(view: &mut dyn View, found: &mut Found) -> Result<()> {
    let mut dead: HashMap<ObjectId, Timestamp> = HashMap::new();
    view.scan(Span::All(Family::Dead), None, &mut |key, _| {
        if let Key::Dead(since, id) = key
            && dead.insert(id, since).is_some()
        {
            found.report(Problem::from(format!("object {id} is listed dead twice")).in_object(id));
        }
        Ok(true)
    })?;
    view.scan(Span::All(Family::Object), None, &mut |key, value| {
        let (Key::Object(id), Value::Object(record)) = (key, value) else { return Ok(true) };
        let live = found.live.remove(&id).unwrap_or(0);
        let is_dead = record.dead_since.is_some();
        if record.live != live {
            let text = format!("object {id} counts {} live bytes, files have {live} in it", record.live);
            // Without any, it would be dead and deleted: that is not for a count to decide.
            let fix = Fix { count: Count::Live(id), has: record.live, should: live };
            let fix = (live > 0 && !is_dead).then_some(fix);
            found.report(Problem::from(text).in_object(id).mended_by(fix));
        }
        if is_dead != (record.live == 0) || dead.remove(&id) != record.dead_since {
            let text = format!("object {id} with {live} live bytes is in the wrong state");
            found.report(Problem::from(text).in_object(id));
        }
        Ok(true)
    })?;
    for (id, live) in std::mem::take(&mut found.live) {
        let text = format!("files have {live} bytes in object {id}, which is not known");
        found.report(Problem::from(text).in_object(id));
    }
    for (id, _) in dead {
        let text = format!("object {id} is listed dead but not known");
        found.report(Problem::from(text).in_object(id));
    }
    check_condemned(view, found)
}

fn check_condemned(view: &mut dyn View, found: &mut Found) -> Result<()> {
    let mut condemned = Vec::new();
    view.scan(Span::All(Family::Condemned), None, &mut |key, _| {
        if let Key::Condemned(id) = key {
            condemned.push(id);
        }
        Ok(true)
    })?;
    for id in condemned {
        if view.find_object(id)?.is_some() {
            let text = format!("object {id} was condemned but is known");
            found.report(Problem::from(text).in_object(id));
        }
    }
    Ok(())
}
