//! What an answer does to what is kept: leases that come with it, values under them, own changes.

use std::sync::atomic::Ordering;

use granary_core::{Error, Ino, Kind, Result};

use super::cache::Cache;
use super::calls::{Pending, Waiter};
use super::held_locks::End;
use super::namespace::{CLOSE_AT_ONCE, RemoteNamespace, State};
use crate::call::{Answer, Call, Response};
use crate::lease::{LeaseKind, LockRequest, Lost, Scope};
use crate::machine::trash;
use crate::types::{Attr, FileType, RenameMode};

impl RemoteNamespace {
    /// An answer of the service, before who waits for it is woken.
    pub(super) fn apply(&self, pending: &Pending, response: &Response, alive: bool) {
        if let Some(usage) = &response.usage {
            self.set_usage(usage);
        }
        if !matches!(pending.call, Call::Sync) {
            self.answers.known.fetch_add(1, Ordering::SeqCst);
        }
        let mut state = self.state();
        let state = &mut *state;
        // An answer that is remembered from an earlier connection tells what was, not what is: nothing of it is kept.
        let kept = alive && !(pending.again && pending.call.changes());
        if kept {
            for &(scope, kind) in &response.grants {
                // What is on its way back was maybe granted before it arrived.
                if state.forgetting.contains_key(&scope) {
                    continue;
                }
                state.cache.grant(scope, kind);
                if let (Scope::Inode(ino), LeaseKind::Write) = (scope, kind) {
                    state.fenced.remove(ino);
                    state.unheard.remove(ino);
                }
            }
            let node = self.core.node;
            match &response.result {
                Ok(answer) => {
                    let touched = &response.touched[..];
                    Apply { cache: &mut state.cache, touched, node }.answer(&pending.call, answer);
                }
                Err(e) => apply_error(&mut state.cache, &pending.call, e),
            }
            // After the answer: they are later.
            response.touched.iter().for_each(|attr| state.cache.put_attr(attr));
        } else {
            forget(&mut state.cache, &pending.call, response);
        }
        self.done(state, pending, &response.result);
    }

    /// The call will never be answered.
    pub(super) fn failed(&self, pending: &Pending, e: &Error) {
        if super::calls::alters(&pending.call) && self.leases().0 > 0 {
            // Whether it was done is unknown, and so is what is true now.
            self.lose(Lost::Unheard);
        }
        self.done(&mut self.state(), pending, &Err(e.duplicate()));
    }

    /// What is to be counted, whatever is kept.
    fn done(&self, state: &mut State, pending: &Pending, result: &Result<Answer>) {
        let Pending { call, waiter, .. } = pending;
        match (call, result) {
            (Call::Create { open: true, .. } | Call::Tmpfile { .. }, Ok(Answer::Attr(attr))) => {
                state.opens.made(attr.ino);
            }
            // Those that nobody waits for tell the service what is counted here already.
            (Call::Open { .. }, _) if matches!(waiter, Waiter::None) => {}
            (Call::Open { ino }, result) => {
                state.opens.asked(*ino, result.is_ok());
            }
            (Call::Close { inos }, _) => {
                for ino in inos {
                    state.opens.closed(*ino);
                    // Without a name it is gone now, unless somebody else has it open: the service knows.
                    state.cache.with_inode(*ino, |inode| {
                        if inode.attr.as_ref().is_some_and(|attr| attr.nlink == 0) {
                            inode.forget();
                        }
                    });
                }
            }
            (Call::Forget { scopes }, _) => state.forgotten(scopes),
            (Call::Lease { ino }, result) => {
                for waiter in state.leasing.remove(ino).unwrap_or_default() {
                    let answer = match result {
                        Ok(Answer::Attr(attr)) => Ok(attr.clone()),
                        Ok(other) => Err(super::namespace::unexpected(other)),
                        Err(e) => Err(e.duplicate()),
                    };
                    // Who waited may have gone.
                    let _ = waiter.send(answer);
                }
            }
            _ => {}
        }
    }

    /// A program asks for a lock, or gives one back.
    pub(super) fn lock_begins(&self, ino: Ino, request: &LockRequest) {
        self.state().locks.begin(ino, request);
    }

    /// Its answer came, and who asked went away before he heard it.
    pub(super) fn lock_unheard(&self, ino: Ino, request: &LockRequest) {
        let mut state = self.state();
        for request in state.locks.unheard(ino, request) {
            self.tell(Call::Lock { ino, request });
        }
    }

    /// It is over: done, and told to the program or not; or not done.
    pub(super) fn lock_ended(&self, ino: Ino, request: &LockRequest, end: End) {
        let mut state = self.state();
        for request in state.locks.end(ino, request, end) {
            self.tell(Call::Lock { ino, request });
        }
    }

    /// Who waited for this answer has gone: what it gave is given back.
    pub(super) fn unclaimed(&self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Create { open: true, .. } | Call::Tmpfile { .. }, Answer::Attr(attr)) => {
                self.close_one(attr.ino)
            }
            (Call::Open { ino }, _) => self.close_one(*ino),
            _ => {}
        }
    }

    pub(super) fn close_one(&self, ino: Ino) {
        let mut state = self.state();
        if !state.opens.close(ino) {
            tracing::warn!("inode {ino} of namespace {} was closed more often than opened", self.info.name);
        }
        // Without a name it goes with this; what is not known may be so.
        let has_name = state.cache.attr(ino).is_some_and(|attr| attr.nlink > 0);
        if !has_name && let Some(ino) = state.opens.close_one(ino) {
            self.tell(Call::Close { inos: vec![ino] });
        }
        if state.opens.unused() >= CLOSE_AT_ONCE {
            self.tell_closed(&mut state);
        }
    }

    /// Tells the service of all that is not open any more.
    pub(super) fn tell_closed(&self, state: &mut State) {
        let inos = state.opens.close_all();
        if !inos.is_empty() {
            self.tell(Call::Close { inos });
        }
    }
}

/// Nothing of what a call concerns is known any more.
fn forget(cache: &mut Cache, call: &Call, response: &Response) {
    let mut inodes: Vec<Ino> = response.touched.iter().map(|attr| attr.ino).collect();
    let mut dirs: Vec<Ino> = Vec::new();
    match call {
        Call::Create { dir, .. }
        | Call::Tmpfile { dir, .. }
        | Call::Unlink { dir, .. }
        | Call::Rmdir { dir, .. } => dirs.push(*dir),
        Call::Link { ino, dir, .. } => {
            inodes.push(*ino);
            dirs.push(*dir);
        }
        Call::Rename { dir, to_dir, .. } => dirs.extend([*dir, *to_dir]),
        Call::SetAttr { ino, .. }
        | Call::SetXattr { ino, .. }
        | Call::RemoveXattr { ino, .. }
        | Call::Open { ino } => inodes.push(*ino),
        Call::Close { inos: closed } => inodes.extend(closed),
        Call::Commit(commit) => inodes.push(commit.ino),
        Call::CopyRange(copy) => inodes.push(copy.to),
        Call::Relocate { moves, .. } => inodes.extend(moves.iter().map(|m| m.ino)),
        _ => {}
    }
    match &response.result {
        Ok(Answer::Attr(attr) | Answer::Renamed(Some(attr)) | Answer::Extents(attr, ..)) => {
            inodes.push(attr.ino);
        }
        Ok(Answer::Copied(copied)) => inodes.push(copied.attr.ino),
        _ => {}
    }
    inodes.extend(&dirs);
    inodes.into_iter().for_each(|ino| cache.with_inode(ino, |inode| inode.forget()));
    dirs.into_iter().for_each(|dir| cache.with_directory(dir, |d| *d = Default::default()));
}

fn apply_error(cache: &mut Cache, call: &Call, e: &Error) {
    match (call, e.kind()) {
        (Call::Lookup { dir, name }, Kind::NotFound) => {
            cache.with_directory(*dir, |d| d.put_absent(name));
        }
        (Call::GetXattr { ino, name }, Kind::NoAttribute) => {
            cache.with_inode(*ino, |inode| inode.put_xattr(name, None));
        }
        _ => {}
    }
}

struct Apply<'a> {
    cache: &'a mut Cache,
    touched: &'a [Attr],
    node: granary_core::NodeId,
}

impl Apply<'_> {
    fn answer(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Lookup { dir, name }, Answer::Attr(attr)) => {
                self.cache.put_attr(attr);
                if trash::is_name(*dir, name) {
                    return;
                }
                self.cache.with_directory(*dir, |d| d.put(name, attr.ino, attr.kind));
            }
            (Call::ReadDir { dir, cookie, .. }, Answer::Entries(page)) => {
                page.iter().filter_map(|e| e.attr.as_ref()).for_each(|attr| self.cache.put_attr(attr));
                self.cache.with_directory(*dir, |d| d.put_page(*cookie, page));
            }
            (Call::ReadLink { ino }, Answer::Bytes(target)) => {
                self.cache.with_inode(*ino, |inode| inode.target = Some(target.as_slice().into()));
            }
            (Call::GetXattr { ino, name }, Answer::Bytes(value)) => {
                self.cache.with_inode(*ino, |inode| inode.put_xattr(name, Some(value)));
            }
            (Call::ListXattr { ino }, Answer::Names(names)) => {
                self.cache.with_inode(*ino, |inode| inode.put_names(names));
            }
            (Call::Extents { ino, .. }, Answer::Extents(attr, extents, copy)) => {
                self.cache.put_attr(attr);
                let node = self.node;
                self.cache.with_inode(*ino, |inode| {
                    inode.put_extents(extents, node);
                    inode.put_inline(copy.as_ref());
                });
            }
            (_, Answer::Attr(attr)) => self.changed(call, attr),
            _ => self.changed_without_attr(call, answer),
        }
    }

    /// An own change whose answer has the inode's attributes.
    fn changed(&mut self, call: &Call, attr: &Attr) {
        let node = self.node;
        match call {
            Call::Create { dir, name, new, .. } => {
                self.cache.with_inode(attr.ino, |inode| inode.put_new(attr, &new.target));
                self.cache.with_directory(*dir, |d| d.made(name, attr.ino, attr.kind));
            }
            Call::Tmpfile { .. } => self.cache.with_inode(attr.ino, |inode| inode.put_new(attr, &[])),
            Call::Link { dir, name, .. } => {
                self.cache.put_attr(attr);
                self.cache.with_directory(*dir, |d| d.made(name, attr.ino, attr.kind));
            }
            Call::Unlink { dir, name } | Call::Rmdir { dir, name } => {
                self.cache.put_attr(attr);
                self.cache.with_directory(*dir, |d| d.put_absent(name));
            }
            Call::SetAttr { set, .. } => {
                self.cache.with_inode(attr.ino, |inode| inode.attributes_set(attr, set));
            }
            Call::Commit(commit) => {
                self.cache.with_inode(attr.ino, |inode| inode.committed(attr, commit, node));
            }
            _ => self.cache.put_attr(attr),
        }
    }

    fn changed_without_attr(&mut self, call: &Call, answer: &Answer) {
        match (call, answer) {
            (Call::Rename { dir, name, to_dir, to_name, mode }, Answer::Renamed(replaced)) => {
                if let Some(attr) = replaced {
                    self.cache.put_attr(attr);
                }
                self.renamed((*dir, name), (*to_dir, to_name), *mode);
            }
            (Call::SetXattr { ino, name, value, .. }, Answer::Done) => {
                self.cache.with_inode(*ino, |inode| inode.xattr_set(name, Some(value)));
                self.changed_unless_told(*ino);
            }
            (Call::RemoveXattr { ino, name }, Answer::Done) => {
                self.cache.with_inode(*ino, |inode| inode.xattr_set(name, None));
                self.changed_unless_told(*ino);
            }
            (Call::Relocate { moves, .. }, _) => {
                for m in moves {
                    self.cache.with_inode(m.ino, |inode| inode.extents = None);
                }
            }
            (Call::CopyRange(copy), Answer::Copied(copied)) => {
                self.cache.with_inode(copy.to, |inode| {
                    inode.put_attr(&copied.attr);
                    inode.extents = None;
                });
            }
            _ => {}
        }
    }

    /// The call changed this inode's attributes: without the new ones none are known.
    fn changed_unless_told(&mut self, ino: Ino) {
        if !self.touched.iter().any(|attr| attr.ino == ino) {
            self.cache.with_inode(ino, |inode| inode.attr = None);
        }
    }

    fn entry(&mut self, (dir, name): (Ino, &[u8])) -> Option<(Ino, FileType)> {
        self.cache.directory(dir)?.entry(name)
    }

    /// What is at a name now; what is not known is forgotten.
    fn set_entry(&mut self, (dir, name): (Ino, &[u8]), entry: Option<(Ino, FileType)>) {
        self.cache.with_directory(dir, |d| match entry {
            Some((ino, kind)) => d.made(name, ino, kind),
            None => d.forget(name),
        });
    }

    fn renamed(&mut self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode) {
        let (source, target) = (self.entry(from), self.entry(to));
        if source.is_some() && source.map(|(ino, _)| ino) == target.map(|(ino, _)| ino) {
            // Two names of one inode: nothing happens, unless they are exchanged, which changes nothing either.
            return;
        }
        if let Some((ino, _)) = source {
            self.changed_unless_told(ino);
        }
        if let (RenameMode::Exchange, Some((ino, _))) = (mode, target) {
            self.changed_unless_told(ino);
        }
        self.set_entry(to, source);
        if mode == RenameMode::Exchange {
            self.set_entry(from, target);
        } else {
            self.cache.with_directory(from.0, |d| d.put_absent(from.1));
        }
    }
}
