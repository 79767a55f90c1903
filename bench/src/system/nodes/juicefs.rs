//! JuiceFS mounted several times: metadata in one sqlite file, no trash, otherwise as it comes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::Nodes;
use crate::disk::Disk;
use crate::process::{end_marked, force_unmount, is_mounted, run};
use crate::system::JUICEFS;
use crate::target::Target;

#[derive(Debug)]
pub struct JuicefsNodes {
    binary: PathBuf,
    roots: Vec<PathBuf>,
    _disk: Disk,
}

impl JuicefsNodes {
    pub fn make(binary: &Path, dir: &Path, target: &Target, name: &str, count: usize) -> Result<Self> {
        let disk = Disk::make(dir, "juicefs-disk")?;
        let meta = format!("sqlite3://{}/meta.db", disk.path().display());
        let mut format = Command::new(binary);
        format.arg("format").args(target.juicefs_flags()?).args(["--trash-days", "0", &meta, name]);
        run(&mut format)?;
        let caches = disk.path().to_owned();
        let mut nodes = JuicefsNodes { binary: binary.into(), roots: Vec::new(), _disk: disk };
        for i in 0..count {
            let root = dir.join(format!("{JUICEFS}-{i}"));
            std::fs::create_dir(&root)?;
            nodes.roots.push(root.clone());
            let mut command = Command::new(binary);
            command.args(["mount", "--background", "--no-usage-report", "--cache-dir"]);
            command.arg(caches.join(format!("cache-{i}")));
            command.arg("--log").arg(dir.join(format!("juicefs-{i}.log"))).arg(&meta).arg(&root);
            run(&mut command)?;
            anyhow::ensure!(
                is_mounted(&root),
                "juicefs mount said nothing, and {} is no mount",
                root.display()
            );
        }
        Ok(nodes)
    }
}

impl Nodes for JuicefsNodes {
    fn name(&self) -> &'static str {
        JUICEFS
    }

    fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    fn settle(&self) -> Result<()> {
        rustix::fs::sync(); // close has already put everything into the store
        Ok(())
    }
}

impl Drop for JuicefsNodes {
    fn drop(&mut self) {
        for root in &self.roots {
            if is_mounted(root) && run(Command::new(&self.binary).arg("umount").arg(root)).is_err() {
                force_unmount(root);
            }
            end_marked(root, 5.0);
            force_unmount(root);
        }
    }
}
