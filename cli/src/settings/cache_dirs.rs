//! Folders of the read cache.

use std::path::Path;

use granary_cache::CacheFolder;

use crate::exit::plain;
use crate::units;

/// The least size of a folder of the read cache, as that of `cache_bytes_max`.
const CACHE_FOLDER_BYTES_MIN: u64 = 64 << 20;

/// `PATH` or `PATH=SIZE`, with commas between them; without a size it is `bytes_max`. What is wrong, for a person.
pub(super) fn parse_cache_dirs(text: &str, cache: &Path, bytes_max: u64) -> Result<Vec<CacheFolder>, String> {
    let mut folders: Vec<CacheFolder> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (path, size) =
            item.rsplit_once('=').map_or((item, None), |(path, size)| (path.trim(), Some(size.trim())));
        let bytes_max =
            size.map_or(Ok(bytes_max), units::parse_bytes).map_err(|why| format!("{item:?}: {why}"))?;
        if bytes_max < CACHE_FOLDER_BYTES_MIN {
            return Err(format!("{item:?}: {bytes_max} bytes cannot work; give at least 64MiB"));
        }
        let path = std::path::absolute(path).map_err(|e| format!("{path:?} is no path: {}", plain(&e)))?;
        if path.starts_with(cache) || folders.iter().any(|known| known.path == path) {
            return Err(format!("{} is used for the cache already; name each folder once", path.display()));
        }
        folders.push(CacheFolder { path, bytes_max });
    }
    Ok(folders)
}
