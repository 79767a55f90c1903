//! rclone mount: each file an object, with its cache of files' parts (`--vfs-cache-mode full`), otherwise as it comes.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::{RCLONE, System};
use crate::clock::Stopwatch;
use crate::disk::Disk;
use crate::process::{Memory, cpu_seconds, force_unmount, is_mounted, memory, run};
use crate::stop;
use crate::target::{Bucket, DATA, Target};

/// Uploads in the background that take longer than this are an error.
const SETTLE_S: f64 = 600.0;
const MOUNT_S: f64 = 60.0;

#[derive(Debug)]
pub struct Rclone {
    binary: PathBuf,
    bucket: Bucket,
    /// Its configuration, of one remote.
    variables: HashMap<String, String>,
    mount: PathBuf,
    root: PathBuf,
    cache: PathBuf,
    log: PathBuf,
    /// Where it takes questions.
    control: String,
    child: Option<Child>,
    _disk: Disk,
}

/// What `vfs/stats` says of the cache.
#[derive(Debug, Deserialize)]
struct Stats {
    #[serde(rename = "diskCache")]
    disk_cache: DiskCache,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DiskCache {
    uploads_in_progress: u64,
    uploads_queued: u64,
}

impl Rclone {
    /// The run's bucket, mounted; what is written goes into `name` of it.
    pub fn make(binary: &Path, dir: &Path, target: &Target, name: &str) -> Result<Self> {
        let bucket = target.bucket().context("rclone needs an S3 store")?.clone();
        let disk = Disk::make(dir, "rclone-disk")?;
        let mount = dir.join(RCLONE);
        std::fs::create_dir(&mount)?;
        let variables = [
            ("TYPE", "s3"),
            ("PROVIDER", "Ceph"),
            ("ENDPOINT", bucket.endpoint()?),
            ("REGION", bucket.region()),
            ("ACCESS_KEY_ID", bucket.variable("AWS_ACCESS_KEY_ID")?),
            ("SECRET_ACCESS_KEY", bucket.variable("AWS_SECRET_ACCESS_KEY")?),
        ];
        let variables =
            variables.map(|(name, value)| (format!("RCLONE_CONFIG_BENCH_{name}"), value.to_owned()));
        let mut rclone = Rclone {
            binary: binary.into(),
            root: mount.join(&bucket.prefix).join(name),
            bucket,
            variables: variables.into(),
            mount,
            cache: disk.path().join("cache"),
            log: dir.join("rclone.log"),
            control: String::new(),
            child: None,
            _disk: disk,
        };
        rclone.mount()?;
        std::fs::create_dir_all(&rclone.root)
            .with_context(|| format!("cannot make {}", rclone.root.display()))?;
        Ok(rclone)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(name).envs(&self.variables);
        command.args(["--config", "/dev/null"]); // nobody's own
        command.env_remove("AWS_CA_BUNDLE"); // its S3 client refuses to be made with one
        command
    }

    fn mount(&mut self) -> Result<()> {
        // It cannot be told to take a free port and say which.
        let free = TcpListener::bind("127.0.0.1:0")?;
        self.control = free.local_addr()?.to_string();
        drop(free);
        let mut command = self.command("mount");
        command.arg(format!("bench:{}", self.bucket.name)).arg(&self.mount);
        command.args(["--vfs-cache-mode", "full", "--cache-dir"]).arg(&self.cache);
        command.args(["--rc", "--rc-no-auth", "--rc-addr", &self.control]);
        // Not with `--daemon`: before 1.61 both processes of it listen at the address, and the second fails.
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("cannot run rclone mount")?;
        let watch = Stopwatch::start();
        while !is_mounted(&self.mount) {
            if child.try_wait()?.is_some() || watch.seconds() > MOUNT_S {
                let _ = child.kill();
                let _ = child.wait();
                bail!("rclone mount: {}", std::fs::read_to_string(&self.log).unwrap_or_default().trim_end());
            }
            stop::check()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child = Some(child);
        Ok(())
    }

    fn uploads(&self) -> Result<u64> {
        let said = run(self.command("rc").args(["--rc-addr", &self.control, "vfs/stats"]))?;
        let at = said.find('{').with_context(|| format!("rclone rc vfs/stats said no JSON: {said}"))?;
        let stats: Stats = serde_json::from_str(&said[at..]).context("what rclone rc vfs/stats said")?;
        Ok(stats.disk_cache.uploads_in_progress + stats.disk_cache.uploads_queued)
    }

    fn unmount(&mut self) -> Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        self.end(60.0);
        Ok(())
    }

    /// Its process ends by itself when it is unmounted, and is waited for.
    fn end(&mut self, patience_s: f64) {
        let Some(mut child) = self.child.take() else { return };
        let watch = Stopwatch::start();
        while child.try_wait().is_ok_and(|status| status.is_none()) {
            if watch.seconds() > patience_s {
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl System for Rclone {
    fn name(&self) -> &'static str {
        RCLONE
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&self) -> Result<()> {
        let watch = Stopwatch::start();
        loop {
            let left = self.uploads()?;
            if left == 0 {
                break;
            }
            stop::check()?;
            ensure!(watch.seconds() < SETTLE_S, "rclone has {left} uploads left after {SETTLE_S} s");
            std::thread::sleep(Duration::from_millis(200));
        }
        rustix::fs::sync();
        Ok(())
    }

    fn forget(&mut self, endpoint: Option<&str>) -> Result<()> {
        self.settle()?;
        self.unmount()?;
        if self.cache.exists() {
            std::fs::remove_dir_all(&self.cache)?;
        }
        let endpoint = endpoint.map_or_else(|| self.bucket.endpoint(), Ok)?.to_owned();
        self.variables.insert("RCLONE_CONFIG_BENCH_ENDPOINT".into(), endpoint);
        self.mount()
    }

    fn memory(&self) -> Result<Option<Memory>> {
        memory(&self.mount).map(Some)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some(cpu_seconds(&self.mount))
    }

    fn is_posix(&self) -> bool {
        false
    }

    fn stored(&self) -> Option<PathBuf> {
        Some(self.mount.join(&self.bucket.prefix).join(DATA))
    }
}

impl Drop for Rclone {
    fn drop(&mut self) {
        if is_mounted(&self.mount) && self.unmount().is_err() {
            force_unmount(&self.mount);
        }
        self.end(5.0);
        force_unmount(&self.mount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_upload_is_read() {
        let said = r#"{"diskCache": {"bytesUsed": 0, "files": 3, "uploadsInProgress": 4, "uploadsQueued": 7},
                       "fs": "bench:b", "inUse": 1}"#;
        let stats: Stats = serde_json::from_str(said).unwrap();
        assert_eq!((stats.disk_cache.uploads_in_progress, stats.disk_cache.uploads_queued), (4, 7));
    }
}
