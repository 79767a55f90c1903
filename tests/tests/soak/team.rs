//! Threads that work on one mount, each in a directory of its own.

use std::fs;
use std::path::{Path, PathBuf};

use granary_tests::{Failure, Found, Model, Weather, Worker, read};
use rand::RngExt;
use rand::rngs::StdRng;

use super::progress::Progress;

#[derive(Debug)]
struct Member {
    dir: String,
    model: Model,
    seed: u64,
}

#[derive(Debug)]
pub struct Team {
    members: Vec<Member>,
}

impl Team {
    /// Makes their directories, durably.
    pub fn new(mnt: &Path, dirs: &[String]) -> Team {
        for dir in dirs {
            fs::create_dir(mnt.join(dir)).expect("mkdir");
        }
        fs::File::open(mnt).and_then(|dir| dir.sync_all()).expect("fsync");
        let member = |dir: &String| Member { dir: dir.clone(), model: Model::default(), seed: 0 };
        Team { members: dirs.iter().map(member).collect() }
    }

    /// What they do next.
    pub fn seed(&mut self, rng: &mut StdRng) {
        self.members.iter_mut().for_each(|m| m.seed = rng.random());
    }

    /// Works until `enough` operations are done, or the mount is gone; calls `tell` with each operation's number.
    pub fn work(
        &mut self,
        mnt: &Path,
        weather: &Weather,
        progress: &Progress,
        enough: u64,
        tell: impl Fn(u64) + Sync,
    ) -> Vec<Failure> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (self.members.iter_mut())
                .map(|m| {
                    let worker = Worker::new(&mnt.join(&m.dir), &mut m.model, m.seed).in_weather(weather);
                    let tell = &tell;
                    scope.spawn(move || {
                        worker.run(&progress.count, enough, |n| {
                            progress.reached(n);
                            tell(n);
                        })
                    })
                })
                .collect();
            let ended: Vec<_> = threads.into_iter().map(|thread| thread.join()).collect();
            ended
                .into_iter()
                .filter_map(|failure| failure.unwrap_or_else(|e| std::panic::resume_unwind(e)))
                .collect()
        })
    }

    fn each(&mut self, mnt: &Path, what: &str, allows: impl Fn(&mut Model, Found) -> Result<(), String>) {
        for m in &mut self.members {
            let dir: PathBuf = mnt.join(&m.dir);
            let found = read(&dir).unwrap_or_else(|e| panic!("{what}: {}: {e}", dir.display()));
            if let Err(why) = allows(&mut m.model, found) {
                panic!("{what}: {} is not as it must be:\n{why}", dir.display());
            }
        }
    }

    /// What a crash left must be what was promised, and more of what was done.
    pub fn recover(&mut self, mnt: &Path, what: &str) {
        self.each(mnt, what, Model::recovered);
    }

    /// Everything must be as it was done.
    pub fn compare(&mut self, mnt: &Path, what: &str) {
        self.each(mnt, what, |model, found| model.is_now(&found));
    }

    /// All of it is durable.
    pub fn promise(&mut self) {
        self.members.iter_mut().for_each(|m| m.model.promise_all());
    }

    /// fsync of each file and directory.
    pub fn sync(&self, mnt: &Path) {
        let fsync = |path: &Path| {
            let synced = fs::File::open(path).and_then(|file| file.sync_all());
            synced.unwrap_or_else(|e| panic!("fsync of {}: {e}", path.display()));
        };
        for m in &self.members {
            let dir = mnt.join(&m.dir);
            m.model.now.keys().for_each(|name| fsync(&dir.join(name)));
            fsync(&dir);
        }
    }

    /// Removes everything.
    pub fn clear(self, mnt: &Path) {
        for m in self.members {
            fs::remove_dir_all(mnt.join(m.dir)).expect("rm -r");
        }
    }
}
