//! Files without a name (`O_TMPFILE`). They live like unlinked open files, until `link` gives them a name.

use granary_cache::PathHint;
use granary_core::{Ino, Result};
use granary_meta::{Attr, FileType};

use super::names::new_inode;
use super::{Access, Cx, Io, Mode, Opened, Vfs};

impl Vfs {
    /// Makes and opens a regular file without a name; `dir` says where it belongs, and its group where that is set.
    pub async fn tmpfile(&self, cx: &Cx, dir: Ino, mode: u32, access: Access) -> Result<(Attr, Opened)> {
        self.writable()?;
        let new = new_inode(cx, FileType::File, mode);
        let hint = PathHint { dir, name: Vec::new() };
        if self.mode() == Mode::Data {
            let attr = self.meta.tmpfile(dir, new).await?;
            let file = match self.tree.created(&attr, hint, false) {
                Ok(file) => file,
                Err(e) => {
                    self.meta.close(attr.ino);
                    self.tree.forget(attr.ino);
                    return Err(e);
                }
            };
            self.looked_up(attr.ino);
            self.keep_loaded(attr.ino, file, self.clock.monotonic()).await;
            self.keep_pinned(attr.ino).await;
            return Ok((attr, Opened { fh: 0, io: Io::Direct, flush: false }));
        }

        let room = self.handles.reserve()?;
        let attr = self.meta.tmpfile(dir, new).await?;
        let ino = attr.ino;
        self.nodes.enter(ino);
        self.nodes.unlinked(ino);
        self.looked_up_shared(ino);
        match self.open_created(room, &attr, hint, false, access, None) {
            Ok(opened) => Ok((attr, opened)),
            Err((file, e)) => {
                if let Some(file) = file {
                    self.close_file(file).await;
                }
                self.meta.close(ino);
                if self.nodes.leave(ino) {
                    self.tree.forget(ino);
                }
                Err(e)
            }
        }
    }
}
