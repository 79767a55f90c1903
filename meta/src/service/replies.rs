//! Answers to calls that changed something, until the session has confirmed them.
//!
//! A record's place is used again once its answer is confirmed, so that a session has few records and none has to be
//! deleted but at its end. What is left in a place after a restart does no harm: a confirmed call is not asked again.

use std::collections::BTreeMap;
use std::sync::Arc;

use granary_core::Ino;

use crate::call::Answer;
use crate::record::{Answered, ReplyRecord};

#[derive(Debug, Default)]
pub(super) struct Replies {
    by_call: BTreeMap<u64, (u32, Arc<ReplyRecord>)>,
    free: Vec<u32>,
    /// Places that were ever used.
    places: u32,
}

impl Replies {
    pub fn find(&self, call: u64) -> Option<Arc<ReplyRecord>> {
        self.by_call.get(&call).map(|(_, reply)| reply.clone())
    }

    /// Answers below this number need not be kept.
    pub fn confirm(&mut self, below: u64) {
        while let Some(first) = self.by_call.first_entry()
            && *first.key() < below
        {
            let (place, _) = first.remove();
            self.free.push(place);
        }
    }

    pub fn len(&self) -> usize {
        self.by_call.len()
    }

    /// The highest number of a call that is remembered.
    pub fn last(&self) -> u64 {
        self.by_call.last_key_value().map_or(0, |(call, _)| *call)
    }

    /// The inodes that those calls changed or made, in order.
    pub fn changed(&self) -> Vec<Ino> {
        let mut all = Vec::new();
        for (_, reply) in self.by_call.values() {
            all.extend_from_slice(&reply.touched);
            match &reply.answer {
                Answered::Attr(attr) | Answered::Renamed(Some(attr)) => all.push(attr.ino),
                Answered::Copied(copied) => all.push(copied.attr.ino),
                Answered::Done | Answered::Renamed(None) | Answered::Parts(_) => {}
            }
        }
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A place for the next answer; taken by [`Replies::insert`].
    pub fn place(&self) -> u32 {
        self.free.last().copied().unwrap_or(self.places)
    }

    pub fn insert(&mut self, reply: Arc<ReplyRecord>) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places += 1;
            self.places - 1
        });
        self.by_call.insert(reply.id, (place, reply));
    }

    /// A record found in the engine.
    pub fn load(&mut self, place: u32, reply: Arc<ReplyRecord>) {
        self.free.extend(self.places..place);
        self.places = self.places.max(place + 1);
        self.by_call.insert(reply.id, (place, reply));
    }

    /// All places with a record.
    pub fn places(&self) -> impl Iterator<Item = u32> + use<> {
        0..self.places
    }
}

impl From<&Answered> for Answer {
    fn from(answered: &Answered) -> Answer {
        match answered {
            Answered::Done => Answer::Done,
            Answered::Attr(attr) => Answer::Attr(attr.clone()),
            Answered::Renamed(lost) => Answer::Renamed(lost.clone()),
            Answered::Parts(parts) => Answer::Parts(parts.clone()),
            Answered::Copied(copied) => Answer::Copied(copied.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(id: u64) -> Arc<ReplyRecord> {
        Arc::new(ReplyRecord { id, answer: Answered::Done, touched: vec![] })
    }

    #[test]
    fn places_are_used_again_once_confirmed() {
        let mut replies = Replies::default();
        for id in 0..1000 {
            assert!(replies.place() < 11, "places are used again");
            replies.insert(reply(id));
            replies.confirm(id.saturating_sub(9));
            assert_eq!(replies.len() as u64, (id + 1).min(10));
        }
        assert!(replies.find(989).is_none() && replies.find(990).is_some());
        assert!(replies.places().count() <= 11);
    }

    #[test]
    fn what_was_loaded_keeps_its_place() {
        let mut replies = Replies::default();
        replies.load(1, reply(7));
        replies.load(4, reply(9));
        let mut places = Vec::new();
        for id in 10..14 {
            places.push(replies.place());
            replies.insert(reply(id));
        }
        places.sort_unstable();
        assert_eq!(places, [0, 2, 3, 5]);
    }
}
