//! Which token a connection shows: of those that its bearer gave, the one with the most rights that has not ended.
//!
//! A volume's mounts come and go, one to read and the next to write, each with a token of its own for the same namespace, and all of them
//! work through one connection. So the latest to read and the latest to write are kept.

use granary_meta::token::{Rights, Token};

use crate::token_file::Secret;

#[derive(Debug)]
struct Entry {
    secret: Secret,
    rights: Rights,
    id: String,
    /// Seconds since 1970.
    expires: u64,
}

/// Never empty.
#[derive(Debug)]
pub struct Shown {
    /// One for each kind of rights.
    all: Vec<Entry>,
}

impl Shown {
    pub fn new(said: &Token, secret: Secret) -> Shown {
        Shown { all: vec![Shown::entry(said, secret)] }
    }

    fn entry(said: &Token, secret: Secret) -> Entry {
        Entry { secret, rights: said.rights, id: said.id.clone(), expires: said.expires }
    }

    /// A token of the same bearer, known to be good. Whether another is to be shown now.
    pub fn offer(&mut self, said: &Token, secret: Secret, now_secs: u64) -> bool {
        let before = self.now(now_secs).id.clone();
        match self.all.iter_mut().find(|entry| entry.rights == said.rights) {
            Some(entry) if entry.expires <= said.expires => *entry = Shown::entry(said, secret),
            Some(_) => {}
            None => self.all.push(Shown::entry(said, secret)),
        }
        self.now(now_secs).id != before
    }

    /// Whether the latest of its kind is this one.
    pub fn has(&self, secret: &Secret) -> bool {
        self.all.iter().any(|entry| entry.secret == *secret)
    }

    /// Of those that have not ended the one with the most rights, else the last that ended.
    fn now(&self, now_secs: u64) -> &Entry {
        let rank = |entry: &&Entry| match entry.expires > now_secs {
            true => (true, entry.rights == Rights::ReadWrite, entry.expires),
            false => (false, false, entry.expires),
        };
        match self.all.iter().max_by_key(rank) {
            Some(entry) => entry,
            None => unreachable!("one was given at the beginning, and none is taken out"),
        }
    }

    pub fn secret(&self, now_secs: u64) -> Secret {
        self.now(now_secs).secret.clone()
    }

    pub fn rights(&self, now_secs: u64) -> Rights {
        self.now(now_secs).rights
    }

    /// How long what is shown lasts, in seconds.
    pub fn left_secs(&self, now_secs: u64) -> u64 {
        self.now(now_secs).expires.saturating_sub(now_secs)
    }

    /// The same of the latest with these rights; 0: there is none.
    pub fn left_with(&self, rights: Rights, now_secs: u64) -> u64 {
        let found = self.all.iter().find(|entry| entry.rights == rights);
        found.map_or(0, |entry| entry.expires.saturating_sub(now_secs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: &str, rights: Rights, expires: u64) -> (Token, Secret) {
        let said = Token {
            volume: "v".into(),
            user: "csi".into(),
            groups: vec![],
            rights,
            namespaces: Some(vec!["group/asr".parse().unwrap()]),
            parent: Some("p".into()),
            id: id.into(),
            issued: 0,
            not_before: None,
            expires,
            key: None,
        };
        (said, serde_json::from_value(serde_json::json!(id)).unwrap())
    }

    fn offer(shown: &mut Shown, id: &str, rights: Rights, expires: u64, now: u64) -> bool {
        let (said, secret) = token(id, rights, expires);
        shown.offer(&said, secret, now)
    }

    #[test]
    fn the_latest_to_write_is_shown_then_the_latest_to_read() {
        let (said, secret) = token("r1", Rights::ReadOnly, 100);
        let mut shown = Shown::new(&said, secret);
        assert!(offer(&mut shown, "w1", Rights::ReadWrite, 80, 10), "more rights are taken up at once");
        assert_eq!(
            (shown.secret(10).as_str(), shown.rights(10), shown.left_secs(10)),
            ("w1", Rights::ReadWrite, 70)
        );
        assert!(!offer(&mut shown, "r2", Rights::ReadOnly, 200, 20), "less says nothing of what is shown");
        assert!(offer(&mut shown, "w2", Rights::ReadWrite, 90, 20));
        assert!(!offer(&mut shown, "w0", Rights::ReadWrite, 50, 20), "an older one changes nothing");
        assert_eq!((shown.secret(89).as_str(), shown.secret(90).as_str()), ("w2", "r2"));
        assert_eq!((shown.rights(90), shown.left_secs(150), shown.left_secs(300)), (Rights::ReadOnly, 50, 0));
        assert_eq!(
            (shown.left_with(Rights::ReadWrite, 60), shown.left_with(Rights::ReadOnly, 60)),
            (30, 140)
        );
        assert_eq!(
            shown.secret(300).as_str(),
            "r2",
            "the last that ended: the service says what it thinks of it"
        );
        let has = |id: &str| shown.has(&token(id, Rights::ReadOnly, 0).1);
        assert!(has("r2") && has("w2") && !has("r1"));
    }
}
