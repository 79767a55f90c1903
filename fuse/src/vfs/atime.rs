//! Times of last access: kept when the mount asks for it, set by opens for reading (of a `work` mount, which hears of opens).

use std::time::Duration;

use granary_core::Timestamp;
use granary_meta::{Attr, SetAttr};

use super::Vfs;

/// A time older than this is renewed by the next read (`relatime`), as Linux has it.
const DAY: Duration = Duration::from_secs(86_400);

/// When reading sets a file's time of last access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// Never.
    #[default]
    Never,
    /// When the file changed since it was last read, or that was a day ago.
    Relative,
    /// Always.
    Strict,
}

impl Atime {
    /// Whether an open at `now` of a file with these attributes is to be noted.
    pub fn is_due(self, attr: &Attr, now: Timestamp) -> bool {
        match self {
            Atime::Never => false,
            Atime::Strict => attr.atime < now,
            Atime::Relative => {
                let age = now.secs.saturating_sub(attr.atime.secs);
                attr.atime <= attr.mtime || attr.atime <= attr.ctime || age >= DAY.as_secs() as i64
            }
        }
    }
}

impl Vfs {
    /// An open for reading; `attr` with what is held. Whether atime was set: then the kernel must ask for it again, which it
    /// does after a READ. That it cannot be set is no reason not to read.
    pub(super) async fn accessed(&self, attr: &Attr) -> bool {
        let now = self.clock.now();
        if self.options.read_only || !self.options.atime.is_due(attr, now) {
            return false;
        }
        let set = SetAttr { accessed: Some(now), ..SetAttr::default() };
        match self.meta.setattr(attr.ino, set).await {
            Ok(_) => true,
            Err(e) => {
                tracing::debug!(namespace = self.options.name, ino = %attr.ino, error = %e, "atime could not be set");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use granary_core::Ino;
    use granary_meta::FileType;

    use super::*;

    fn attr(atime: i64, mtime: i64, ctime: i64) -> Attr {
        let at = |secs| Timestamp { secs, nanos: 0 };
        Attr {
            ino: Ino(1),
            kind: FileType::File,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            rdev: 0,
            size: 0,
            stored: 0,
            atime: at(atime),
            mtime: at(mtime),
            ctime: at(ctime),
            btime: at(0),
            version: 1,
            staged_seq: 0,
        }
    }

    #[test]
    fn relative_times_are_set_once_after_a_change_and_once_a_day() {
        let now = Timestamp { secs: 100_000, nanos: 0 };
        for (a, m, c, due) in [
            (99_000, 99_000, 98_000, true),
            (99_000, 98_000, 99_500, true),
            (99_001, 99_000, 99_000, false),
            (13_601, 5, 5, false),
            (13_600, 5, 5, true),
        ] {
            assert_eq!(Atime::Relative.is_due(&attr(a, m, c), now), due, "{a} {m} {c}");
            assert!(Atime::Strict.is_due(&attr(a, m, c), now));
            assert!(!Atime::Never.is_due(&attr(a, m, c), now));
        }
    }
}
