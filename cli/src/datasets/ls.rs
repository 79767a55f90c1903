//! `granary ls`: what is in a data set, or which versions it has.

use std::io::{BufReader, BufWriter, StdoutLock, Write};

use granary_core::Kind;
use granary_packer::blocking::ShardBytes;
use granary_packer::dataset::DataSet;
use granary_packer::manifest;
use granary_packer::tar::Members;
use serde::Serialize;

use super::args::LsArgs;
use super::source::Source;
use crate::commands::{columns, print};
use crate::exit::Outcome;
use crate::output::{say, unwritten};
use crate::units::{show_bytes, show_time};

/// One file, as programs read it. What is not known of a tar without an index is left out.
#[derive(Serialize)]
struct Line<'a> {
    path: &'a str,
    bytes: u64,
    mode: u32,
    mtime: i64,
    uid: u32,
    gid: u32,
    shard: &'a str,
    offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
}

pub fn run(args: &LsArgs) -> Outcome<()> {
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    if args.versions {
        return versions(args, &runtime);
    }
    let source = Source::open(&args.data_set, args.version, runtime.handle())?;
    let mut out = Out { to: BufWriter::with_capacity(64 << 10, std::io::stdout().lock()), args };
    if let Source::Tar(place, name) = &source {
        let bytes = ShardBytes::open(place, name, runtime.handle())?;
        let mut members =
            Members::new(BufReader::with_capacity(256 << 10, bytes.sequential()), &args.data_set);
        while let Some(member) = members.next_member()? {
            if member.is_file() {
                let line = Line {
                    path: &super::shown(&member.path),
                    bytes: member.size,
                    mode: member.mode,
                    mtime: member.mtime,
                    uid: member.uid,
                    gid: member.gid,
                    shard: name,
                    offset: members.at(),
                    sample: None,
                    crc32c: None,
                };
                out.line(&line)?;
            }
        }
    }
    source.each_shard(runtime.handle(), |_, shard, index, dead| {
        for n in (0..index.file_count()).filter(|&n| !dead.contains(n)) {
            let file = index.file(n)?;
            let line = Line {
                path: &super::shown(file.path),
                bytes: file.length,
                mode: file.mode,
                mtime: file.mtime,
                uid: file.uid,
                gid: file.gid,
                shard,
                offset: file.offset,
                sample: Some(file.sample),
                crc32c: Some(format!("{:08x}", file.crc32c)),
            };
            out.line(&line)?;
        }
        Ok(())
    })?;
    out.to.flush().map_err(unwritten)
}

struct Out<'a> {
    to: BufWriter<StdoutLock<'static>>,
    args: &'a LsArgs,
}

impl Out<'_> {
    fn line(&mut self, line: &Line<'_>) -> Outcome<()> {
        if self.args.prefix.as_ref().is_some_and(|prefix| !line.path.starts_with(prefix.as_str())) {
            return Ok(());
        }
        let wrote = if self.args.json {
            serde_json::to_writer(&mut self.to, line)
                .map_err(std::io::Error::from)
                .and_then(|()| self.to.write_all(b"\n"))
        } else if self.args.long {
            let owner = format!("{}:{}", line.uid, line.gid);
            let time = show_time(line.mtime.max(0) as u64);
            writeln!(self.to, "{} {owner:>11} {:>12} {time}  {}", rights(line.mode), line.bytes, line.path)
        } else {
            writeln!(self.to, "{}", line.path)
        };
        wrote.map_err(unwritten)
    }
}

/// `rw-r--r--`.
fn rights(mode: u32) -> String {
    let letters = ['r', 'w', 'x'];
    (0..9).map(|bit| if mode & (0o400 >> bit) != 0 { letters[bit % 3] } else { '-' }).collect()
}

fn versions(args: &LsArgs, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let place = super::open_place(&args.data_set, false)?;
    let all = runtime.block_on(manifest::versions(&place))?;
    if all.is_empty() {
        // Says how one is made.
        runtime.block_on(DataSet::open(place, None))?;
        return Ok(());
    }
    let mut rows = vec![["VERSION", "MADE BY", "SHARDS", "FILES", "SAMPLES", "BYTES"].map(str::to_owned)];
    let mut lines = String::new();
    for version in all {
        let manifest = match runtime.block_on(manifest::read(&place, version)) {
            Ok(manifest) => manifest,
            Err(e) if e.kind() == Kind::Corrupt => {
                say(e);
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        let value = serde_json::json!({
            "version": version,
            "made_by": manifest.note(),
            "shards": manifest.shards().len(),
            "files": manifest.file_count(),
            "samples": manifest.sample_count(),
            "bytes": manifest.bytes(),
        });
        lines += &format!("{value}\n");
        rows.push([
            version.to_string(),
            manifest.note().to_owned(),
            manifest.shards().len().to_string(),
            manifest.file_count().to_string(),
            manifest.sample_count().to_string(),
            show_bytes(manifest.bytes()),
        ]);
    }
    print(&if args.json { lines } else { columns(&rows) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_shown_as_ls_does() {
        assert_eq!(rights(0o640), "rw-r-----");
        assert_eq!(rights(0o4755), "rwxr-xr-x");
    }
}
