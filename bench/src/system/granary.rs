//! Granary: a node process of its own, with metadata and cache on an image of its own.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{GRANARY, System};
use crate::clock::Stopwatch;
use crate::disk::Disk;
use crate::process::{Memory, cpu_seconds, drop_caches, end_marked, force_unmount, is_mounted, memory, run};
use crate::target::Target;

const NAMESPACE: &str = "user/bench";
/// How long a node may take to stop before it is killed.
const STOP_S: f64 = 20.0;
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
const ENDPOINT_S3: &str = "AWS_ENDPOINT_URL_S3";
/// The setting that says how many of a hundred requests may be asked a second time.
const HEDGE_FLAG: &str = "--hedge-percent-max";
const HEDGE_VARIABLE: &str = "GRANARY_HEDGE_PERCENT_MAX";

/// The mount's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Work,
    Data,
}

#[derive(Debug)]
pub struct Granary {
    binary: PathBuf,
    variables: HashMap<String, String>,
    /// The store's own.
    endpoint: Option<String>,
    root: PathBuf,
    cache: PathBuf,
    socket: PathBuf,
    _disk: Disk, // after what lies on it was stopped
}

impl Granary {
    /// A new volume below `prefix` of the store, mounted in mode `work`.
    pub fn make(binary: &Path, dir: &Path, target: &Target, prefix: &str) -> Result<Self> {
        let disk = Disk::make(dir, "granary-disk")?;
        let root = dir.join(GRANARY);
        std::fs::create_dir(&root)?;
        let (meta, cache, socket) =
            (disk.path().join("meta"), disk.path().join("cache"), dir.join("node.sock"));
        let mut variables = target.variables();
        let endpoint = variables.get(ENDPOINT).cloned();
        for (name, path) in [("GRANARY_META", &meta), ("GRANARY_CACHE", &cache), ("GRANARY_SOCKET", &socket)]
        {
            variables.insert(name.into(), path.to_string_lossy().into_owned());
        }
        let granary =
            Granary { binary: binary.into(), variables, endpoint, root, cache, socket, _disk: disk };
        run(granary.command("init").arg("--meta").arg(meta).args(["--store", &target.granary_url(prefix)?]))?;
        granary.mount(Mode::Work)?;
        // As its peers are measured: what is removed is gone.
        run(granary.command("ns").args(["set", NAMESPACE, "--trash", "0"]))?;
        Ok(granary)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(name).envs(&self.variables);
        command
    }

    fn mount(&self, mode: Mode) -> Result<()> {
        let mut command = self.command("mount");
        command.arg(NAMESPACE).arg(&self.root);
        if mode == Mode::Data {
            command.args(["-o", "mode=data"]);
        }
        run(&mut command)?;
        anyhow::ensure!(
            is_mounted(&self.root),
            "granary mount said nothing, and {} is no mount",
            self.root.display()
        );
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        run(self.command("umount").arg(&self.root)).map(|_| ())
    }

    fn stop_node(&self) -> Result<()> {
        run(self.command("node").arg("stop"))?;
        end_marked(&self.socket, STOP_S);
        Ok(())
    }

    /// Everything written so far is in the store.
    pub fn sync(&self) -> Result<()> {
        run(self.command("sync").arg(&self.root)).map(|_| ())
    }

    /// Whether what is written waits on the node for an hour, and nothing that was stored is rewritten; or all is as usual.
    pub fn hold_back(&mut self, hold: bool) -> Result<()> {
        self.restart(|variables| {
            if hold {
                variables.insert("GRANARY_COMPACTION_BYTES_PER_S".into(), "0".into());
            } else {
                variables.remove("GRANARY_COMPACTION_BYTES_PER_S");
            }
        })?;
        let (small, large) = if hold { ("1h", "1h") } else { ("default", "default") };
        run(self.command("ns").args(["set", NAMESPACE, "--small-period", small, "--large-period", large]))
            .map(|_| ())
    }

    /// From now on nothing leaves for the store by itself, however much it is.
    pub fn hold_all(&mut self) -> Result<()> {
        self.restart(|variables| {
            for (name, value) in [
                ("GRANARY_SMALL_PERIOD_MS", "3600000"),
                ("GRANARY_LARGE_PERIOD_MS", "3600000"),
                ("GRANARY_DIRTY_BYTES_MAX", "64GiB"),
                ("GRANARY_DIRTY_FILES_MAX", "4000000"),
            ] {
                variables.insert(name.into(), value.into());
            }
        })
    }

    /// The node with other variables.
    fn restart(&mut self, change: impl FnOnce(&mut HashMap<String, String>)) -> Result<()> {
        self.sync()?;
        self.unmount()?;
        self.stop_node()?;
        change(&mut self.variables);
        self.mount(Mode::Work)
    }

    /// Whether slow requests to the store are asked a second time; holds from the next [`System::forget`] on. `false` when this
    /// Granary has no such setting, and nothing was changed.
    pub fn hedge(&mut self, on: bool) -> Result<bool> {
        if !run(self.command("node").arg("--help"))?.contains(HEDGE_FLAG) {
            return Ok(false);
        }
        if on {
            self.variables.remove(HEDGE_VARIABLE);
        } else {
            self.variables.insert(HEDGE_VARIABLE.into(), "0".into());
        }
        Ok(true)
    }

    /// kill -9 of the node, then nothing is in the page cache, and it is mounted again: how long that takes, and the processor
    /// time of the new node, in seconds.
    pub fn crash(&self) -> Result<(f64, f64)> {
        end_marked(&self.socket, 0.0);
        force_unmount(&self.root);
        drop_caches()?;
        let watch = Stopwatch::start();
        self.mount(Mode::Work)?;
        Ok((watch.seconds(), cpu_seconds(&self.socket)))
    }

    /// The same tree, mounted in another mode.
    pub fn remount(&self, mode: Mode) -> Result<()> {
        self.sync()?;
        self.unmount()?;
        self.mount(mode)
    }
}

impl System for Granary {
    fn name(&self) -> &'static str {
        GRANARY
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&self) -> Result<()> {
        self.sync()?;
        rustix::fs::sync();
        Ok(())
    }

    fn forget(&mut self, endpoint: Option<&str>) -> Result<()> {
        self.sync()?;
        self.unmount()?;
        self.stop_node()?;
        std::fs::remove_dir_all(&self.cache)?;
        if let Some(endpoint) = endpoint.or(self.endpoint.as_deref()) {
            // The second goes before the first, and a node that is started has both from the environment.
            for name in [ENDPOINT, ENDPOINT_S3] {
                self.variables.insert(name.into(), endpoint.to_owned());
            }
        }
        self.mount(Mode::Work)
    }

    fn memory(&self) -> Result<Option<Memory>> {
        memory(&self.socket).map(Some)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(cpu_seconds(&self.socket))
    }
}

impl Drop for Granary {
    fn drop(&mut self) {
        if is_mounted(&self.root) && self.unmount().is_err() {
            force_unmount(&self.root);
        }
        if self.socket.exists() {
            let _ = run(self.command("node").arg("stop"));
        }
        end_marked(&self.socket, STOP_S);
        force_unmount(&self.root);
    }
}
