//! How many metadata operations a second one thread does, over RocksDB in a temporary folder, in memory as programs see
//! them (the committer writes meanwhile): `cargo run --release -p granary-meta --example ops [FILES]`.

use std::sync::Arc;

use futures::executor::block_on;
use granary_core::limits::Limits;
use granary_core::{Clock, EntryName, Ino, NodeId, ObjectId, ObjectKind, Result, SystemClock};
use granary_meta::engine::RocksEngine;
use granary_meta::{
    Commit, Durability, Extent, FileType, Metadata, Move, NewInode, NewNamespace, ObjectInfo, Place, Volume,
    VolumeInfo,
};

/// Nanoseconds this thread has run, as Linux counts them; on a busy machine more telling than the time that passed.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0)
}

/// Runs `f` for each file and prints operations a second, and what each took of the clock and of this thread's CPU.
fn measure(what: &str, n: u64, mut f: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let (start, cpu) = (SystemClock.monotonic(), cpu_ns());
    for i in 0..n {
        f(i)?;
    }
    let (taken, cpu) = (SystemClock.monotonic() - start, (cpu_ns() - cpu) / n.max(1));
    let (rate, each) = (n as f64 / taken.as_secs_f64(), taken.as_nanos() as u64 / n.max(1));
    println!("{what:<44} {rate:>12.0} /s {each:>10} ns each {cpu:>10} ns CPU");
    Ok(())
}

fn extent(i: u64) -> Extent {
    Extent {
        offset: 0,
        len: 4096,
        place: Place::Log { node: NodeId(1), segment: 1, offset: i * 4200 },
        crc: 1,
    }
}

fn main() -> Result<()> {
    let n: u64 = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(200_000);
    let dir = std::env::temp_dir().join(format!("granary-meta-ops-{}", std::process::id()));
    let engine = RocksEngine::open(&dir)?;
    let info = VolumeInfo { uuid: "0".repeat(32), store_url: "file:///nowhere".into(), created_unix_ms: 0 };
    Volume::init(&*engine, &info)?;
    let volume = Volume::open(engine, Arc::new(SystemClock), &Limits::default())?;
    let name = "user/bench".parse()?;
    let (bytes_max, inodes_max, durability) = (0, 0, Durability::Local);
    volume.create_namespace(NewNamespace {
        name,
        uid: 0,
        gid: 0,
        mode: 0o755,
        bytes_max,
        inodes_max,
        durability,
        trash_ms: granary_meta::TRASH_MS_DEFAULT,
        packed: None,
    })?;
    let space = volume.namespace(&"user/bench".parse()?)?;

    let file = |i: u64| format!("file-{i:08}");
    let new =
        NewInode { kind: FileType::File, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: vec![] };
    measure("lookup of a missing name, then create", n, |i| {
        let name = file(i);
        let name = EntryName::new(name.as_bytes())?;
        let _ = block_on(space.lookup(Ino::ROOT, name));
        block_on(space.create(Ino::ROOT, name, new.clone(), false)).map(drop)
    })?;
    measure("commit of one extent", n, |i| {
        let (mtime, extents, holes) = (SystemClock.now(), vec![extent(i)], vec![]);
        block_on(space.commit(Commit {
            ino: Ino(i + 2),
            size: 4096,
            mtime,
            ctime: mtime,
            extents,
            holes,
            staged_seq: i,
        }))
        .map(drop)
    })?;
    volume.flush()?;
    // Few enough for the cache of records.
    let warm = n.min(20_000);
    for pass in ["cold or warm", "warm"] {
        measure(&format!("lookup, {pass}"), warm, |i| {
            block_on(space.lookup(Ino::ROOT, EntryName::new(file(n - warm + i).as_bytes())?)).map(drop)
        })?;
    }
    measure("getattr, warm", warm, |i| block_on(space.getattr(Ino(n - warm + i + 2))).map(drop))?;
    let mut cookie = 0;
    measure("readdir of 100 entries with attributes", n / 100, |_| {
        let page = block_on(space.readdir(Ino::ROOT, cookie, 100, true))?;
        cookie = page.last().map_or(0, |e| e.cookie);
        Ok(())
    })?;
    measure("relocate of 1,000 files into a pack", n / 1000, |p| {
        let moves = (p * 1000..(p + 1) * 1000)
            .map(|i| Move { ino: Ino(i + 2), from: extent(i), to_offset: (i % 1000) * 4096 })
            .collect();
        let id = ObjectId(u128::from(p + 1));
        let object = ObjectInfo { id, kind: ObjectKind::Pack, payload_len: 4_096_000, total_len: 4_200_000 };
        block_on(space.relocate(object, moves)).map(drop)
    })?;
    measure("commit and sync, one waiter", 200, |i| {
        let (mtime, extents, holes) = (SystemClock.now(), vec![extent(i)], vec![]);
        block_on(space.commit(Commit {
            ino: Ino(i + 2),
            size: 4096,
            mtime,
            ctime: mtime,
            extents,
            holes,
            staged_seq: i,
        }))?;
        block_on(space.sync())
    })?;
    measure("unlink", n, |i| {
        block_on(space.unlink(Ino::ROOT, EntryName::new(file(i).as_bytes())?)).map(drop)
    })?;
    drop(space);
    volume.shutdown()?;
    std::fs::remove_dir_all(&dir)
        .map_err(|e| granary_core::Error::io("cannot remove the temporary folder", e))
}
