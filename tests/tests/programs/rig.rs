//! One node for all tests of this binary, which run side by side on it; with short periods, so that what they write leaves for
//! the store, and the stage is cleared, amid their work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use granary_tests::{Node, StoreKind, run};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Work,
    Data,
}

/// The node, while any test uses it.
static RIG: Mutex<Weak<Rig>> = Mutex::new(Weak::new());

/// A namespace in each mode, both open to everybody.
pub struct Rig {
    node: Node,
    work: PathBuf,
    data: PathBuf,
}

impl Rig {
    pub fn get() -> Arc<Rig> {
        let mut slot = RIG.lock().expect("a rig that starts");
        if let Some(rig) = slot.upgrade() {
            return rig;
        }
        let node = Node::with_settings(
            StoreKind::Folder,
            &[("GRANARY_SMALL_PERIOD_MS", "50"), ("GRANARY_LARGE_PERIOD_MS", "100")],
        );
        let work = node.mount("user/work", "rw,dev,suid,mode=work");
        let data = node.mount("user/data", "rw,dev,suid,mode=data");
        for path in [&node.path("."), &work, &data] {
            fs::set_permissions(path, Permissions::from_mode(0o755)).expect("chmod");
        }
        let rig = Arc::new(Rig { node, work, data });
        *slot = Arc::downgrade(&rig);
        rig
    }

    /// A new directory on the mount of that mode.
    pub fn directory(&self, mode: Mode, name: &str) -> PathBuf {
        let root = match mode {
            Mode::Work => &self.work,
            Mode::Data => &self.data,
        };
        let path = root.join(name);
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// A new directory on the plain disk.
    pub fn scratch(&self, mode: Mode, name: &str) -> PathBuf {
        let path = self.node.path(&format!("scratch-{mode:?}-{name}"));
        fs::create_dir(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Runs a script with a directory on the mount, a plain directory and `more` as arguments. It must succeed, and what it
    /// left must reach the store.
    pub fn script(&self, mode: Mode, name: &str, text: &str, more: &[&str]) {
        let (dir, scratch) = (self.directory(mode, name), self.scratch(mode, name));
        let mut command = if name.ends_with(".py") {
            let mut command = Command::new("python3");
            command.args(["-c", text]);
            command
        } else {
            let mut command = Command::new("bash");
            command.args(["-euxo", "pipefail", "-c", text, name]);
            command
        };
        let out = run(command.arg(&dir).arg(&scratch).args(more));
        assert_eq!(out.code, Some(0), "{name} on a mount in mode {mode:?}\n{}\n{}", out.stdout, out.stderr);
        self.node.sync(&dir);
        fs::remove_dir_all(dir).expect("what it left is removed");
    }
}
