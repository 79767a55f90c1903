//! `granary cat`: a file's bytes, from a data set or a tar.

use std::io::BufReader;

use granary_core::Kind;
use granary_packer::blocking::ShardBytes;
use granary_packer::index::File;
use granary_packer::tar::Members;
use tokio::runtime::Handle;

use super::args::CatArgs;
use super::source::Source;
use crate::exit::{Failure, Outcome};
use crate::output::print_next;

/// Larger files are written as they come, and their checksum is known at the end.
const PART_BYTES: u64 = 8 << 20;

pub fn run(args: &CatArgs) -> Outcome<()> {
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    let source = Source::open(&args.data_set, args.version, runtime.handle())?;
    for path in &args.paths {
        one(&source, path, &args.data_set, runtime.handle())?;
    }
    Ok(())
}

fn one(source: &Source, path: &str, of: &str, runtime: &Handle) -> Outcome<()> {
    match source {
        Source::DataSet(data) => {
            let found = runtime.block_on(data.find(path.as_bytes()))?;
            let (shard, file) = found.ok_or_else(|| super::no_file(path, of))?;
            let index = runtime.block_on(data.index(shard))?;
            let bytes = ShardBytes::open(data.place(), &data.shard(shard)?.path, runtime)?;
            write_file(&bytes, &index.file(file)?)
        }
        Source::Indexed(place, name, index) => {
            let file = index.find(path.as_bytes())?.ok_or_else(|| super::no_file(path, of))?;
            write_file(&ShardBytes::open(place, name, runtime)?, &index.file(file)?)
        }
        Source::Tar(place, name) => {
            let bytes = ShardBytes::open(place, name, runtime)?;
            let mut members = Members::new(BufReader::with_capacity(256 << 10, bytes.sequential()), of);
            while let Some(member) = members.next_member()? {
                if member.is_file() && member.path == path.as_bytes() {
                    let mut buffer = vec![0; 256 << 10];
                    loop {
                        match members.read(&mut buffer)? {
                            0 => return Ok(()),
                            n => print_next(&buffer[..n])?,
                        }
                    }
                }
            }
            Err(super::no_file(path, of))
        }
    }
}

fn write_file(bytes: &ShardBytes, file: &File<'_>) -> Outcome<()> {
    let mut crc = 0;
    let mut at = 0;
    while at < file.length {
        let part = bytes.read(file.offset + at..file.offset + file.length.min(at + PART_BYTES))?;
        crc = granary_core::crc32c_append(crc, &part);
        at += part.len() as u64;
        if file.length > PART_BYTES || crc == file.crc32c {
            print_next(&part)?;
        }
    }
    if crc == file.crc32c {
        return Ok(());
    }
    Err(Failure::of_kind(
        Kind::Corrupt,
        format!(
            "{} at byte {}: the bytes of {:?} do not match their checksum; get a whole copy of the shard",
            bytes.describe(),
            file.offset,
            super::shown(file.path)
        ),
    ))
}
