//! Where the objects of the systems measured go, and what can be asked of it without them.

mod data;
mod raw;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, path::Path as Key};
use tokio::runtime::Runtime;

use crate::ceph::Ceph;

pub use data::DATA;
pub use raw::RawGets;

const CEPH_BUCKET: &str = "granary-bench";

/// `--store`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    File,
    Ceph,
    S3 { bucket: String, prefix: String },
}

impl StoreKind {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "file" => return Ok(StoreKind::File),
            "ceph" => return Ok(StoreKind::Ceph),
            _ => {}
        }
        let rest = text.strip_prefix("s3://").context("a store is file, ceph or s3://bucket/prefix")?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!bucket.is_empty(), "a store is s3://bucket/prefix");
        Ok(StoreKind::S3 { bucket: bucket.into(), prefix: prefix.trim_matches('/').into() })
    }
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

/// A bucket, and how programs reach it.
#[derive(Clone, Debug)]
pub struct Bucket {
    pub name: String,
    /// Below which everything of the run lies; may be empty.
    pub prefix: String,
    /// The `AWS_*` variables.
    variables: HashMap<String, String>,
}

impl Bucket {
    /// What `name` (as `AWS_ENDPOINT_URL`) is set to.
    pub fn variable(&self, name: &str) -> Result<&str> {
        let value = self.variables.get(name).map(String::as_str);
        value.with_context(|| format!("{name} is not set, and an S3 store needs it"))
    }

    pub fn endpoint(&self) -> Result<&str> {
        self.variable("AWS_ENDPOINT_URL")
    }

    pub fn region(&self) -> &str {
        self.variables.get("AWS_REGION").map_or("us-east-1", String::as_str)
    }

    /// A client that reaches it at `endpoint`.
    fn client(&self, endpoint: &str) -> Result<Arc<dyn ObjectStore>> {
        let s3 = AmazonS3Builder::new()
            .with_endpoint(endpoint)
            .with_access_key_id(self.variable("AWS_ACCESS_KEY_ID")?)
            .with_secret_access_key(self.variable("AWS_SECRET_ACCESS_KEY")?)
            .with_region(self.region())
            .with_bucket_name(&self.name)
            .with_virtual_hosted_style_request(false)
            .with_unsigned_payload(true)
            .with_allow_http(true);
        Ok(Arc::new(s3.build()?))
    }
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub objects: u64,
    pub bytes: u64,
}

/// What is in the store at one moment: keys are never used twice, so two looks tell what was stored between them, whatever was
/// deleted meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(HashMap<Key, u64>);

impl Listing {
    /// What was not there `before`.
    pub fn since(&self, before: &Listing) -> Usage {
        let new = self.0.iter().filter(|(key, _)| !before.0.contains_key(*key));
        new.fold(Usage::default(), |sum, (_, bytes)| Usage {
            objects: sum.objects + 1,
            bytes: sum.bytes + bytes,
        })
    }
}

/// The store of the run; what it started is stopped when dropped.
#[derive(Debug)]
pub struct Target {
    pub describe: String,
    place: Place,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    _ceph: Option<Ceph>,
}

impl Target {
    pub fn open(kind: &StoreKind, dir: &Path, ceph_tool: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let (place, describe, ceph) = match kind {
            StoreKind::File => {
                let folder = dir.join("store");
                std::fs::create_dir(&folder)?;
                (Place::Folder(folder), "a folder of the same disk".to_owned(), None)
            }
            StoreKind::Ceph => {
                let (ceph, variables) = Ceph::start(ceph_tool, dir, CEPH_BUCKET)?;
                let bucket = Bucket { name: CEPH_BUCKET.into(), prefix: String::new(), variables };
                (Place::Bucket(bucket), "Ceph RGW, one OSD, same machine, loopback".to_owned(), Some(ceph))
            }
            StoreKind::S3 { bucket, prefix } => {
                let variables = std::env::vars().filter(|(k, _)| k.starts_with("AWS_")).collect();
                let place = Bucket { name: bucket.clone(), prefix: prefix.clone(), variables };
                (Place::Bucket(place), format!("s3://{bucket}/{prefix}"), None)
            }
        };
        let store: Arc<dyn ObjectStore> = match &place {
            Place::Folder(folder) => Arc::new(LocalFileSystem::new_with_prefix(folder)?),
            Place::Bucket(bucket) => bucket.client(bucket.endpoint()?)?,
        };
        Ok(Target { describe, place, store, runtime, _ceph: ceph })
    }

    /// Variables that programs need to reach it.
    pub fn variables(&self) -> HashMap<String, String> {
        match &self.place {
            Place::Folder(_) => HashMap::new(),
            Place::Bucket(bucket) => bucket.variables.clone(),
        }
    }

    /// `None` of a folder.
    pub fn bucket(&self) -> Option<&Bucket> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Bucket(bucket) => Some(bucket),
        }
    }

    fn key(&self, below: &str) -> String {
        match &self.place {
            Place::Bucket(bucket) if !bucket.prefix.is_empty() => format!("{}/{below}", bucket.prefix),
            _ => below.to_owned(),
        }
    }

    /// As `granary init --store` takes it.
    pub fn granary_url(&self, below: &str) -> Result<String> {
        Ok(match &self.place {
            Place::Folder(folder) => {
                let path = folder.join(below);
                std::fs::create_dir_all(&path)?;
                format!("file://{}", path.display())
            }
            Place::Bucket(bucket) => format!("s3://{}/{}", bucket.name, self.key(below)),
        })
    }

    /// As `juicefs format` takes it.
    pub fn juicefs_flags(&self) -> Result<Vec<String>> {
        Ok(match &self.place {
            Place::Folder(folder) => {
                vec!["--storage".into(), "file".into(), "--bucket".into(), format!("{}/", folder.display())]
            }
            Place::Bucket(bucket) => {
                let (key, secret) =
                    (bucket.variable("AWS_ACCESS_KEY_ID")?, bucket.variable("AWS_SECRET_ACCESS_KEY")?);
                let url = format!("{}/{}", bucket.endpoint()?, bucket.name);
                let flags =
                    ["--storage", "s3", "--bucket", &url, "--access-key", key, "--secret-key", secret];
                flags.map(str::to_owned).to_vec()
            }
        })
    }

    pub fn list(&self, below: &str) -> Result<Listing> {
        let prefix = Key::from(self.key(below));
        let entries = self.store.list(Some(&prefix)).map_ok(|meta| (meta.location, meta.size));
        Ok(Listing(self.runtime.block_on(entries.try_collect())?))
    }

    /// Forgets a round's objects in a folder, which shares the disk; a bucket is left to its owner.
    pub fn clear(&self) -> Result<()> {
        if let Place::Folder(folder) = &self.place {
            std::fs::remove_dir_all(folder)?;
            std::fs::create_dir(folder)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_are_parsed() {
        assert_eq!(StoreKind::parse("file").unwrap(), StoreKind::File);
        assert_eq!(StoreKind::parse("ceph").unwrap(), StoreKind::Ceph);
        let s3 = |bucket: &str, prefix: &str| StoreKind::S3 { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!(StoreKind::parse("s3://b").unwrap(), s3("b", ""));
        assert_eq!(StoreKind::parse("s3://b/p/q/").unwrap(), s3("b", "p/q"));
        assert!(StoreKind::parse("s3://").is_err());
        assert!(StoreKind::parse("gs://b").is_err());
    }

    #[test]
    fn a_folder_counts_its_objects() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::open(&StoreKind::File, dir.path(), Path::new("")).unwrap();
        assert!(target.granary_url("round").unwrap().ends_with("/store/round"));
        std::fs::write(dir.path().join("store/round/a"), b"123").unwrap();
        let before = target.list("round").unwrap();
        assert_eq!(before.since(&Listing::default()), Usage { objects: 1, bytes: 3 });
        // What is dead is deleted while the next work is measured.
        std::fs::write(dir.path().join("store/round/b"), b"12345").unwrap();
        std::fs::remove_file(dir.path().join("store/round/a")).unwrap();
        assert_eq!(target.list("round").unwrap().since(&before), Usage { objects: 1, bytes: 5 });
        target.clear().unwrap();
        assert_eq!(target.list("round").unwrap(), Listing::default());
    }
}
