//! s3fs: each file an object, with its cache of whole files switched on, otherwise as it comes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{S3FS, System};
use crate::disk::Disk;
use crate::process::{Memory, cpu_seconds, end_marked, force_unmount, is_mounted, memory, run};
use crate::target::{Bucket, DATA, Target};

#[derive(Debug)]
pub struct S3fs {
    binary: PathBuf,
    bucket: Bucket,
    keys: HashMap<String, String>,
    /// The whole bucket is mounted: a prefix would have to be there as an object.
    mount: PathBuf,
    root: PathBuf,
    cache: PathBuf,
    endpoint: String,
    _disk: Disk,
}

impl S3fs {
    /// The run's bucket, mounted; what is written goes into `name` of it.
    pub fn make(binary: &Path, dir: &Path, target: &Target, name: &str) -> Result<Self> {
        let bucket = target.bucket().context("s3fs needs an S3 store")?.clone();
        let disk = Disk::make(dir, "s3fs-disk")?;
        let mount = dir.join(S3FS);
        std::fs::create_dir(&mount)?;
        let mut keys = HashMap::new();
        for (of, from) in
            [("AWSACCESSKEYID", "AWS_ACCESS_KEY_ID"), ("AWSSECRETACCESSKEY", "AWS_SECRET_ACCESS_KEY")]
        {
            keys.insert(of.to_owned(), bucket.variable(from)?.to_owned());
        }
        let s3fs = S3fs {
            binary: binary.into(),
            root: mount.join(&bucket.prefix).join(name),
            endpoint: bucket.endpoint()?.to_owned(),
            bucket,
            keys,
            mount,
            cache: disk.path().join("cache"),
            _disk: disk,
        };
        s3fs.mount()?;
        std::fs::create_dir_all(&s3fs.root)
            .with_context(|| format!("cannot make {}", s3fs.root.display()))?;
        Ok(s3fs)
    }

    fn mount(&self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.arg(&self.bucket.name).arg(&self.mount).envs(&self.keys);
        let cache = format!("use_cache={}", self.cache.display());
        let (url, region) = (format!("url={}", self.endpoint), format!("endpoint={}", self.bucket.region()));
        // Objects that others put have no modes: they are shown as readable.
        for option in [&url, &region, &cache, "use_path_request_style", "complement_stat"] {
            command.args(["-o", option]);
        }
        run(&mut command)?;
        anyhow::ensure!(
            is_mounted(&self.mount),
            "s3fs said nothing, and {} is no mount",
            self.mount.display()
        );
        Ok(())
    }

    fn unmount(&self) -> Result<()> {
        run(Command::new("umount").arg(&self.mount))?;
        end_marked(&self.mount, 60.0);
        Ok(())
    }
}

impl System for S3fs {
    fn name(&self) -> &'static str {
        S3FS
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn settle(&self) -> Result<()> {
        rustix::fs::sync(); // close has put everything into the store
        Ok(())
    }

    fn forget(&mut self, endpoint: Option<&str>) -> Result<()> {
        self.unmount()?;
        if self.cache.exists() {
            std::fs::remove_dir_all(&self.cache)?;
        }
        self.endpoint = endpoint.map_or_else(|| self.bucket.endpoint(), Ok)?.to_owned();
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

impl Drop for S3fs {
    fn drop(&mut self) {
        if is_mounted(&self.mount) && self.unmount().is_err() {
            force_unmount(&self.mount);
        }
        end_marked(&self.mount, 5.0);
        force_unmount(&self.mount);
    }
}
