//! Uploads that failed: what waits for them is told, and a person hears of each kind of failure once.

use std::collections::HashMap;

use granary_core::Error;

use super::Failure;

/// Kinds of failures that a person was told of since uploads last worked; more are not told.
const TOLD_MAX: usize = 16;

/// What a person should hear now.
#[derive(Debug)]
pub(super) enum Say {
    Failing(Error),
    Recovered,
}

#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u64,
    /// The last one, if nothing succeeded since.
    last: Option<Error>,
    told: Vec<String>,
    /// Segments of the log whose last upload failed, and which failure that was.
    segments: HashMap<u64, (u64, Error)>,
}

impl Failures {
    /// An upload of `what`, from these segments of the log, ended. What the node's disk does not give back is told where it is
    /// kept: it says nothing of other uploads.
    pub fn note(&mut self, what: &str, segments: &[u64], result: Result<(), Failure>) -> Option<Say> {
        let e = match result {
            Ok(()) => {
                segments.iter().for_each(|id| drop(self.segments.remove(id)));
                self.told.clear();
                return self.last.take().map(|_| Say::Recovered);
            }
            Err(Failure::Disk(e)) => {
                self.note_segments(segments, &e);
                return None;
            }
            Err(Failure::Other(e)) => e,
        };
        self.note_segments(segments, &e);
        let words = alike(&e);
        let e = e.context(format_args!("cannot upload {what}"));
        self.last = Some(e.duplicate());
        let new = self.told.len() < TOLD_MAX && !self.told.contains(&words);
        new.then(|| {
            self.told.push(words);
            Say::Failing(e)
        })
    }

    fn note_segments(&mut self, segments: &[u64], e: &Error) {
        self.count += 1;
        segments.iter().for_each(|id| drop(self.segments.insert(*id, (self.count, e.duplicate()))));
    }

    /// Failures up to now.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Why one of the segments could not be uploaded, if that was tried after the first `count` failures.
    pub fn since(&self, count: u64, segments: &[u64]) -> Option<Error> {
        let mut failed = segments.iter().filter_map(|id| self.segments.get(id));
        failed.find(|(at, _)| *at > count).map(|(_, e)| e.duplicate())
    }

    pub fn last(&self) -> Option<&Error> {
        self.last.as_ref()
    }
}

/// A message without what tells two failures of one kind apart: names of objects, counts, times.
fn alike(e: &Error) -> String {
    let text = e.to_string();
    let words = text.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::Kind;

    fn error(kind: Kind, text: &str) -> Result<(), Failure> {
        Err(Failure::Other(Error::new(kind, text.to_owned())))
    }

    #[test]
    fn each_kind_is_told_once_until_uploads_work_again() {
        let mut failures = Failures::default();
        let mut say =
            |text: &str| matches!(failures.note("f", &[], error(Kind::Denied, text)), Some(Say::Failing(_)));
        assert!(say("after 3 attempts: cannot write object p/01/ab: the secret key is wrong"));
        assert!(!say("after 9 attempts: cannot write object p/02/cd: the secret key is wrong"));
        assert!(say("this machine's clock is wrong"));
        assert!(!say("this machine's clock is wrong"));
        assert!(failures.last().is_some_and(|e| e.to_string().starts_with("cannot upload f: this machine")));
        assert!(matches!(failures.note("f", &[], Ok(())), Some(Say::Recovered)));
        assert!(failures.note("f", &[], Ok(())).is_none() && failures.last().is_none());
        assert!(failures.note("f", &[], error(Kind::Denied, "this machine's clock is wrong")).is_some());
    }

    #[test]
    fn a_damaged_segment_is_heard_of_by_who_waits_for_it_and_says_nothing_of_uploads() {
        let mut failures = Failures::default();
        let damaged = Failure::Disk(Error::new(Kind::Corrupt, "damaged"));
        assert!(failures.note("small files", &[1], Err(damaged)).is_none());
        assert!(failures.last().is_none() && failures.since(0, &[1]).is_some());
        assert!(failures.note("small files", &[2], Ok(())).is_none(), "nothing to recover from");
    }

    #[test]
    fn who_waits_hears_of_his_own_segments_only_and_of_nothing_old() {
        let mut failures = Failures::default();
        failures.note("small files", &[1, 2], error(Kind::Corrupt, "damaged"));
        let began = failures.count();
        assert!(failures.since(began, &[1, 2]).is_none() && failures.since(0, &[3]).is_none());
        failures.note("small files", &[3], error(Kind::Unavailable, "gone"));
        assert!(failures.since(began, &[1, 2]).is_none());
        assert_eq!(failures.since(began, &[2, 3]).map(|e| e.kind()), Some(Kind::Unavailable));
        failures.note("small files", &[3], Ok(()));
        assert!(failures.since(began, &[3]).is_none());
    }
}
