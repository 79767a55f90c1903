//! A fresh ext4 for each system and round: a sparse image, loop-mounted. A much-used one gives another speed every minute.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{force_unmount, run};

/// Room of each image. Sparse: only what is written takes place.
const IMAGE_BYTES: u64 = 24 << 30;

/// A mounted image; unmounted and deleted when dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    device: String,
    mountpoint: PathBuf,
}

impl Disk {
    /// Makes `DIR/NAME.img` and mounts it at `DIR/NAME`.
    pub fn make(dir: &Path, name: &str) -> Result<Self> {
        let image = dir.join(name).with_extension("img");
        let mountpoint = dir.join(name);
        std::fs::create_dir_all(&mountpoint)?;
        File::create_new(&image)?
            .set_len(IMAGE_BYTES)
            .with_context(|| format!("cannot make {}", image.display()))?;
        // With `noinit_itable` below, nothing is initialised in the background while time is taken.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "nodiscard"]).arg(&image))?;
        let losetup = |direct: &str| {
            let mut command = Command::new("losetup");
            run(command.args(["--find", "--show", direct]).arg(&image))
        };
        // Direct I/O to the image, so that its pages are not held twice; not every file system below offers it.
        let device = losetup("--direct-io=on").or_else(|_| losetup("--direct-io=off"))?;
        let disk = Disk { image, device, mountpoint };
        let mut mount = Command::new("mount");
        run(mount.args(["-t", "ext4", "-o", "noinit_itable", &disk.device]).arg(&disk.mountpoint))?;
        Ok(disk)
    }

    pub fn path(&self) -> &Path {
        &self.mountpoint
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.mountpoint)).is_err() {
            force_unmount(&self.mountpoint);
        }
        let _ = run(Command::new("losetup").args(["--detach", &self.device]));
        let _ = std::fs::remove_file(&self.image);
    }
}
