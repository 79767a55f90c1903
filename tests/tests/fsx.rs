//! The `fsx` exerciser: random reads, writes, mappings, truncations, holes, copies on one file, each read verified. What leaves
//! for the store in the middle of it does not change a byte. `GRANARY_STRESS_SECONDS` makes it long; `GRANARY_TEST_SEED` repeats it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use granary_tests::{Node, StoreKind, run, seed};

/// What a run may do.
struct Config {
    name: &'static str,
    /// Sizes up to this.
    file_bytes_max: u32,
    operation_bytes_max: u32,
    align: u32,
    /// Left out of the mix.
    without: &'static [&'static str],
    more: &'static str,
}

const OPERATIONS: [&str; 13] = [
    "close_open",
    "invalidate",
    "mapread",
    "mapwrite",
    "read",
    "write",
    "truncate",
    "fsync",
    "fdatasync",
    "posix_fallocate",
    "punch_hole",
    "sendfile",
    "copy_file_range",
];

/// Files that stay small (packs), files that outgrow the small limit of 1 MiB and shrink again, and the kernel's pages
/// alone (nothing says when a mapping's bytes are to be written).
const CONFIGS: [Config; 4] = [
    Config {
        name: "small",
        file_bytes_max: 250_000,
        operation_bytes_max: 65_536,
        align: 1,
        without: &[],
        more: "",
    },
    Config {
        name: "large",
        file_bytes_max: 3_000_000,
        operation_bytes_max: 400_000,
        align: 1,
        without: &[],
        more: "",
    },
    Config {
        name: "mapped",
        file_bytes_max: 2_000_000,
        operation_bytes_max: 100_000,
        align: 1,
        without: &["fsync", "fdatasync", "sendfile"],
        more: "nomsyncafterwrite = true\n",
    },
    Config {
        name: "pages",
        file_bytes_max: 2_097_152,
        operation_bytes_max: 131_072,
        align: 4096,
        // posix_fallocate: fsx may ask for 0 bytes after rounding, and takes EINVAL for a lack.
        without: &["mapread", "mapwrite", "posix_fallocate"],
        more: "",
    },
];

impl Config {
    fn toml(&self) -> String {
        let mut text = format!(
            "flen = {}\n{}[opsize]\nmin = {}\nmax = {}\nalign = {}\n[weights]\nposix_fadvise = 1\n",
            self.file_bytes_max, self.more, self.align, self.operation_bytes_max, self.align
        );
        for operation in OPERATIONS {
            // fsx counts what is not named at 10.
            let weight = if self.without.contains(&operation) { 0 } else { 1 };
            text += &format!("{operation} = {weight}\n");
        }
        text
    }
}

#[allow(clippy::disallowed_methods)] // how long to go on, not a measurement
fn exercise(options: &str) {
    let program =
        std::env::var("GRANARY_FSX").expect("GRANARY_FSX names the fsx program; tools/test sets it");
    let seed = seed();
    let long = std::env::var("GRANARY_STRESS_SECONDS")
        .ok()
        .map(|s| Duration::from_secs(s.parse().expect("seconds")));
    let settings = [
        ("GRANARY_SMALL_PERIOD_MS", "20"),
        ("GRANARY_LARGE_PERIOD_MS", "40"),
        ("GRANARY_LOG_SEGMENT_BYTES_MAX", "1048576"),
    ];
    let node = Node::with_settings(StoreKind::Folder, &settings);
    let dir = node.mount("user/alice", options);
    let operations = if long.is_some() { "20000" } else { "1500" };
    let start = Instant::now();
    for round in 0.. {
        if long.map_or(round == 2, |long| start.elapsed() >= long) {
            break;
        }
        std::thread::scope(|scope| {
            for config in &CONFIGS {
                let (dir, node, program) = (&dir, &node, &program);
                scope.spawn(move || {
                    let file = node.path(&format!("{}.toml", config.name));
                    fs::write(&file, config.toml()).expect("write");
                    let target = dir.join(format!("{}.{round}", config.name));
                    // The seed decides all that fsx does.
                    let seed = (seed.wrapping_add(round) % 1_000_000_007).to_string();
                    let out = run(Command::new(program)
                        .arg("-f")
                        .arg(&file)
                        .args(["-N", operations, "-S", &seed, "-P"])
                        .arg(node.path("."))
                        .arg(&target));
                    assert_eq!(
                        out.code,
                        Some(0),
                        "{} of round {round}, fsx -S {seed}\n{}{}",
                        config.name,
                        out.stdout,
                        out.stderr
                    );
                });
            }
        });
        node.sync(&dir);
    }
}

#[test]
fn in_work_mode() {
    exercise("");
}

#[test]
fn in_data_mode() {
    exercise("rw,mode=data");
}
