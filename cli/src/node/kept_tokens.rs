//! Tokens for one namespace alone, kept until they end, so that a node that was started anew can go on with what is staged of that
//! namespace: its own token opens none. `CACHE/tokens/ID`, one line, readable by the node's user alone, as what is staged beside it is.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use granary_core::{Kind, NamespaceId};
use granary_meta::token::{Rights, inspect};

use crate::exit::{Failure, Outcome};
use crate::token_file::{self, Secret};

fn folder(cache: &Path) -> PathBuf {
    cache.join("tokens")
}

/// Whole or not at all; one to read takes no place from one to write. What is lost with the machine's power is asked for again.
pub fn keep(cache: &Path, id: NamespaceId, token: &Secret, now_secs: u64) -> Outcome<()> {
    let writes = |token: &Secret| inspect(token.as_str()).is_ok_and(|said| said.rights == Rights::ReadWrite);
    if !writes(token) && find(cache, id, now_secs).as_ref().is_some_and(writes) {
        return Ok(());
    }
    let dir = folder(cache);
    let (path, new) = (dir.join(id.to_string()), dir.join(format!("{id}.new")));
    let write = || {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(token.as_str().as_bytes())?;
        std::fs::rename(&new, &path)
    };
    write()
        .map_err(|e| Failure::io(format!("cannot keep the token of a namespace as {}", path.display()), &e))
}

/// The one that is kept, if it lasts; what has ended is removed.
pub fn find(cache: &Path, id: NamespaceId, now_secs: u64) -> Option<Secret> {
    let path = folder(cache).join(id.to_string());
    let token = match token_file::read(&path) {
        Ok(token) => token,
        Err(failure) if failure.is(Kind::NotFound) => return None,
        Err(failure) => {
            tracing::warn!("{failure}");
            return None;
        }
    };
    let lasts = inspect(token.as_str()).is_ok_and(|said| said.expires > now_secs);
    if !lasts {
        // Fails when it is gone already.
        let _ = std::fs::remove_file(&path);
    }
    lasts.then_some(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use granary_core::{Clock, TestClock};
    use granary_meta::token::{Grant, SigningKey, issue};

    use super::*;

    #[test]
    fn kept_for_the_nodes_user_until_it_ends() {
        let (dir, clock) = (tempfile::tempdir().unwrap(), TestClock::default());
        let signed = |rights| {
            let (user, groups, namespaces) = ("csi".into(), vec![], Some(vec!["group/asr".parse().unwrap()]));
            let grant = Grant { user, groups, rights, namespaces, lifetime_secs: 60 };
            let key = SigningKey::from_seed(&[1; 32]).unwrap();
            let text = issue(&key, &"0".repeat(32), &grant, &clock, 1).unwrap();
            serde_json::from_value::<Secret>(serde_json::json!(text)).unwrap()
        };
        let (token, less) = (signed(Rights::ReadWrite), signed(Rights::ReadOnly));
        let (id, now) = (NamespaceId(3), clock.now().unix_ms() / 1000);
        assert_eq!(find(dir.path(), id, now), None);
        for offered in [&less, &token, &less] {
            keep(dir.path(), id, offered, now).unwrap();
        }
        for _ in 0..2 {
            keep(dir.path(), id, &token, now).unwrap();
            assert_eq!(find(dir.path(), id, now + 59), Some(token.clone()));
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let file = folder(dir.path()).join(id.to_string());
        assert_eq!((mode(&folder(dir.path())), mode(&file)), (0o700, 0o600));
        assert_eq!((find(dir.path(), NamespaceId(4), now), find(dir.path(), id, now + 60)), (None, None));
        assert!(!file.exists(), "it has ended");
        std::fs::write(&file, "no token").unwrap();
        assert_eq!(find(dir.path(), id, now), None);
        keep(dir.path(), id, &less, now).unwrap();
        assert_eq!(find(dir.path(), id, now), Some(less), "what has ended is no reason to keep nothing");
    }
}
