//! What the kernel asks, how it does the I/O, and what must never be answered EIO.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod rig;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use granary_fuse::Op;
use granary_tests::apart;
use rig::{Rig, Setup, data, pattern, until, work};

fn write_new(rig: &Rig, name: &str, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).create_new(true).open(rig.at(name)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_small_file_costs_four_requests() {
    for rig in [work(), data()] {
        // What is asked once: FLUSH in data mode, and attributes of the root.
        write_new(&rig, "first", b"x");
        for i in 0..3 {
            let name = format!("small-{i}");
            let ((), made) = rig.requests(|| write_new(&rig, &name, &[7; 4096]));
            let most = vec![(Op::Lookup, 1), (Op::Getattr, 1), (Op::Create, 1), (Op::Write, 1)];
            assert_eq!(made, most);
        }
    }
}

#[test]
fn a_warm_file_costs_one_open_in_work_and_nothing_in_data() {
    for (rig, expected) in [(work(), vec![(Op::Open, 1)]), (data(), vec![])] {
        fs::write(rig.at("warm"), pattern(4096, 1)).unwrap();
        let read = || {
            let mut bytes = vec![0; 4096];
            File::open(rig.at("warm")).unwrap().read_exact(&mut bytes).unwrap();
            assert!(bytes == pattern(4096, 1));
        };
        read();
        read();
        let ((), made) = rig.requests(read);
        assert_eq!(made, expected);
        fs::metadata(rig.at("warm")).unwrap();
        let (_, made) = rig.requests(|| fs::metadata(rig.at("warm")).unwrap());
        assert_eq!(made, vec![], "a warm stat costs nothing");
        fs::metadata(rig.at("absent")).unwrap_err();
        let (_, made) = rig.requests(|| fs::metadata(rig.at("absent")).unwrap_err());
        assert_eq!(made, vec![], "nor does what is known to be absent");
        let names = || fs::read_dir(rig.root()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        names();
        names();
        let (names, made) = rig.requests(names);
        assert_eq!((names.len(), made), (1, vec![]), "nor a warm listing");
    }
}

#[test]
fn a_large_file_is_written_and_read_by_the_kernel_itself() {
    let rig = work();
    let path = rig.at("model.pt");
    let bytes = pattern(8 << 20, 2);
    let (_, made) = rig.requests(|| fs::write(&path, &bytes).unwrap());
    assert!(made.iter().all(|(op, _)| *op != Op::Write), "{made:?}");
    let (read, made) = rig.requests(|| fs::read(&path).unwrap());
    assert!(read == bytes);
    assert!(made.iter().all(|(op, _)| *op != Op::Read), "{made:?}");
    // Truncated in place and written again, still by the kernel.
    let (_, made) = rig.requests(|| fs::write(&path, &bytes[..5 << 20]).unwrap());
    assert!(made.iter().all(|(op, _)| *op != Op::Write), "{made:?}");
    assert!(fs::read(&path).unwrap() == bytes[..5 << 20]);
}

/// A stacked file system, which the kernel does not take for passthrough. Gone when dropped.
struct Stacked(tempfile::TempDir);

impl Stacked {
    fn new() -> Stacked {
        let dir = tempfile::tempdir().unwrap();
        let none = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", dir.path(), "tmpfs", none, None).unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(at(name)).unwrap();
        }
        let places = [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")];
        let data = places.map(|(option, name)| format!("{option}={}", at(name).display())).join(",");
        let data = std::ffi::CString::new(data).unwrap();
        rustix::mount::mount("none", at("merged"), "overlay", none, data.as_c_str()).unwrap();
        Stacked(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("merged")
    }
}

impl Drop for Stacked {
    fn drop(&mut self) {
        let unmount = |path: &Path| rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
        let _ = unmount(&self.path());
        let _ = unmount(self.0.path());
    }
}

#[test]
fn without_passthrough_large_files_are_slower_and_right() {
    let stacked = Stacked::new();
    let rig = Rig::new(&Setup { stage_dir: Some(stacked.path().join("stage")), ..Setup::default() });
    let path = rig.at("model.pt");
    let bytes = pattern(3 << 20, 2);
    assert!(rig.mounted().vfs().passes_through());
    let (_, made) = rig.requests(|| fs::write(&path, &bytes).unwrap());
    assert!(made.iter().any(|(op, n)| *op == Op::Write && *n >= 3), "{made:?}");
    assert!(!rig.mounted().vfs().passes_through(), "the kernel was asked once");
    let one = File::open(&path).unwrap();
    let two = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    two.write_all_at(&bytes[7..17], 7).unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    drop((one, two));
    fs::write(&path, &bytes[..2 << 20]).unwrap();
    assert!(fs::read(&path).unwrap() == bytes[..2 << 20]);
}

#[test]
fn what_large_files_are_called_is_learned() {
    let rig = work();
    fs::create_dir(rig.at("out")).unwrap();
    let bytes = pattern(2 << 20, 3);
    fs::write(rig.at("out/part-0"), &bytes).unwrap();
    until("its size was learned at RELEASE", || {
        let name = format!("out/part-{}", rig.metrics.count(Op::Create));
        let (_, made) = rig.requests(|| fs::write(rig.at(&name), &bytes).unwrap());
        made.iter().all(|(op, _)| *op != Op::Write)
    });
}

/// Every order of opens that the kernel has a rule for; none may fail, and all see the same bytes.
#[test]
fn opens_of_every_kind_go_together() {
    let rig = work();
    let small = pattern(10_000, 4);
    let large = pattern(3 << 20, 5);
    let open = |path: &std::path::Path, how: usize| {
        let mut options = OpenOptions::new();
        match how {
            0 => options.read(true),
            1 => options.write(true),
            2 => options.read(true).write(true),
            _ => options.append(true),
        };
        options.open(path).unwrap()
    };
    for (name, bytes) in
        [("small.txt", &small), ("large.pt", &large), ("large.txt", &large), ("small.pt", &small)]
    {
        let path = rig.at(name);
        fs::write(&path, bytes).unwrap();
        for first in 0..4 {
            for second in 0..4 {
                let a = open(&path, first);
                let b = open(&path, second);
                if first == 1 || first == 2 {
                    a.write_all_at(&bytes[..100], 0).unwrap();
                }
                if second == 2 {
                    b.write_all_at(&bytes[100..200], 100).unwrap();
                }
                for file in [(&a, first), (&b, second)] {
                    if file.1 == 0 || file.1 == 2 {
                        let mut seen = vec![0; bytes.len()];
                        file.0.read_exact_at(&mut seen, 0).unwrap();
                        assert!(&seen == bytes, "{name} {first} {second}");
                    }
                }
                drop(a);
                assert!(&fs::read(&path).unwrap() == bytes, "{name} {first} {second}, one closed");
                drop(b);
                assert!(&fs::read(&path).unwrap() == bytes, "{name} {first} {second}, both closed");
            }
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), bytes.len() as u64);
    }
}

#[test]
fn a_file_outgrows_its_handle_while_others_have_it_open() {
    let rig = work();
    let path = rig.at("grows.txt");
    let bytes = pattern(6 << 20, 6);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
    for (i, chunk) in bytes.chunks(300_000).enumerate() {
        file.write_all(chunk).unwrap();
        // Opened while it is small and while it is large, past a handle that is past the page cache.
        let reader = File::open(&path).unwrap();
        let mut seen = vec![0; chunk.len()];
        reader.read_exact_at(&mut seen, i as u64 * 300_000).unwrap();
        assert!(seen == chunk);
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        writer.write_all_at(&chunk[..10], i as u64 * 300_000).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), bytes.len() as u64);
    file.sync_all().unwrap();
    drop(file);
    assert!(fs::read(&path).unwrap() == bytes);
}

#[test]
fn attributes_of_a_file_that_the_kernel_writes_are_right() {
    let rig = work();
    let path = rig.at("x.ckpt");
    let mut file = File::create(&path).unwrap();
    for i in 1..=5_u64 {
        file.write_all(&pattern(1 << 20, i)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), i << 20);
    }
    let before = file.metadata().unwrap();
    assert!(before.blocks() > 0);
    file.set_len(1 << 20).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), 1 << 20);
    file.sync_all().unwrap();
    drop(file);
    assert!(fs::read(&path).unwrap() == pattern(1 << 20, 1));
}

#[test]
fn programs_run_from_the_mount() {
    for rig in [work(), data()] {
        let path = rig.at("true");
        fs::copy("/bin/true", &path).unwrap();
        // Not at once: the file counts as being written until its RELEASE was answered.
        until("it runs", || {
            apart(|| std::process::Command::new(&path).status()).is_ok_and(|status| status.success())
        });
    }
}

#[test]
fn requests_are_shown_as_metrics() {
    let rig = work();
    fs::write(rig.at("x"), b"x").unwrap();
    let mut registry = prometheus_client::registry::Registry::default();
    rig.metrics.register(&mut registry);
    // A request is timed after its answer went out, so the program may be here first.
    let wanted = r#"granary_fuse_request_seconds_count{namespace="user/alice",op="create"} 1"#;
    for tries in 0.. {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        if text.contains(wanted) {
            break;
        }
        assert!(tries < 100_000, "{text}");
        std::thread::yield_now();
    }
}
