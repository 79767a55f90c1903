//! Extended attributes: `user.*` for everybody, `trusted.*` for root. Capabilities and access control lists are not kept:
//! asking for the first is answered without looking (the kernel asks before many writes), setting either is refused.

use granary_core::error::fail;
use granary_core::limits::XATTR_BYTES_MAX;
use granary_core::{Ino, Kind, Result};

use super::{Cx, Vfs};

/// Longest name, in bytes, as Linux has it.
const NAME_BYTES_MAX: usize = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Kept,
    /// Never there, cannot be set.
    Absent,
    Unsupported,
}

fn space(cx: &Cx, name: &[u8]) -> Result<Space> {
    if name.len() > NAME_BYTES_MAX {
        return fail(Kind::Range, "an extended attribute's name has at most 255 bytes");
    }
    if name.starts_with(b"user.") && name.len() > b"user.".len() {
        return Ok(Space::Kept);
    }
    if name.starts_with(b"trusted.") {
        return if cx.uid == 0 { Ok(Space::Kept) } else { Ok(Space::Absent) };
    }
    if name.starts_with(b"security.") {
        return Ok(Space::Absent);
    }
    Ok(Space::Unsupported)
}

/// How an extended attribute is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XattrFlags {
    /// It must not be there yet.
    pub create_only: bool,
    /// It must be there.
    pub replace_only: bool,
    /// With an access control list: the caller may not set the set-group-id bit, so it is cleared.
    pub kill_sgid: bool,
}

fn unsupported<T>() -> Result<T> {
    fail(Kind::Unsupported, "only user.* (and for root trusted.*) extended attributes are kept")
}

impl Vfs {
    /// The answer that needs no look at the metadata, if there is one.
    pub fn getxattr_ready(&self, cx: &Cx, name: &[u8]) -> Option<Result<Vec<u8>>> {
        match space(cx, name) {
            Ok(Space::Kept) => None,
            Ok(Space::Absent) => Some(fail(Kind::NoAttribute, "no such extended attribute")),
            Ok(Space::Unsupported) => Some(unsupported()),
            Err(e) => Some(Err(e)),
        }
    }

    pub async fn getxattr(&self, cx: &Cx, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        match self.getxattr_ready(cx, name) {
            Some(answer) => answer,
            None => self.meta.getxattr(ino, name).await,
        }
    }

    /// Names, each followed by a NUL.
    pub async fn listxattr(&self, cx: &Cx, ino: Ino) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        for name in self.meta.listxattr(ino).await? {
            if space(cx, &name)? == Space::Kept {
                out.extend_from_slice(&name);
                out.push(0);
            }
        }
        Ok(out)
    }

    pub async fn setxattr(
        &self,
        cx: &Cx,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        self.writable()?;
        if space(cx, name)? != Space::Kept {
            return unsupported();
        }
        if value.len() > XATTR_BYTES_MAX {
            return fail(Kind::Range, "an extended attribute has at most 65,536 bytes");
        }
        self.meta.setxattr(ino, name, value, flags.create_only, flags.replace_only).await
    }

    pub async fn removexattr(&self, cx: &Cx, ino: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        match space(cx, name)? {
            Space::Kept => self.meta.removexattr(ino, name).await,
            Space::Absent => fail(Kind::NoAttribute, "no such extended attribute"),
            Space::Unsupported => unsupported(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_names_are_kept() {
        let (root, user) = (Cx::default(), Cx { uid: 1000, ..Cx::default() });
        assert_eq!(space(&user, b"user.a").unwrap(), Space::Kept);
        assert_eq!(space(&user, b"user.").unwrap(), Space::Unsupported);
        assert_eq!(space(&root, b"trusted.a").unwrap(), Space::Kept);
        assert_eq!(space(&user, b"trusted.a").unwrap(), Space::Absent);
        assert_eq!(space(&root, b"security.capability").unwrap(), Space::Absent);
        assert_eq!(space(&root, b"system.posix_acl_access").unwrap(), Space::Unsupported);
        assert_eq!(space(&root, &[b'u'; 256]).unwrap_err().kind(), Kind::Range);
    }
}
