//! A disk of a test's own: an image file with ext4 on it, mounted through a loop device, that can be filled by somebody else.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};

use crate::program::run_ok;

/// Who made it takes the mount down: a [`Node`](crate::Node) does with all that is mounted in its directory.
#[derive(Debug)]
pub struct Image {
    dir: PathBuf,
}

impl Image {
    /// Makes the image beside `dir` and mounts it there.
    pub fn mount(dir: &Path, bytes: u64) -> Image {
        let image = dir.with_extension("image");
        let script = "PATH=$PATH:/usr/sbin:/sbin; \
            mkdir -p $2; truncate -s $3 $1; mkfs.ext4 -qF -m0 $1; mount -o loop $1 $2; rmdir $2/lost+found";
        let args = [image.as_os_str(), dir.as_os_str(), bytes.to_string().as_ref()].map(|a| a.to_owned());
        run_ok(script, &args);
        Image { dir: dir.to_owned() }
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("of-somebody-else")
    }

    /// Somebody takes all the space that is left.
    pub fn fill(&self) {
        let file = File::create(self.filler()).expect("a file");
        let mut piece = 64 << 20;
        let mut len = 0;
        while piece >= 4096 {
            let fits = fstatvfs(&file).expect("statvfs").f_bavail * 4096 >= piece;
            if fits && fallocate(&file, FallocateFlags::empty(), len, piece).is_ok() {
                len += piece;
            } else {
                piece /= 2;
            }
        }
    }

    /// And gives it back: what was freed can be had when the file system has written that down.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("the filler");
        let dir = File::open(&self.dir).expect("the mountpoint");
        rustix::fs::syncfs(&dir).expect("syncfs");
    }
}
