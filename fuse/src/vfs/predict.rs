//! Foresees whether a file that is being created will become large. A large one is best written by the kernel itself into a
//! stage file (passthrough), a small one as one record of the stage log; a handle's way is fixed when it is made. A wrong
//! guess costs speed, never correctness.
//!
//! Evidence, strongest first: what files with this extension in this directory became, what this process made with this
//! extension, what this extension became anywhere, and what the extension usually means. Memory is three fixed tables.

use granary_core::Ino;

/// Slots per table; two keys may share one, the later takes it over.
const SLOTS: usize = 1024;
/// A score stays within `-SCORE_MAX..=SCORE_MAX`, so that a change of habits is noticed after a few files.
const SCORE_MAX: i8 = 4;

/// Extensions of files that are large more often than not: weights, archives, tables, media, disk images.
const LARGE: [&[u8]; 36] = [
    b"7z",
    b"arrow",
    b"avi",
    b"bin",
    b"bz2",
    b"ckpt",
    b"db",
    b"deb",
    b"feather",
    b"flac",
    b"gguf",
    b"gz",
    b"h5",
    b"hdf5",
    b"img",
    b"iso",
    b"lmdb",
    b"mkv",
    b"mov",
    b"mp4",
    b"npy",
    b"npz",
    b"onnx",
    b"parquet",
    b"pt",
    b"pth",
    b"qcow2",
    b"rar",
    b"safetensors",
    b"sqlite",
    b"tar",
    b"tgz",
    b"tfrecord",
    b"xz",
    b"zip",
    b"zst",
];
/// Endings that say that a file is not finished, not what it is: the extension is the part before.
const UNFINISHED: [&[u8]; 8] =
    [b"tmp", b"temp", b"part", b"partial", b"incomplete", b"download", b"swp", b"new"];

/// What a guess was about; kept with the handle so that the outcome can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circumstances {
    place: u64,
    process: u64,
    extension: u64,
    usually_large: bool,
}

/// Remembers what lately became of new files.
#[derive(Debug)]
pub struct Predictor {
    places: Table,
    processes: Table,
    extensions: Table,
}

impl Default for Predictor {
    fn default() -> Predictor {
        Predictor { places: Table::new(), processes: Table::new(), extensions: Table::new() }
    }
}

impl Predictor {
    /// What a new file called `name` in `dir`, made by process `pid`, has in common with earlier ones.
    pub fn circumstances(dir: Ino, pid: u32, name: &[u8]) -> Circumstances {
        let extension = extension(name);
        let hash = extension
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, &b| mix(h ^ u64::from(b.to_ascii_lowercase())));
        Circumstances {
            place: mix(hash ^ dir.0),
            process: mix(hash.rotate_left(17) ^ u64::from(pid)),
            extension: mix(hash),
            usually_large: LARGE.iter().any(|known| known.eq_ignore_ascii_case(extension)),
        }
    }

    /// Whether such a file will likely be large.
    pub fn large(&self, what: &Circumstances) -> bool {
        let learned = 4 * i32::from(self.places.score(what.place))
            + 2 * i32::from(self.processes.score(what.process))
            + i32::from(self.extensions.score(what.extension));
        let usual = if what.usually_large { 5 } else { -1 };
        learned + usual > 0
    }

    /// What became of it.
    pub fn learn(&mut self, what: &Circumstances, was_large: bool) {
        self.places.learn(what.place, was_large);
        self.processes.learn(what.process, was_large);
        self.extensions.learn(what.extension, was_large);
    }
}

/// The part of a name that says what is in it: the last one that is neither a number nor says "unfinished".
fn extension(name: &[u8]) -> &[u8] {
    let hidden = name.iter().take_while(|&&b| b == b'.').count();
    let name = &name[hidden..];
    let mut parts = name.rsplit(|&b| b == b'.');
    let parts_total = name.split(|&b| b == b'.').count();
    for _ in 1..parts_total {
        let Some(part) = parts.next() else { break };
        let number = part.iter().all(u8::is_ascii_digit);
        let unfinished = UNFINISHED.iter().any(|word| word.eq_ignore_ascii_case(part));
        if !number && !unfinished && part.len() <= 16 {
            return part;
        }
    }
    b""
}

/// A cheap mixing of 64 bits (the finalizer of SplitMix64).
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Key and score per slot, found by the key's low bits.
#[derive(Debug)]
struct Table {
    slots: Box<[(u64, i8)]>,
}

impl Table {
    fn new() -> Table {
        Table { slots: vec![(0, 0); SLOTS].into_boxed_slice() }
    }

    fn score(&self, key: u64) -> i8 {
        let (owner, score) = self.slots[key as usize % SLOTS];
        if owner == key { score } else { 0 }
    }

    fn learn(&mut self, key: u64, was_large: bool) {
        let slot = &mut self.slots[key as usize % SLOTS];
        if slot.0 != key {
            *slot = (key, 0);
        }
        let step = if was_large { 1 } else { -1 };
        slot.1 = (slot.1 + step).clamp(-SCORE_MAX, SCORE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dir: u64, pid: u32, name: &str) -> Circumstances {
        Predictor::circumstances(Ino(dir), pid, name.as_bytes())
    }

    #[test]
    fn names_decide_before_anything_is_known() {
        let p = Predictor::default();
        for large in [
            "7.pt",
            "model.SAFETENSORS",
            "a.tar.gz",
            "step-100.ckpt.tmp",
            "x.parquet.part.17",
            "shard.tar.123",
        ] {
            assert!(p.large(&of(1, 1, large)), "{large}");
        }
        for small in ["a.txt", "README", "x.json", ".bin", "pt", "", "img.jpg", "a.", "17", "noext.tmp"] {
            assert!(!p.large(&of(1, 1, small)), "{small}");
        }
    }

    #[test]
    fn a_directory_of_small_bins_is_learned_and_elsewhere_they_are_still_large() {
        let mut p = Predictor::default();
        for i in 0..4 {
            p.learn(&of(7, 1, &format!("{i}.bin")), false);
        }
        assert!(!p.large(&of(7, 2, "9.bin")));
        assert!(!p.large(&of(8, 1, "9.bin")), "the same process makes small ones elsewhere too");
        assert!(p.large(&of(8, 2, "9.bin")));
    }

    #[test]
    fn large_files_without_extension_are_learned_after_one() {
        let mut p = Predictor::default();
        p.learn(&of(3, 9, "part-00001"), true);
        assert!(p.large(&of(3, 9, "part-00002")));
        assert!(!p.large(&of(4, 10, "notes")));
        p.learn(&of(3, 9, "part-00002"), false);
        p.learn(&of(3, 9, "part-00003"), false);
        assert!(!p.large(&of(3, 9, "part-00004")), "habits change");
    }

    #[test]
    fn memory_is_fixed_and_scores_are_bounded() {
        let mut p = Predictor::default();
        for i in 0..100_000_u64 {
            p.learn(&of(i, i as u32, "x.dat"), true);
        }
        assert_eq!(p.places.slots.len() + p.processes.slots.len() + p.extensions.slots.len(), 3 * SLOTS);
        assert!(p.extensions.slots.iter().all(|s| (-SCORE_MAX..=SCORE_MAX).contains(&s.1)));
    }
}
