//! JuiceFS: metadata in sqlite, no trash, otherwise as it comes; metadata and cache on an image of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{JUICEFS, System};
use crate::disk::Disk;
use crate::process::{Memory, cpu_seconds, end_marked, force_unmount, is_mounted, memory, run};
use crate::target::Target;

#[derive(Debug)]
pub struct Juicefs {
    binary: PathBuf,
    root: PathBuf,
    cache: PathBuf,
    meta: String,
    log: PathBuf,
    /// The bucket's name; `None` of a folder.
    bucket: Option<String>,
    /// The bucket as JuiceFS names it, at another endpoint than the store's own.
    through: Option<String>,
    _disk: Disk,
}

impl Juicefs {
    /// A new volume `name` in the store, mounted.
    pub fn make(binary: &Path, dir: &Path, target: &Target, name: &str) -> Result<Self> {
        let disk = Disk::make(dir, "juicefs-disk")?;
        let root = dir.join(JUICEFS);
        std::fs::create_dir(&root)?;
        let juicefs = Juicefs {
            binary: binary.into(),
            root,
            cache: disk.path().join("cache"),
            meta: format!("sqlite3://{}/meta.db", disk.path().display()),
            log: dir.join("juicefs.log"),
            bucket: target.bucket().map(|bucket| bucket.name.clone()),
            through: None,
            _disk: disk,
        };
        let mut format = Command::new(binary);
        format.arg("format").args(target.juicefs_flags()?).args(["--trash-days", "0", &juicefs.meta, name]);
        run(&mut format)?;
        juicefs.mount()?;
        Ok(juicefs)
    }

    fn mount(&self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["mount", "--background", "--no-usage-report", "--cache-dir"]).arg(&self.cache);
        if let Some(bucket) = &self.through {
            command.args(["--bucket", bucket]);
        }
        command.arg("--log").arg(&self.log).arg(&self.meta).arg(&self.root);
        run(&mut command)?;
        anyhow::ensure!(
            is_mounted(&self.root),
            "juicefs mount said nothing, and {} is no mount",
            self.root.display()
        );
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        run(Command::new(&self.binary).args(["umount", "--flush"]).arg(&self.root))?;
        end_marked(&self.root, 20.0);
        Ok(())
    }
}

impl System for Juicefs {
    fn name(&self) -> &'static str {
        JUICEFS
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&self) -> Result<()> {
        rustix::fs::sync(); // close has already put everything into the store
        Ok(())
    }

    fn forget(&mut self, endpoint: Option<&str>) -> Result<()> {
        self.unmount()?;
        if self.cache.exists() {
            std::fs::remove_dir_all(&self.cache)?;
        }
        self.through = endpoint.zip(self.bucket.as_deref()).map(|(url, bucket)| format!("{url}/{bucket}"));
        self.mount()
    }

    fn memory(&self) -> Result<Option<Memory>> {
        memory(&self.root).map(Some)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(cpu_seconds(&self.root))
    }
}

impl Drop for Juicefs {
    fn drop(&mut self) {
        if is_mounted(&self.root) && self.unmount().is_err() {
            force_unmount(&self.root);
        }
        end_marked(&self.root, 5.0);
        force_unmount(&self.root);
    }
}
