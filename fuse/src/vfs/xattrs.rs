//! Extended attributes: `user.*` for everybody, `trusted.*` for root, `security.*` as the kernel allows, and access control
//! lists where the mount keeps them. The kernel checks who may; a capability asked for where there are none (it asks before
//! many writes) is answered without looking.

use granary_core::error::fail;
use granary_core::limits::XATTR_BYTES_MAX;
use granary_core::{Ino, Kind, Result};
use granary_meta::{FileType, SetAttr, acl};

use super::{Cx, Vfs};

/// Longest name, in bytes, as Linux has it.
const NAME_BYTES_MAX: usize = 255;
const CAPABILITY: &[u8] = b"security.capability";
const SETGID: u32 = 0o2000;

/// How an attribute is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XattrFlags {
    /// It must not be there yet.
    pub create_only: bool,
    /// It must be there.
    pub replace_only: bool,
    /// Who sets this access list is not of the file's group: setgid goes.
    pub kill_sgid: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Kept,
    /// Never there, cannot be set.
    Absent,
    Unsupported,
}

/// `acl`: the mount keeps access control lists.
fn space(cx: &Cx, name: &[u8], acl: bool) -> Result<Space> {
    if name.len() > NAME_BYTES_MAX {
        return fail(Kind::Range, "an extended attribute's name has at most 255 bytes");
    }
    for prefix in [&b"user."[..], b"security."] {
        if name.starts_with(prefix) && name.len() > prefix.len() {
            return Ok(Space::Kept);
        }
    }
    if name.starts_with(b"trusted.") {
        return if cx.uid == 0 { Ok(Space::Kept) } else { Ok(Space::Absent) };
    }
    if acl && (name == acl::ACCESS || name == acl::DEFAULT) {
        return Ok(Space::Kept);
    }
    Ok(Space::Unsupported)
}

fn unsupported<T>() -> Result<T> {
    fail(Kind::Unsupported, "extended attributes are user.*, security.* and for root trusted.*")
}

fn absent<T>() -> Result<T> {
    fail(Kind::NoAttribute, "no such extended attribute")
}

impl Vfs {
    /// The answer that needs no look at the metadata, if there is one.
    pub fn getxattr_ready(&self, cx: &Cx, name: &[u8]) -> Option<Result<Vec<u8>>> {
        match space(cx, name, self.keeps_acls()) {
            Ok(Space::Kept) if name == CAPABILITY && !self.meta.has_capabilities() => Some(absent()),
            Ok(Space::Kept) => None,
            Ok(Space::Absent) => Some(absent()),
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
            if space(cx, &name, self.keeps_acls())? == Space::Kept {
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
        if space(cx, name, self.keeps_acls())? != Space::Kept {
            return unsupported();
        }
        if value.len() > XATTR_BYTES_MAX {
            return fail(Kind::Range, "an extended attribute has at most 65,536 bytes");
        }
        self.meta.setxattr(ino, name, value, flags.create_only, flags.replace_only).await?;
        if flags.kill_sgid && name == acl::ACCESS {
            let attr = self.meta.getattr(ino).await?;
            if attr.mode & SETGID != 0 && attr.kind != FileType::Symlink {
                let set = SetAttr { mode: Some(attr.mode & !SETGID), ..SetAttr::default() };
                self.meta.setattr(ino, set).await?;
            }
        }
        Ok(())
    }

    pub async fn removexattr(&self, cx: &Cx, ino: Ino, name: &[u8]) -> Result<()> {
        self.writable()?;
        match space(cx, name, self.keeps_acls())? {
            Space::Kept => self.meta.removexattr(ino, name).await,
            Space::Absent => absent(),
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
        let space = |cx: &Cx, name: &[u8], acl| super::space(cx, name, acl).unwrap();
        assert_eq!(space(&user, b"user.a", false), Space::Kept);
        assert_eq!(space(&user, b"user.", false), Space::Unsupported);
        assert_eq!(space(&root, b"trusted.a", false), Space::Kept);
        assert_eq!(space(&user, b"trusted.a", false), Space::Absent);
        assert_eq!(space(&user, CAPABILITY, false), Space::Kept);
        assert_eq!(space(&root, acl::ACCESS, false), Space::Unsupported);
        assert_eq!(space(&user, acl::ACCESS, true), Space::Kept);
        assert_eq!(space(&user, acl::DEFAULT, true), Space::Kept);
        assert_eq!(space(&user, b"system.other", true), Space::Unsupported);
        assert_eq!(super::space(&root, &[b'u'; 256], true).unwrap_err().kind(), Kind::Range);
    }
}
