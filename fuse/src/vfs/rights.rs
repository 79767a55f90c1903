//! Who may read a file or pass a directory, where it is not the kernel that asks: a list of files to be read, `granary warmup`.
//!
//! The rules are Linux's (`acl_permission_check` in its `fs/namei.c`, `posix_acl_permission` in `fs/posix_acl.c`), in this order:
//!
//! | who | what counts |
//! |---|---|
//! | root, and whom the node calls an administrator | nothing: they may |
//! | the owner | the mode's bits of the owner |
//! | others, while the group's bits are not all clear, and there is an access control list | the list: the user's entry, else all entries of their groups, else that of others; what is named is bounded by the mask |
//! | others | the bits of the group for who is in it, else the bits of others |

use granary_core::{Kind, Result};
use granary_meta::acl::{self, Acl, Who};
use granary_meta::{Attr, Metadata};

/// What may be asked for, as mode bits have it.
pub const READ: u32 = 4;
pub const SEARCH: u32 = 1;

/// On whose behalf something is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub uid: u32,
    /// All of them, the first one too.
    pub gids: Vec<u32>,
    /// Everything is allowed.
    pub all: bool,
    /// Access control lists count.
    pub lists: bool,
}

impl Rights {
    /// Of the node itself.
    pub fn all() -> Rights {
        Rights { uid: 0, gids: Vec::new(), all: true, lists: false }
    }

    /// Whether `want` is allowed. Asks the metadata for the list of a file only where one could count.
    ///
    /// Errors: those of the metadata. A list that cannot be understood allows nothing.
    pub async fn may(&self, meta: &dyn Metadata, attr: &Attr, want: u32) -> Result<bool> {
        if !self.lists || self.all || attr.uid == self.uid || attr.mode & 0o070 == 0 {
            return Ok(self.may_by_mode(attr, want));
        }
        let list = match meta.getxattr(attr.ino, acl::ACCESS).await {
            Err(e) if e.kind() == Kind::NoAttribute => return Ok(self.may_by_mode(attr, want)),
            found => found?,
        };
        Ok(match Acl::parse(&list) {
            Ok(Some(list)) => self.may_by_list(&list, attr, want),
            Ok(None) => self.may_by_mode(attr, want),
            Err(_) => false,
        })
    }

    fn may_by_mode(&self, attr: &Attr, want: u32) -> bool {
        let bits = if attr.uid == self.uid {
            attr.mode >> 6
        } else if self.gids.contains(&attr.gid) {
            attr.mode >> 3
        } else {
            attr.mode
        };
        self.all || bits & want == want
    }

    /// Of somebody who is not the owner.
    fn may_by_list(&self, list: &Acl, attr: &Attr, want: u32) -> bool {
        let perm = |who| list.entries().iter().find(|e| e.who == who).map(|e| u32::from(e.perm));
        let mask = perm(Who::Mask).unwrap_or(7);
        if let Some(own) = perm(Who::User(self.uid)) {
            return own & mask & want == want;
        }
        let mine = |who| match who {
            Who::OwningGroup => self.gids.contains(&attr.gid),
            Who::Group(gid) => self.gids.contains(&gid),
            _ => false,
        };
        let mut groups = list.entries().iter().filter(|e| mine(e.who)).peekable();
        match groups.peek() {
            Some(_) => groups.any(|e| u32::from(e.perm) & mask & want == want),
            None => perm(Who::Others).unwrap_or(0) & want == want,
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_core::{Ino, Timestamp};
    use granary_meta::FileType;
    use granary_meta::acl::Entry;

    use super::*;

    fn attr(mode: u32) -> Attr {
        let time = Timestamp::default();
        Attr {
            ino: Ino(5),
            kind: FileType::File,
            mode,
            uid: 10,
            gid: 20,
            nlink: 1,
            rdev: 0,
            size: 0,
            stored: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: 1,
            staged_seq: 0,
        }
    }

    fn rights(uid: u32, gids: &[u32]) -> Rights {
        Rights { uid, gids: gids.to_vec(), all: false, lists: true }
    }

    fn list(entries: &[(Who, u8)]) -> Acl {
        Acl::new(entries.iter().map(|&(who, perm)| Entry { who, perm }).collect()).unwrap()
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let may = |uid, gids: &[u32], mode, want| rights(uid, gids).may_by_mode(&attr(mode), want);
        assert!(may(10, &[], 0o400, READ));
        assert!(!may(10, &[20], 0o077, READ), "the owner is not of the group or of the others");
        assert!(may(11, &[7, 20], 0o040, READ) && !may(11, &[20], 0o704, READ));
        assert!(may(11, &[7], 0o005, READ | SEARCH) && !may(11, &[7], 0o004, SEARCH));
        assert!(Rights::all().may_by_mode(&attr(0), READ));
    }

    #[test]
    fn a_list_gives_and_takes() {
        use Who::*;
        let list = list(&[
            (Owner, 7),
            (User(30), 4),
            (User(31), 0),
            (OwningGroup, 0),
            (Group(40), 5),
            (Group(41), 4),
            (Group(42), 0),
            (Mask, 4),
            (Others, 1),
        ]);
        let may = |uid, gids: &[u32], want| rights(uid, gids).may_by_list(&list, &attr(0o741), want);
        assert!(may(30, &[42], READ), "the user's entry is before those of groups");
        assert!(!may(31, &[40], READ), "which give nothing to a user who is named");
        assert!(!may(32, &[20], READ) && may(32, &[20, 41], READ), "one group that gives it is enough");
        assert!(!may(32, &[40], SEARCH), "the mask bounds it");
        assert!(!may(32, &[42], SEARCH), "who is in a group is not of the others");
        assert!(may(32, &[99], SEARCH) && !may(32, &[99], READ), "and the mask does not bound the others");
    }
}
