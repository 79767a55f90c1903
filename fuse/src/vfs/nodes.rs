//! Inodes that are open in a `work` mount: how the kernel does their I/O, and whether they lost their last name.
//!
//! An inode enters the table before its open is counted in the metadata and leaves it after its last close was counted, so
//! that an unlink always sees an open that could still need the bytes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use granary_cache::{Backing, File};
use granary_core::error::fail;
use granary_core::{Error, Ino, Kind, Result};

use super::iomode::{Event, Illegal, IoMode, Way};

const SHARDS: usize = 64;

/// What the adapter keeps for an inode whose stage file the kernel uses, shared by all its opens. Empty until the first
/// open registers the stage file with the kernel; dropped with the last passthrough handle.
#[derive(Debug, Default)]
pub struct Registration(Mutex<RegistrationState>);

#[derive(Debug, Default)]
enum RegistrationState {
    #[default]
    NotYet,
    Done(Arc<dyn Any + Send + Sync>),
    Refused,
}

impl Registration {
    /// Of something that is registered already.
    pub fn done(thing: Arc<dyn Any + Send + Sync>) -> Registration {
        Registration(Mutex::new(RegistrationState::Done(thing)))
    }

    /// The registered thing; made by `register` if this is the first open. `None`: the kernel refused, now or before.
    /// The lock is held during `register` (one ioctl), so that two opens at once register one.
    pub fn get<T: Send + Sync + 'static, E>(
        &self,
        register: impl FnOnce() -> std::result::Result<T, E>,
    ) -> std::result::Result<Option<Arc<T>>, E> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            RegistrationState::Refused => Ok(None),
            RegistrationState::Done(thing) => Ok(Arc::downcast(thing.clone()).ok()),
            RegistrationState::NotYet => match register() {
                Ok(thing) => {
                    let thing = Arc::new(thing);
                    *state = RegistrationState::Done(thing.clone());
                    Ok(Some(thing))
                }
                Err(e) => {
                    *state = RegistrationState::Refused;
                    Err(e)
                }
            },
        }
    }
}

/// The right to let the kernel use a stage file.
#[derive(Clone, Debug)]
pub struct Grant {
    pub backing: Backing,
    pub registration: Arc<Registration>,
}

/// What an open would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub passthrough: bool,
    pub write: bool,
    /// Without passthrough: past the page cache.
    pub direct: bool,
}

#[derive(Debug, Default)]
struct Node {
    /// Opens that are being made, are there, or are being closed.
    users: u32,
    /// It lost its last name; the last user drops its staged bytes.
    unlinked: bool,
    mode: IoMode,
    grant: Option<Grant>,
    file: Option<Arc<File>>,
}

#[derive(Debug)]
pub struct Nodes {
    /// Each guards its inodes' states. Held over `begin_passthrough` (a look at a local file), never over a store request.
    shards: Vec<Mutex<HashMap<u64, Node>>>,
}

impl Default for Nodes {
    fn default() -> Nodes {
        Nodes { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

fn bug(ino: Ino, illegal: Illegal) -> Error {
    Error::new(Kind::Bug, format!("inode {ino}: {illegal:?}"))
}

impl Nodes {
    fn shard(&self, ino: Ino) -> MutexGuard<'_, HashMap<u64, Node>> {
        self.shards[ino.0 as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An open begins; matched by one [`Nodes::leave`].
    pub fn enter(&self, ino: Ino) {
        self.shard(ino).entry(ino.0).or_default().users += 1;
    }

    /// Whether it has one user at most.
    pub fn is_last(&self, ino: Ino) -> bool {
        self.shard(ino).get(&ino.0).is_none_or(|node| node.users <= 1)
    }

    /// A user is gone. `true`: it was the last one of an inode without names, whose staged bytes may be dropped.
    pub fn leave(&self, ino: Ino) -> bool {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(&ino.0) else { return false };
        node.users -= 1;
        if node.users > 0 {
            return false;
        }
        let node = shard.remove(&ino.0);
        drop(shard);
        node.is_some_and(|node| node.unlinked)
    }

    /// The inode lost its last name. `false`: nobody has it open.
    pub fn unlinked(&self, ino: Ino) -> bool {
        match self.shard(ino).get_mut(&ino.0) {
            Some(node) => {
                node.unlinked = true;
                true
            }
            None => false,
        }
    }

    /// The inode gets a name (again). `true`: it had none and is open, so it would have gone with its last user.
    pub fn named(&self, ino: Ino) -> bool {
        match self.shard(ino).get_mut(&ino.0) {
            Some(node) => std::mem::replace(&mut node.unlinked, false),
            None => false,
        }
    }

    /// Whether a handle of the inode goes through the page cache.
    pub fn has_cached(&self, ino: Ino) -> bool {
        let shard = self.shard(ino);
        shard
            .get(&ino.0)
            .is_some_and(|node| matches!(node.mode, IoMode::Requests { cached, .. } if cached > 0))
    }

    /// The file, if it is open.
    pub fn file(&self, ino: Ino) -> Option<Arc<File>> {
        self.shard(ino).get(&ino.0)?.file.clone()
    }

    /// Decides how an open of `file` goes, and counts it. The caller has entered.
    pub fn settle(&self, ino: Ino, file: &Arc<File>, wish: Wish) -> Result<(Way, Option<Grant>)> {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(&ino.0) else {
            return Err(Error::new(Kind::Bug, format!("inode {ino} is settled before it is entered")));
        };
        let must = node.mode.must_pass();
        if must || (wish.passthrough && node.mode.may_pass()) {
            if let Some(backing) = file.begin_passthrough(wish.write)? {
                let way = Way::Passthrough { write: wish.write };
                node.mode = node.mode.step(Event::Open(way)).map_err(|e| bug(ino, e))?;
                let grant = node.grant.get_or_insert_with(|| Grant { backing, registration: Arc::default() });
                let grant = grant.clone();
                node.file.get_or_insert_with(|| file.clone());
                return Ok((way, Some(grant)));
            }
            if must {
                // The kernel would answer EIO to an open of another kind.
                return fail(
                    Kind::QuotaExceeded,
                    "the file is being used from the node's disk, and the quota leaves no room to write it that way; \
                     close its readers, or ask for more",
                );
            }
        }
        let way = if wish.direct { Way::Direct } else { Way::Cached };
        node.mode = node.mode.step(Event::Open(way)).map_err(|e| bug(ino, e))?;
        node.file.get_or_insert_with(|| file.clone());
        Ok((way, None))
    }

    /// Counts a handle that the kernel has of another process's time, as it is. The caller has entered. `grant` is
    /// asked for the first that goes by passthrough: the inode's registration is one.
    pub fn inherit(
        &self,
        ino: Ino,
        file: &Arc<File>,
        way: Way,
        grant: impl FnOnce() -> Option<Grant>,
    ) -> Result<()> {
        let mut shard = self.shard(ino);
        let node = shard.entry(ino.0).or_default();
        node.mode = node.mode.step(Event::Open(way)).map_err(|e| bug(ino, e))?;
        node.file.get_or_insert_with(|| file.clone());
        if node.grant.is_none() {
            node.grant = grant();
        }
        Ok(())
    }

    /// The kernel did not take the stage file for one of the inode's opens: from now on they go through the page cache.
    pub fn refused(&self, ino: Ino) -> Result<()> {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(&ino.0) else { return Err(bug(ino, Illegal::RefusalOfNothing)) };
        node.mode = node.mode.step(Event::Refused).map_err(|e| bug(ino, e))?;
        let grant = node.grant.take();
        drop(shard);
        drop(grant); // closes a descriptor, outside the lock
        Ok(())
    }

    /// A handle that was settled is released (the user leaves later, when all is closed).
    pub fn release(&self, ino: Ino, way: Way) -> Result<()> {
        let mut shard = self.shard(ino);
        let Some(node) = shard.get_mut(&ino.0) else { return Err(bug(ino, Illegal::ReleaseOfNothing)) };
        node.mode = node.mode.step(Event::Release(way)).map_err(|e| bug(ino, e))?;
        let grant = if node.mode == IoMode::None { node.grant.take() } else { None };
        drop(shard);
        drop(grant); // an ioctl and a descriptor, outside the lock
        Ok(())
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap().len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlinked_inode_is_forgotten_by_its_last_user() {
        let nodes = Nodes::default();
        let ino = Ino(9);
        assert!(!nodes.unlinked(ino), "nobody has it open");
        nodes.enter(ino);
        nodes.enter(ino);
        assert!(nodes.unlinked(ino));
        assert!(!nodes.leave(ino));
        assert!(nodes.leave(ino));
        assert_eq!(nodes.len(), 0);
        nodes.enter(ino);
        assert!(!nodes.leave(ino), "a new use starts anew");
        nodes.enter(ino);
        assert!(!nodes.named(ino), "it has a name");
        assert!(nodes.unlinked(ino) && nodes.named(ino));
        assert!(!nodes.leave(ino), "it got a name while it was open");
        assert!(!nodes.named(ino), "nobody has it open");
    }

    #[test]
    fn a_refusal_is_remembered_and_a_registration_is_shared() {
        let r = Registration::default();
        assert_eq!(*r.get(|| Ok::<_, ()>(7_u32)).unwrap().unwrap(), 7);
        assert_eq!(*r.get(|| Ok::<_, ()>(8_u32)).unwrap().unwrap(), 7);
        let r = Registration::default();
        assert_eq!(r.get(|| Err::<u32, _>("no")), Err("no"));
        assert_eq!(r.get(|| Ok::<_, &str>(8_u32)), Ok(None));
    }
}
