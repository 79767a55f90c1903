//! Where a data set is: a folder, or a prefix of a bucket. Both are read through the store's production stack (retry, limits,
//! hedging); what is in a folder can also be mapped and read as a file.

mod folder;

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use granary_core::limits::Limits;
use granary_core::{Clock, Error, Kind, Result};
use granary_store::key::check_key;
use granary_store::{Environment, ObjectMeta, Store, Upload};
use prometheus_client::registry::Registry;

pub use folder::NewFile;

/// Bytes of one request when more are wanted.
const REQUEST_BYTES: u64 = 16 << 20;

/// Larger objects are put in parts.
const WHOLE_BYTES_MAX: u64 = 64 << 20;

/// How to reach places.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A folder that is missing is made.
    pub create: bool,
    /// The variables the AWS tools read; for `s3:` only.
    pub environment: Environment,
    /// The store's servers; with none, the one of the environment.
    pub endpoints: Vec<String>,
    pub limits: Limits,
}

impl Options {
    /// The defaults, with this process's environment variables.
    pub fn from_env() -> Options {
        Options { environment: Environment::of_process(), ..Options::default() }
    }
}

/// A data set's root. Clones share it.
#[derive(Clone, Debug)]
pub struct Place {
    store: Arc<dyn Store>,
    /// Of a folder.
    folder: Option<Arc<Path>>,
}

impl Place {
    /// A folder's path, `file:///folder` or `s3://bucket/prefix`. Asks a bucket nothing yet.
    ///
    /// Errors: `Invalid` for a text that cannot be; `Denied` when there are no keys; `NotFound` for a missing folder.
    pub fn open(text: &str, options: &Options, clock: Arc<dyn Clock>) -> Result<Place> {
        Place::open_metered(text, options, clock, &mut Registry::default())
    }

    /// The same, with the store's metrics in `registry`.
    pub fn open_metered(
        text: &str,
        options: &Options,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Place> {
        let (url, folder) = parse(text)?;
        let store_options = granary_store::Options {
            create: options.create,
            endpoints: options.endpoints.clone(),
            environment: options.environment.clone(),
            ..granary_store::Options::default()
        };
        if let Some(folder) = &folder
            && !options.create
            && !folder.is_dir()
        {
            let why = if folder.exists() { "is not a folder" } else { "is not there" };
            return Err(Error::new(
                Kind::NotFound,
                format!("{} {why}; give the folder of a data set, or s3://bucket/prefix", folder.display()),
            ));
        }
        let store = granary_store::production_with(&url, &store_options, &options.limits, clock, registry)?;
        Ok(Place { store, folder: folder.map(Into::into) })
    }

    /// Over any store: for tests, and for stacks of one's own.
    pub fn of_store(store: Arc<dyn Store>) -> Place {
        Place { store, folder: None }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// How often its store was asked again, because an attempt had failed.
    pub fn retries(&self) -> u64 {
        self.store.retries()
    }

    /// The root, when it is a folder.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// Where something is on this machine's disk; `None` in a bucket, or when it cannot be a name.
    pub fn local_path(&self, name: &str) -> Option<PathBuf> {
        check_key(name).ok()?;
        Some(self.folder.as_deref()?.join(name))
    }

    /// Exactly these bytes.
    ///
    /// Errors: `NotFound`; `Corrupt` when there are fewer; what the store says.
    pub async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        if range.end.saturating_sub(range.start) <= REQUEST_BYTES {
            return self.store.get(name, range).await;
        }
        let mut all = BytesMut::new();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min(at + REQUEST_BYTES);
            all.extend_from_slice(&self.store.get(name, at..end).await?);
            at = end;
        }
        Ok(all.freeze())
    }

    /// All of it.
    ///
    /// Errors: `FileTooLarge` when it has more than `bytes_max`; as [`Place::get`].
    pub async fn read_whole(&self, name: &str, bytes_max: u64) -> Result<Bytes> {
        let size = self.store.head(name).await?.size;
        if size > bytes_max {
            return Err(Error::new(
                Kind::FileTooLarge,
                format!("{self}/{name} has {size} bytes, more than the {bytes_max} it may have"),
            ));
        }
        self.get(name, 0..size).await
    }

    /// `NotFound` when it is not there.
    pub async fn head(&self, name: &str) -> Result<ObjectMeta> {
        self.store.head(name).await
    }

    /// At most `max` names that begin with `prefix` and sort after `after`, in order.
    pub async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        self.store.list(prefix, after, max).await
    }

    /// Whole or not at all; what was there is replaced. Large ones are put in parts, one after another.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.folder.is_some() || bytes.len() as u64 <= WHOLE_BYTES_MAX {
            return self.store.put(name, vec![bytes]).await;
        }
        let upload = Upload::begin(self.store.clone(), name).await?;
        let put = async {
            let parts = (0..bytes.len()).step_by(REQUEST_BYTES as usize);
            for (number, at) in (0u32..).zip(parts) {
                let end = bytes.len().min(at + REQUEST_BYTES as usize);
                upload.part(number, vec![bytes.slice(at..end)]).await?;
            }
            upload.finish().await
        };
        if let Err(e) = put.await {
            // What is to be heard is why it failed; parts that stay are never taken for an object.
            if let Err(e) = upload.abort().await {
                tracing::warn!("parts of {self}/{name} stay in the store: {e}");
            }
            return Err(e);
        }
        Ok(())
    }

    /// Whole or not at all, and only when it is not there. In a bucket, where conditional requests cannot be relied upon, two who
    /// do it in the same moment may both succeed.
    ///
    /// Errors: `Exists`; what the store says.
    pub async fn put_new(&self, name: &str, bytes: Bytes) -> Result<()> {
        if self.folder.is_some() {
            let mut new = self.new_file(name)?;
            std::io::Write::write_all(&mut new, &bytes)
                .map_err(|e| Error::io(format!("cannot write {self}/{name}"), e))?;
            return new.keep_new();
        }
        match self.store.head(name).await {
            Ok(_) => Err(Error::new(Kind::Exists, format!("{self}/{name} is there already"))),
            Err(e) if e.kind() == Kind::NotFound => self.put(name, bytes).await,
            Err(e) => Err(e),
        }
    }

    /// A file that gets its name when it is whole: of folders only.
    ///
    /// Errors: `Invalid` for a name that cannot be; `Unsupported` in a bucket; what the disk says.
    pub fn new_file(&self, name: &str) -> Result<NewFile> {
        let Some(folder) = &self.folder else {
            return Err(Error::new(Kind::Unsupported, format!("{self} is no folder")));
        };
        check_key(name)?;
        NewFile::create(folder, name)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.folder {
            Some(folder) => write!(f, "{}", folder.display()),
            None => f.write_str(&self.store.describe()),
        }
    }
}

/// The store's URL, and the folder.
fn parse(text: &str) -> Result<(String, Option<PathBuf>)> {
    let invalid = |why: &str| {
        Error::new(
            Kind::Invalid,
            format!("{text:?} cannot hold a data set: {why}; give a folder or s3://bucket/prefix"),
        )
    };
    if text.starts_with("s3://") {
        return Ok((text.to_owned(), None));
    }
    let path = match text.strip_prefix("file://") {
        Some(path) if path.starts_with('/') => PathBuf::from(path),
        Some(_) => return Err(invalid("three slashes follow `file:`")),
        None if text.is_empty() => return Err(invalid("it is empty")),
        None if text.contains("://") => return Err(invalid("it is of an unknown kind")),
        None => PathBuf::from(text),
    };
    let path = std::path::absolute(&path).map_err(|e| Error::io(format!("cannot find {text}"), e))?;
    let url = granary_store_url(&path).ok_or_else(|| invalid("its path is not UTF-8"))?;
    Ok((url, Some(path)))
}

/// A path as a URL, every byte that is not plain escaped.
fn granary_store_url(path: &Path) -> Option<String> {
    let mut url = "file://".to_owned();
    for byte in path.to_str()?.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                url.push(char::from(byte))
            }
            _ => url += &format!("%{byte:02X}"),
        }
    }
    Some(url)
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::SystemClock;

    fn open(text: &str) -> Result<Place> {
        Place::open(text, &Options::default(), Arc::new(SystemClock))
    }

    #[tokio::test]
    async fn a_folder_is_read_and_written() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("a b%ü?#");
        std::fs::create_dir(&odd).unwrap();
        let place = open(odd.to_str().unwrap()).unwrap();
        place.put_new("x/y", Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(place.put_new("x/y", Bytes::new()).await.unwrap_err().kind(), Kind::Exists);
        assert_eq!(std::fs::read(place.local_path("x/y").unwrap()).unwrap(), b"hello");
        assert_eq!(place.get("x/y", 1..4).await.unwrap(), "ell");
        assert_eq!(place.read_whole("x/y", 5).await.unwrap(), "hello");
        assert_eq!(place.read_whole("x/y", 4).await.unwrap_err().kind(), Kind::FileTooLarge);
        assert_eq!(place.list("", None, 9).await.unwrap().len(), 1);
        assert_eq!(place.local_path("../x"), None);
        assert_eq!(place.to_string(), odd.to_str().unwrap());
    }

    #[tokio::test]
    async fn a_bucket_is_too() {
        let place = Place::of_store(Arc::new(granary_store::MemoryStore::new(Arc::new(SystemClock))));
        place.put_new("x", Bytes::from(vec![7; 70 << 20])).await.unwrap();
        assert_eq!(place.put_new("x", Bytes::new()).await.unwrap_err().kind(), Kind::Exists);
        assert_eq!(place.read_whole("x", u64::MAX).await.unwrap().len(), 70 << 20);
        assert_eq!(place.local_path("x"), None);
        assert_eq!(place.new_file("x").unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_mend() {
        for bad in ["", "http://x/y", "file://host/x"] {
            let e = open(bad).unwrap_err();
            assert!(e.kind() == Kind::Invalid && e.to_string().contains("give a folder or s3://"), "{e}");
        }
        let e = open("/nonexistent/x").unwrap_err();
        assert!(e.kind() == Kind::NotFound && e.to_string().contains("/nonexistent/x is not there"), "{e}");
    }
}
