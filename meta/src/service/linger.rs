//! Files that lost their last name a moment ago. A node may have looked the name up and be about to open what it found: so
//! while there are several sessions such a file counts as open for [`super::ServiceOptions::linger`]. The kernel looks a
//! name up once more when the open finds its file gone, and not a third time: without this, opening a file that another
//! node keeps replacing would now and then fail.

use std::sync::Arc;
use std::time::Duration;

use granary_core::Ino;

use super::space::Space;
use super::{Service, lock};
use crate::call::Call;
use crate::local::Keep;

/// Above it files are let go at once.
const LINGERING_MAX: usize = 10_000;

/// A file that is kept, and until when by the clock.
#[derive(Debug)]
pub(super) struct Lingering {
    space: Arc<Space>,
    ino: Ino,
    until: Duration,
}

impl Service {
    /// What becomes of an inode that this call takes the last name from.
    pub(super) fn keeps_nameless(&self, call: &Call) -> Keep {
        let takes = matches!(call, Call::Unlink { .. } | Call::Rename { .. });
        match takes && !self.options.linger.is_zero() && self.sessions.len() > 1 {
            true => Keep::Nameless,
            false => Keep::No,
        }
    }

    /// Keeps an inode that was counted as open for this. Under the namespace's lock.
    pub(super) fn linger(&self, space: &Arc<Space>, ino: Ino) {
        let mut lingering = lock(&self.lingering);
        if lingering.len() >= LINGERING_MAX {
            drop(lingering);
            space.local.unopen(ino);
            return;
        }
        let until = self.clock.monotonic() + self.options.linger;
        lingering.push(Lingering { space: space.clone(), ino, until });
    }

    /// Lets go of what was kept long enough.
    pub(super) fn end_lingering(&self, now: Duration) {
        self.let_go(|kept| kept.until <= now);
    }

    /// Lets go of all that is kept of a namespace.
    pub(super) fn end_lingering_of(&self, space: &Arc<Space>) {
        self.let_go(|kept| Arc::ptr_eq(&kept.space, space));
    }

    fn let_go(&self, mut is_due: impl FnMut(&Lingering) -> bool) {
        let due: Vec<Lingering> = lock(&self.lingering).extract_if(.., |kept| is_due(kept)).collect();
        for kept in &due {
            let mut state = kept.space.lock();
            let to_trash = kept.space.local.unopen(kept.ino);
            self.forget_gone(&kept.space, &mut state, None, kept.ino, to_trash);
        }
        if !due.is_empty() {
            self.volume.write_through(Box::new(|_| {}));
        }
    }
}
