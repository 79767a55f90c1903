//! Commands on data sets: shards that other tools read, their indexes and versions. They need no node, no metadata and no mount.

pub mod args;
mod bar;
mod cat;
mod index;
mod ls;
mod pack;
mod plan;
mod source;
mod unpack;
mod verify;

use std::sync::Arc;

use granary_core::{Kind, SystemClock};
use granary_packer::dataset::DataSet;
use granary_packer::foreign::{self, Wanted, Written};
use granary_packer::place::{Options, Place};
use tokio::runtime::Runtime;

use crate::exit::{Failure, Outcome};
use crate::output::say;
use crate::settings::Sources;

pub use args::{CatArgs, IndexArgs, LsArgs, UnpackArgs, VerifyArgs};
pub use bar::{Bar, Done};
pub use pack::PackArgs;
pub use plan::PlanArgs;

pub fn run_pack(args: &PackArgs) -> Outcome<()> {
    pack::run(args)
}

pub fn run_index(args: &IndexArgs) -> Outcome<()> {
    index::run(args)
}

pub fn run_verify(args: &VerifyArgs) -> Outcome<()> {
    verify::run(args)
}

pub fn run_ls(args: &LsArgs) -> Outcome<()> {
    ls::run(args)
}

pub fn run_cat(args: &CatArgs) -> Outcome<()> {
    cat::run(args)
}

pub fn run_unpack(args: &UnpackArgs) -> Outcome<()> {
    unpack::run(args)
}

pub fn run_plan(args: &PlanArgs) -> Outcome<()> {
    plan::run(args)
}

/// What requests to a store run on.
pub fn runtime() -> Outcome<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start threads", &e))
}

/// A folder or `s3://bucket/prefix`, reached as the AWS tools would, within the limits of `GRANARY_*` and granary.toml. Must be
/// called on a runtime.
pub fn open_place(text: &str, create: bool) -> Outcome<Place> {
    let limits = Sources::new(None, Vec::new()).resolve()?.limits;
    let options = Options { create, limits, ..Options::from_env() };
    Ok(Place::open(text, &options, Arc::new(SystemClock))?)
}

/// As many threads as were asked for, else as the machine has processors.
pub fn threads(asked: Option<usize>) -> usize {
    asked.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1)
}

/// A path as people read it.
pub fn shown(path: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(path)
}

/// What was left out, on standard error.
pub fn tell_left_out(count: u64, messages: &[String]) {
    for message in messages.iter().take(20) {
        say(message);
    }
    if count > 20 {
        say(format_args!("and {} more; --json shows a thousand", count - 20));
    }
}

/// What a store made of it, on standard error: nothing when every first attempt succeeded.
pub fn tell_retries(retries: u64) {
    match retries {
        0 => {}
        1 => say("warning: a request to the store failed at first and was sent again"),
        n => {
            say(format_args!("warning: requests to the store failed at first and were sent again, {n} times"))
        }
    }
}

/// Writes other programs' indexes beside the tars of a version.
fn write_foreign(
    place: &Place,
    energon: bool,
    dali: bool,
    version: u64,
    runtime: &tokio::runtime::Handle,
) -> Outcome<Written> {
    let wanted = Wanted { energon, dali };
    if !wanted.any() {
        return Ok(Written::default());
    }
    let data = runtime.block_on(DataSet::open(place.clone(), Some(version)))?;
    Ok(foreign::write(&data, wanted, runtime)?)
}

/// What was written of them, as a line each.
fn foreign_text(written: Written) -> String {
    let line = |count: u64, program: &str, name: &str| match count {
        0 => String::new(),
        n => format!("{n} indexes of {program} beside the tars: {name}\n"),
    };
    line(written.energon, "Megatron Energon", "NAME.tar.idx") + &line(written.dali, "NVIDIA DALI", "NAME.idx")
}

/// There is no such file in the data set.
fn no_file(path: &str, of: &str) -> Failure {
    Failure::of_kind(Kind::NotFound, format!("{of} has no file {path:?}; `granary ls` shows those it has"))
}
