//! How the kernel does the I/O of one inode while it is open. One inode has one way at a time, and an open that does not fit
//! fails with EIO in the program, so every open is decided here, and what must never happen has a name.
//!
//! The kernel's rules (Linux 6.9 to 6.18, `fs/fuse/iomode.c`):
//!
//! | open so far | cached | direct | passthrough |
//! |---|---|---|---|
//! | nothing | yes | yes | yes |
//! | cached | yes | yes | EIO |
//! | direct | yes | yes | yes, but a shared mapping of a direct handle makes the inode cached without telling us |
//! | passthrough | EIO | EIO | yes, with the same backing id |
//!
//! So passthrough is only given to an inode that nobody has open, or has open by passthrough.

/// The ways a handle's reads and writes can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Through the page cache.
    Cached,
    /// Each call is a request, nothing is kept in the page cache.
    Direct,
    /// The kernel uses the stage file itself.
    Passthrough { write: bool },
}

/// What all handles of an inode do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IoMode {
    /// Nobody has it open: the next open chooses.
    #[default]
    None,
    /// Handles through requests: `cached + direct > 0`.
    Requests { cached: u32, direct: u32 },
    /// `readers + writers > 0`, all with one backing id.
    Passthrough { readers: u32, writers: u32 },
}

/// What happens to an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    Open(Way),
    Release(Way),
    /// The kernel would not take the stage file; no handle was opened with it. All of them go through the page cache.
    Refused,
}

/// A move that would make the kernel answer EIO, or that shows that we lost count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Illegal {
    /// Passthrough while other handles use the page cache or may map through it.
    PassthroughAmongRequests,
    /// Any other way while the kernel uses the stage file.
    RequestsAmongPassthrough,
    /// A release of a handle that is not counted.
    ReleaseOfNothing,
    /// A refusal when no passthrough was being set up.
    RefusalOfNothing,
}

impl IoMode {
    /// Whether a new open may go by passthrough.
    pub fn may_pass(self) -> bool {
        !matches!(self, IoMode::Requests { .. })
    }

    /// Whether a new open must go by passthrough.
    pub fn must_pass(self) -> bool {
        matches!(self, IoMode::Passthrough { .. })
    }

    pub fn step(self, event: Event) -> Result<IoMode, Illegal> {
        use IoMode::{None, Passthrough, Requests};
        match (self, event) {
            (None, Event::Open(Way::Cached)) => Ok(Requests { cached: 1, direct: 0 }),
            (None, Event::Open(Way::Direct)) => Ok(Requests { cached: 0, direct: 1 }),
            (None, Event::Open(Way::Passthrough { write: false })) => {
                Ok(Passthrough { readers: 1, writers: 0 })
            }
            (None, Event::Open(Way::Passthrough { write: true })) => {
                Ok(Passthrough { readers: 0, writers: 1 })
            }
            (Requests { cached, direct }, Event::Open(Way::Cached)) => {
                Ok(Requests { cached: cached + 1, direct })
            }
            (Requests { cached, direct }, Event::Open(Way::Direct)) => {
                Ok(Requests { cached, direct: direct + 1 })
            }
            (Requests { .. }, Event::Open(Way::Passthrough { .. })) => Err(Illegal::PassthroughAmongRequests),
            (Passthrough { readers, writers }, Event::Open(Way::Passthrough { write: false })) => {
                Ok(Passthrough { readers: readers + 1, writers })
            }
            (Passthrough { readers, writers }, Event::Open(Way::Passthrough { write: true })) => {
                Ok(Passthrough { readers, writers: writers + 1 })
            }
            (Passthrough { .. }, Event::Open(_)) => Err(Illegal::RequestsAmongPassthrough),

            (Requests { cached, direct }, Event::Release(Way::Cached)) => {
                requests(cached.checked_sub(1), Some(direct))
            }
            (Requests { cached, direct }, Event::Release(Way::Direct)) => {
                requests(Some(cached), direct.checked_sub(1))
            }
            (Passthrough { readers, writers }, Event::Release(Way::Passthrough { write: false })) => {
                passthrough(readers.checked_sub(1), Some(writers))
            }
            (Passthrough { readers, writers }, Event::Release(Way::Passthrough { write: true })) => {
                passthrough(Some(readers), writers.checked_sub(1))
            }
            (_, Event::Release(_)) => Err(Illegal::ReleaseOfNothing),

            (Passthrough { readers, writers }, Event::Refused) => {
                Ok(Requests { cached: readers + writers, direct: 0 })
            }
            // The second of two opens that were refused at once: the first one changed the mode for both.
            (Requests { cached, .. }, Event::Refused) if cached > 0 => Ok(self),
            (_, Event::Refused) => Err(Illegal::RefusalOfNothing),
        }
    }
}

fn requests(cached: Option<u32>, direct: Option<u32>) -> Result<IoMode, Illegal> {
    match (cached, direct) {
        (Some(0), Some(0)) => Ok(IoMode::None),
        (Some(cached), Some(direct)) => Ok(IoMode::Requests { cached, direct }),
        _ => Err(Illegal::ReleaseOfNothing),
    }
}

fn passthrough(readers: Option<u32>, writers: Option<u32>) -> Result<IoMode, Illegal> {
    match (readers, writers) {
        (Some(0), Some(0)) => Ok(IoMode::None),
        (Some(readers), Some(writers)) => Ok(IoMode::Passthrough { readers, writers }),
        _ => Err(Illegal::ReleaseOfNothing),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const READ: Way = Way::Passthrough { write: false };
    const WRITE: Way = Way::Passthrough { write: true };

    #[test]
    fn the_kernels_table() {
        let open = |mode: IoMode, way| mode.step(Event::Open(way));
        let cached = open(IoMode::None, Way::Cached).unwrap();
        let direct = open(IoMode::None, Way::Direct).unwrap();
        let pass = open(IoMode::None, READ).unwrap();
        assert!(open(cached, Way::Direct).is_ok() && open(direct, Way::Cached).is_ok());
        assert_eq!(open(cached, WRITE), Err(Illegal::PassthroughAmongRequests));
        assert_eq!(open(direct, READ), Err(Illegal::PassthroughAmongRequests));
        assert_eq!(open(pass, Way::Cached), Err(Illegal::RequestsAmongPassthrough));
        assert_eq!(open(pass, Way::Direct), Err(Illegal::RequestsAmongPassthrough));
        assert_eq!(open(pass, WRITE), Ok(IoMode::Passthrough { readers: 1, writers: 1 }));
        assert_eq!(IoMode::None.step(Event::Release(Way::Cached)), Err(Illegal::ReleaseOfNothing));
        assert_eq!(cached.step(Event::Release(Way::Direct)), Err(Illegal::ReleaseOfNothing));
        assert_eq!(pass.step(Event::Release(WRITE)), Err(Illegal::ReleaseOfNothing));
        assert_eq!(IoMode::None.step(Event::Refused), Err(Illegal::RefusalOfNothing));
        assert_eq!(direct.step(Event::Refused), Err(Illegal::RefusalOfNothing));
    }

    #[test]
    fn a_refusal_turns_all_opens_of_the_inode_to_the_page_cache() {
        let two = IoMode::None.step(Event::Open(WRITE)).unwrap().step(Event::Open(READ)).unwrap();
        let refused = two.step(Event::Refused).unwrap();
        assert_eq!(refused, IoMode::Requests { cached: 2, direct: 0 });
        assert_eq!(refused.step(Event::Refused), Ok(refused));
        let rest = refused.step(Event::Release(Way::Cached)).unwrap();
        assert_eq!(rest.step(Event::Release(Way::Cached)), Ok(IoMode::None));
    }

    fn way() -> impl Strategy<Value = Way> {
        prop_oneof![Just(Way::Cached), Just(Way::Direct), Just(READ), Just(WRITE)]
    }

    proptest! {
        /// Opens that ask first (`may_pass`, `must_pass`) never meet an illegal move, and after the last release the
        /// next open chooses again.
        #[test]
        fn asking_first_is_always_legal(wishes in proptest::collection::vec((way(), any::<bool>()), 0..40)) {
            let mut mode = IoMode::None;
            let mut open: Vec<Way> = Vec::new();
            for (wish, close) in wishes {
                let way = match wish {
                    Way::Passthrough { .. } if !mode.may_pass() => Way::Cached,
                    Way::Cached | Way::Direct if mode.must_pass() => READ,
                    fits => fits,
                };
                mode = mode.step(Event::Open(way)).unwrap();
                open.push(way);
                if close {
                    let way = open.swap_remove(open.len() / 2);
                    mode = mode.step(Event::Release(way)).unwrap();
                }
                let passing = open.iter().filter(|w| matches!(w, Way::Passthrough { .. })).count();
                prop_assert!(passing == 0 || passing == open.len());
                prop_assert_eq!(mode == IoMode::None, open.is_empty());
            }
            for way in open {
                mode = mode.step(Event::Release(way)).unwrap();
            }
            prop_assert_eq!(mode, IoMode::None);
        }
    }
}
