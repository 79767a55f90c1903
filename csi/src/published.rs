//! What this driver published since it started: for whom, and how it is. Only so that it can be looked after; nothing that is answered
//! to kubelet rests on it, since a driver that was started anew knows nothing until kubelet publishes again (`requiresRepublish`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::pod::Pod;
use crate::volumes::MountWanted;

/// Volumes that are looked after. A node has no more pods than some hundred.
const PUBLISHED_MAX: usize = 4096;

/// One volume at one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// As it was mounted, and would be again.
    pub wanted: MountWanted,
    /// `None` without Kubernetes.
    pub pod: Option<Pod>,
    /// Why the pod would not get it now.
    pub withdrawn: Option<String>,
    /// What was found wrong with it, last.
    pub trouble: Option<String>,
    /// What it asked for is on the node, or does not have to be.
    pub warmed: bool,
}

/// All of them, by where they are.
#[derive(Debug, Default)]
pub struct Published {
    /// Guards the map for a look-up or a change.
    all: Mutex<BTreeMap<PathBuf, Publication>>,
}

impl Published {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Publication>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It was published, perhaps again; what was found wrong with it stays until it is looked at.
    pub fn note(&self, wanted: MountWanted, pod: Option<Pod>) {
        let mut all = self.lock();
        let dir = wanted.dir.clone();
        let (trouble, warmed) = all.get(&dir).map_or((None, false), |old| (old.trouble.clone(), old.warmed));
        if all.len() >= PUBLISHED_MAX && !all.contains_key(&dir) {
            tracing::warn!(dir = %dir.display(), "{PUBLISHED_MAX} volumes are looked after; one more is not");
            return;
        }
        all.insert(dir, Publication { wanted, pod, withdrawn: None, trouble, warmed });
    }

    /// Changes one, if it is known.
    pub fn change(&self, dir: &Path, change: impl FnOnce(&mut Publication)) {
        if let Some(publication) = self.lock().get_mut(dir) {
            change(publication);
        }
    }

    pub fn remove(&self, dir: &Path) {
        self.lock().remove(dir);
    }

    pub fn get(&self, dir: &Path) -> Option<Publication> {
        self.lock().get(dir).cloned()
    }

    pub fn all(&self) -> Vec<Publication> {
        self.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(dir: &str) -> MountWanted {
        MountWanted {
            namespace: "user/alice".parse().unwrap(),
            tree: None,
            dir: dir.into(),
            read_only: false,
            options: String::new(),
        }
    }

    #[test]
    fn publishing_again_gives_a_right_back_and_forgets_no_trouble() {
        let all = Published::default();
        all.note(wanted("/a"), None);
        all.change(Path::new("/a"), |it| {
            (it.withdrawn, it.trouble) = (Some("no".into()), Some("slow".into()))
        });
        all.change(Path::new("/b"), |_| panic!("it is not there"));
        all.note(wanted("/a"), None);
        let it = all.get(Path::new("/a")).unwrap();
        assert_eq!((it.withdrawn, it.trouble.as_deref()), (None, Some("slow")));
        all.remove(Path::new("/a"));
        assert!(all.all().is_empty());
    }

    #[test]
    fn there_is_a_bound() {
        let all = Published::default();
        (0..PUBLISHED_MAX + 5).for_each(|n| all.note(wanted(&format!("/{n}")), None));
        assert_eq!(all.all().len(), PUBLISHED_MAX);
        all.note(wanted("/1"), None);
        assert!(all.get(Path::new("/1")).is_some());
    }
}
