//! `pack`: what `granary pack` does, for programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use granary_core::{Error, Kind, Result, SystemClock};
use granary_packer::from::containers::{Containers, Format};
use granary_packer::from::folder::Folder;
use granary_packer::from::objects::Objects;
use granary_packer::from::{Skipped, Source};
use granary_packer::pack::progress::Progress;
use granary_packer::pack::{self, Mode, Options, Report};
use granary_packer::place::{self, Place};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Handle;

use crate::error::OrRaise;
use crate::index::{grouping, runtime, threads_or_all};

fn open(source: &str, containers: Option<&str>, runtime: &Handle) -> Result<Box<dyn Source>> {
    let options = place::Options::from_env();
    let format = match containers {
        None if source.starts_with("s3://") => {
            let place = Place::open(source, &options, Arc::new(SystemClock))?;
            return Ok(Box::new(Objects::new(place.store().clone(), runtime.clone())));
        }
        None => return Ok(Box::new(Folder::open(Path::new(source), false)?)),
        Some("tar") => Format::Tar,
        Some("tfrecord") => Format::TfRecord,
        Some("tfrecord-raw") => Format::TfRecordRaw,
        Some("mds") => Format::Mds,
        Some(other) => {
            let message =
                format!("{other:?} holds no records; it is one of tar, tfrecord, tfrecord-raw, mds");
            return Err(Error::new(Kind::Invalid, message));
        }
    };
    Ok(Box::new(Containers::open(source, format, &options, Arc::new(SystemClock), runtime)?))
}

/// Shards must not become a part of what is packed.
fn check_apart(source: &str, to: &str) -> Result<()> {
    let within = match (source.starts_with("s3://"), to.starts_with("s3://")) {
        (true, true) => format!("{}/", to.trim_end_matches('/'))
            .starts_with(&format!("{}/", source.trim_end_matches('/'))),
        (false, false) => {
            let real =
                |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_default();
            let (from, to) = (real(Path::new(source)), real(Path::new(to)));
            from.is_dir() && to.starts_with(from)
        }
        _ => false,
    };
    if within {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "{to} lies within {source}, so that shards would be packed into shards; pack to another place"
            ),
        ));
    }
    Ok(())
}

/// Packs files, objects or containers of records into shards, and makes a version of them.
///
/// Raises: as the core says.
#[pyfunction]
#[pyo3(signature = (
    source, to, *, containers = None, mode = "new", shard_bytes = 256 << 20, seed = None, group = None, verify = false,
    skip_errors = false, threads = None, memory_bytes = 512 << 20
))]
#[pyo3(name = "pack")]
#[expect(clippy::too_many_arguments, reason = "Python's keywords")]
pub fn pack_files<'py>(
    py: Python<'py>,
    source: PathBuf,
    to: PathBuf,
    containers: Option<&str>,
    mode: &str,
    shard_bytes: u64,
    seed: Option<u64>,
    group: Option<&str>,
    verify: bool,
    skip_errors: bool,
    threads: Option<usize>,
    memory_bytes: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let (source, to) = (source.to_string_lossy().into_owned(), to.to_string_lossy().into_owned());
    let mode = match mode {
        "new" => Ok(Mode::New),
        "append" => Ok(Mode::Append),
        "replace" => Ok(Mode::Replace),
        other => {
            Err(Error::new(Kind::Invalid, format!("{other:?} is no mode; it is one of new, append, replace")))
        }
    };
    let work_dir = if to.starts_with("s3://") { std::env::temp_dir() } else { PathBuf::from(&to) };
    let options = Options {
        shard_bytes,
        grouping: group.map(grouping).transpose().or_raise(py)?,
        seed,
        threads: threads_or_all(threads),
        memory_bytes,
        work_dir,
        mode: mode.or_raise(py)?,
        verify,
        delete_source: false,
    };
    let skipped = Skipped::new(skip_errors);
    let packed = py.detach(|| -> Result<Report> {
        check_apart(&source, &to)?;
        let runtime = runtime()?;
        let from = open(&source, containers, runtime.handle())?;
        let place_options = place::Options { create: true, ..place::Options::from_env() };
        let place = Place::open(&to, &place_options, Arc::new(SystemClock))?;
        pack::pack(&*from, &place, &options, runtime.handle(), &skipped, &Progress::default())
    });
    let report = packed.or_raise(py)?;
    let told = PyDict::new(py);
    told.set_item("version", report.version)?;
    for (name, value) in [
        ("shards", report.shards_made + report.shards_found),
        ("files", report.files),
        ("samples", report.samples),
        ("bytes", report.payload_bytes),
        ("unchanged", report.unchanged),
        ("replaced", report.replaced),
        ("skipped", report.skipped),
    ] {
        told.set_item(name, value)?;
    }
    told.set_item("verified", report.verified)?;
    let messages: Vec<String> =
        skipped.first().into_iter().map(|(thing, why)| format!("{thing}: {why}")).collect();
    told.set_item("messages", messages)?;
    Ok(told)
}
