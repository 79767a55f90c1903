//! What a file's content was trusted with: setuid, setgid, capabilities. It ends when the content changes.
//!
//! The kernel takes them away itself, before it changes content through its page cache or a stage file (SETATTR with the mode,
//! REMOVEXATTR). It leaves it to us where it does not look: a handle past the page cache (WRITE says whether the writer may
//! keep setuid; capabilities go whoever writes), a copy, and O_TRUNC that comes with OPEN.

use granary_core::{Ino, Kind, Result};
use granary_meta::{FileType, SetAttr};

use super::Vfs;

const CAPABILITY: &[u8] = b"security.capability";
const SETUID: u32 = 0o4000;
const SETGID_EXECUTE: u32 = 0o2010;

impl Vfs {
    /// Before content is changed. `setuid`: the one who does it has no right to keep the mode (CAP_FSETID). The file is
    /// looked at only where there is something to lose.
    pub(super) async fn drop_privileges(&self, ino: Ino, setuid: bool) -> Result<()> {
        if setuid {
            let attr = self.meta.getattr(ino).await?;
            let privileged = attr.mode & SETUID != 0 || attr.mode & SETGID_EXECUTE == SETGID_EXECUTE;
            if attr.kind == FileType::File && privileged {
                let kill = SetAttr { kill_priv: true, ..SetAttr::default() };
                self.meta.setattr(ino, kill).await?;
                // It does not know, and would go on to honour the bits.
                return self.notifier().map_or(Ok(()), |notifier| notifier.invalidate_attributes(ino));
            }
        }
        if self.meta.has_capabilities() {
            match self.meta.removexattr(ino, CAPABILITY).await {
                Err(e) if e.kind() != Kind::NoAttribute => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}
