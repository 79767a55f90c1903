//! Which inodes programs have open here, and what of that the service knows: plain data.
//!
//! An inode whose lease is ours is opened without asking: nobody can take its last name without a recall, whose answer
//! tells the service that it is open. The service counts a session's open once, until its Close; so between a Close that
//! was sent and its answer nothing is opened, because the two could pass each other.
//!
//! What is closed for the last time is not told at once: one Close tells of many, when enough have gathered, when a moment has
//! passed, or when somebody takes the name away. Opened again before that, it is what it was.

use std::collections::{HashMap, HashSet};

use granary_core::Ino;
use tokio::sync::oneshot;

#[derive(Debug, Default)]
struct Open {
    count: u64,
    /// Opened in a session that was ended: closing them tells the service nothing.
    old: u64,
    /// Calls that ask to open it.
    asking: u32,
    /// The service counts us.
    told: bool,
    /// A Close is under way.
    closing: bool,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Open {
    fn is_idle(&self) -> bool {
        self.count == 0 && self.old == 0 && self.asking == 0 && !self.told && !self.closing
    }

    fn wake(&mut self) {
        for tell in self.waiting.drain(..) {
            // Who waited may have gone.
            let _ = tell.send(());
        }
    }

    /// Whether the service is to be told that it is not open any more.
    fn is_unused(&self) -> bool {
        self.count == 0 && self.asking == 0 && self.told && !self.closing
    }
}

#[derive(Debug, Default)]
pub(super) struct Opens {
    map: HashMap<Ino, Open>,
    /// Open, and the service does not count it.
    untold: HashSet<Ino>,
    /// Not open any more, and the service still counts it.
    unused: HashSet<Ino>,
    /// Names of these are being removed, by so many calls: whether they are opened before or after is the service's to say.
    removing: HashMap<Ino, u32>,
    /// Names of unknown inodes are being removed, by so many calls.
    removing_unknown: u32,
}

impl Opens {
    pub fn len(&self) -> usize {
        self.map.values().filter(|open| open.count > 0).count()
    }

    pub fn is_open(&self, ino: Ino) -> bool {
        self.map.get(&ino).is_some_and(|open| open.count > 0)
    }

    /// Counts an open under our lease; not while a Close is under way, or the removal of a name that may be its.
    pub fn open_here(&mut self, ino: Ino) -> bool {
        if self.removing_unknown > 0 || self.removing.contains_key(&ino) {
            return false;
        }
        let open = self.map.entry(ino).or_default();
        if open.closing {
            return false;
        }
        open.count += 1;
        if !open.told {
            self.untold.insert(ino);
        }
        self.unused.remove(&ino);
        true
    }

    /// A name is going to be removed, of this inode if it is known. Whether the service is to be told first that it is
    /// open. `None`: it must be found out which inode it is, because some are open that the service does not count.
    pub fn remove(&mut self, ino: Option<Ino>) -> Option<bool> {
        match ino {
            Some(ino) => {
                *self.removing.entry(ino).or_default() += 1;
                Some(self.untold.contains(&ino) && self.tell(ino))
            }
            None if self.untold.is_empty() => {
                self.removing_unknown += 1;
                Some(false)
            }
            None => None,
        }
    }

    /// The name had no inode a moment ago.
    pub fn remove_unknown(&mut self) {
        self.removing_unknown += 1;
    }

    pub fn removed(&mut self, ino: Option<Ino>) {
        let Some(ino) = ino else {
            self.removing_unknown -= 1;
            return;
        };
        if let Some(count) = self.removing.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.removing.remove(&ino);
            }
        }
    }

    /// The service is to be asked; or first the end of a Close waited for.
    pub fn ask(&mut self, ino: Ino) -> Result<(), oneshot::Receiver<()>> {
        let open = self.map.entry(ino).or_default();
        if open.closing {
            let (tell, told) = oneshot::channel();
            open.waiting.push(tell);
            return Err(told);
        }
        open.asking += 1;
        self.unused.remove(&ino);
        Ok(())
    }

    /// The service answered.
    pub fn asked(&mut self, ino: Ino, opened: bool) {
        let open = self.map.entry(ino).or_default();
        open.asking = open.asking.saturating_sub(1);
        if opened {
            open.count += 1;
            open.told = true;
            self.untold.remove(&ino);
        }
        if open.is_unused() {
            self.unused.insert(ino);
        }
        self.tidy(ino);
    }

    /// The service opened it with a call that makes it.
    pub fn made(&mut self, ino: Ino) {
        let open = self.map.entry(ino).or_default();
        open.count += 1;
        open.told = true;
        self.untold.remove(&ino);
    }

    /// The service counts it since another process's time.
    pub fn adopt(&mut self, ino: Ino) {
        let open = self.map.entry(ino).or_default();
        open.told = true;
        self.untold.remove(&ino);
        if open.is_unused() {
            self.unused.insert(ino);
        }
    }

    /// Takes an open back. Whether there was one.
    pub fn close(&mut self, ino: Ino) -> bool {
        let Some(open) = self.map.get_mut(&ino).filter(|open| open.count + open.old > 0) else {
            return false;
        };
        if open.old > 0 {
            open.old -= 1;
        } else {
            open.count -= 1;
        }
        if open.count == 0 {
            self.untold.remove(&ino);
        }
        if open.is_unused() {
            self.unused.insert(ino);
        }
        self.tidy(ino);
        true
    }

    /// How many a Close would tell of.
    pub fn unused(&self) -> usize {
        self.unused.len()
    }

    /// Begins a Close of this inode, if one is due.
    pub fn close_one(&mut self, ino: Ino) -> Option<Ino> {
        self.unused.remove(&ino).then(|| self.closing(ino))
    }

    /// Begins a Close of all for which one is due.
    pub fn close_all(&mut self) -> Vec<Ino> {
        let unused = std::mem::take(&mut self.unused);
        let mut all: Vec<Ino> = unused.into_iter().map(|ino| self.closing(ino)).collect();
        all.sort_unstable();
        all
    }

    fn closing(&mut self, ino: Ino) -> Ino {
        if let Some(open) = self.map.get_mut(&ino) {
            open.closing = true;
        }
        ino
    }

    /// The Close was answered, or will not be.
    pub fn closed(&mut self, ino: Ino) {
        if let Some(open) = self.map.get_mut(&ino) {
            open.closing = false;
            open.told = false;
            open.wake();
        }
        self.tidy(ino);
    }

    /// For the answer to a recall: whether it is open, which the service then counts.
    pub fn tell(&mut self, ino: Ino) -> bool {
        match self.map.get_mut(&ino) {
            Some(open) if open.count > 0 => {
                open.told = true;
                self.untold.remove(&ino);
                true
            }
            _ => false,
        }
    }

    /// All that are open, for a service that does not know.
    pub fn all(&self) -> Vec<Ino> {
        let mut all: Vec<Ino> =
            self.map.iter().filter(|(_, open)| open.count > 0).map(|(ino, _)| *ino).collect();
        all.sort_unstable();
        all
    }

    /// The service was told of these with a greeting. What else is open must be asked for: those.
    pub fn told(&mut self, told: &[Ino]) -> Vec<Ino> {
        let mut others = Vec::new();
        for (ino, open) in &mut self.map {
            if open.count > 0 && !open.told && told.binary_search(ino).is_err() {
                others.push(*ino);
            }
            open.told |= open.count > 0;
        }
        self.untold.clear();
        for ino in std::mem::take(&mut self.unused) {
            // This service never counted it.
            if let Some(open) = self.map.get_mut(&ino) {
                open.told = false;
            }
            self.tidy(ino);
        }
        others.sort_unstable();
        others
    }

    /// The session was ended: nothing of it is open at the service.
    pub fn fenced(&mut self) {
        for open in self.map.values_mut() {
            open.old += std::mem::take(&mut open.count);
            (open.told, open.closing) = (false, false);
            open.wake();
        }
        self.untold.clear();
        self.unused.clear();
        self.map.retain(|_, open| !open.is_idle());
    }

    fn tidy(&mut self, ino: Ino) {
        if self.map.get(&ino).is_some_and(Open::is_idle) {
            self.map.remove(&ino);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Ino = Ino(5);

    #[test]
    fn what_is_opened_and_closed_here_is_not_told() {
        let mut opens = Opens::default();
        assert!(opens.open_here(F) && opens.open_here(F));
        assert!(opens.close(F) && opens.close(F) && !opens.close(F));
        assert!(opens.map.is_empty() && opens.untold.is_empty() && opens.close_all().is_empty());
    }

    #[test]
    fn what_was_told_is_closed_once_and_not_opened_before_that_is_answered() {
        let mut opens = Opens::default();
        assert!(opens.open_here(F));
        assert!(opens.tell(F), "with a recall");
        assert!(opens.open_here(F));
        assert!(opens.close(F));
        assert_eq!(opens.close_one(F), None);
        assert!(opens.close(F));
        assert_eq!((opens.close_all(), opens.close_one(F)), (vec![F], None));
        assert!(!opens.open_here(F));
        let mut waits = opens.ask(F).unwrap_err();
        assert!(waits.try_recv().is_err());
        opens.closed(F);
        assert_eq!(waits.try_recv(), Ok(()));
        assert!(opens.ask(F).is_ok());
        opens.asked(F, true);
        assert!(opens.close(F));
        assert_eq!(opens.close_one(F), Some(F));
        opens.closed(F);
        assert!(opens.map.is_empty() && opens.unused.is_empty());
    }

    #[test]
    fn what_another_process_had_open_is_closed_unless_somebody_opened_it_again() {
        let mut opens = Opens::default();
        assert!(opens.open_here(F));
        opens.adopt(F);
        opens.adopt(Ino(6));
        assert_eq!((opens.close_all(), opens.untold.len()), (vec![Ino(6)], 0));
        assert!(opens.close(F));
        assert_eq!(opens.close_all(), [F]);
    }

    #[test]
    fn opened_again_before_it_was_told_it_stays_open() {
        let mut opens = Opens::default();
        opens.made(F);
        assert!(opens.close(F));
        assert_eq!(opens.unused(), 1);
        assert!(opens.open_here(F));
        assert!(opens.untold.is_empty() && opens.close_all().is_empty());
        assert!(opens.close(F) && opens.ask(F).is_ok());
        assert!(opens.close_all().is_empty(), "who asks may have it soon");
        opens.asked(F, false);
        assert_eq!(opens.close_all(), [F]);
    }

    #[test]
    fn a_close_waits_for_those_who_ask() {
        let mut opens = Opens::default();
        opens.made(F);
        assert!(opens.ask(F).is_ok());
        assert!(opens.close(F) && opens.unused() == 0);
        opens.asked(F, false);
        assert_eq!(opens.close_one(F), Some(F), "refused: now nobody has it");
    }

    #[test]
    fn removal_of_a_name_tells_first_and_keeps_opens_away() {
        let mut opens = Opens::default();
        assert_eq!(opens.remove(None), Some(false));
        assert!(!opens.open_here(F), "it may be the one");
        opens.removed(None);
        assert!(opens.open_here(F));
        assert_eq!(opens.remove(None), None, "which one must be known");
        assert_eq!(opens.remove(Some(F)), Some(true));
        assert_eq!(opens.remove(Some(F)), Some(false), "told already");
        assert!(!opens.open_here(F));
        opens.removed(Some(F));
        opens.removed(Some(F));
        assert!(opens.open_here(F));
    }

    #[test]
    fn after_a_fence_old_opens_are_closed_in_silence() {
        let mut opens = Opens::default();
        opens.made(F);
        assert!(opens.ask(F).is_ok());
        opens.fenced();
        assert!(!opens.is_open(F) && opens.all().is_empty());
        opens.asked(F, true); // in the next session
        assert!(opens.close(F) && opens.unused() == 0, "the old one");
        assert!(opens.close(F));
        assert_eq!(opens.close_all(), [F]);
    }

    #[test]
    fn a_service_that_was_restarted_never_counted_what_is_unused() {
        let mut opens = Opens::default();
        opens.made(F);
        opens.made(Ino(6));
        assert!(opens.close(F));
        assert_eq!(opens.all(), [Ino(6)]);
        assert!(opens.told(&[Ino(6)]).is_empty());
        assert!(opens.close_all().is_empty() && !opens.map.contains_key(&F));
    }
}
