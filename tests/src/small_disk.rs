//! A real file system of a few megabytes, to be filled and broken.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{run, run_ok};

/// An ext4 image, loop-mounted; taken down when dropped, after the node that uses it.
pub struct SmallDisk {
    root: tempfile::TempDir,
    device: String,
}

impl SmallDisk {
    pub fn new(mib: u64) -> SmallDisk {
        let root =
            tempfile::Builder::new().prefix("granary-disk.").tempdir_in("/var/tmp").expect("a directory");
        let image = root.path().join("image");
        File::create(&image).and_then(|file| file.set_len(mib << 20)).expect("an image");
        run_ok("mkfs.ext4 -q -F -m 0 $1", &[&image]);
        fs::create_dir(root.path().join("disk")).expect("mkdir");
        let device = run_ok("losetup --find --show $1", &[&image]).trim().to_owned();
        let disk = SmallDisk { root, device };
        disk.mount();
        disk
    }

    pub fn path(&self) -> PathBuf {
        self.root.path().join("disk")
    }

    pub fn path_of(&self, name: &str) -> String {
        self.path().join(name).to_str().expect("utf-8").to_owned()
    }

    fn mount(&self) {
        run_ok("mount -t ext4 $1 $2", &[Path::new(&self.device), &self.path()]);
    }

    /// As an ordinary user sees it.
    pub fn free_bytes(&self) -> u64 {
        let stat = rustix::fs::statvfs(self.path()).expect("statvfs");
        stat.f_bavail * stat.f_frsize
    }

    /// Another program takes all that is left, or all but so many bytes.
    pub fn fill(&self, leave: u64) {
        let mut file =
            File::options().create(true).append(true).open(self.path().join("others")).expect("file");
        let part = vec![7; 64 << 10];
        while self.free_bytes() > leave {
            let want = (self.free_bytes() - leave).min(part.len() as u64) as usize;
            if file.write_all(&part[..want]).and_then(|()| file.sync_all()).is_err() {
                return;
            }
        }
    }

    /// That program deletes what it wrote.
    pub fn empty(&self) {
        fs::remove_file(self.path().join("others")).expect("remove");
        run_ok("sync -f $1", &[&self.path()]);
    }

    /// The disk fails: ext4 takes no more writes, as after an error of the device (`errors=remount-ro`).
    pub fn abort(&self) {
        run_ok("mount -o remount,abort $1", &[&self.path()]);
    }

    /// After [`SmallDisk::abort`], once nobody uses it.
    pub fn repair(&self) {
        run_ok("umount $1", &[&self.path()]);
        // It mends the journal that was aborted, and says so by its exit code.
        let mended = run(Command::new("e2fsck").args(["-fy", &self.device]));
        assert!(mended.code.is_some_and(|code| code < 4), "{mended:?}");
        self.mount();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Best effort: what is gone already is what we want.
        let _ = rustix::mount::unmount(self.path(), rustix::mount::UnmountFlags::DETACH);
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
    }
}
