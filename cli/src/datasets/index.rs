//! `granary index`: tars that are there become a data set.

use std::path::{Path, PathBuf};

use granary_packer::adopt::{Options, Report, adopt};
use granary_packer::counts::Counts;
use granary_packer::key::Grouping;
use serde::Serialize;

use super::args::{GroupingArg, IndexArgs};
use super::bar::{Bar, Done};
use crate::commands::{print, print_json};
use crate::exit::{Failure, Outcome};
use crate::units::show_bytes;

pub fn run(args: &IndexArgs) -> Outcome<()> {
    let (root, names) = split(&args.what)?;
    let runtime = super::runtime()?;
    let _inside = runtime.enter();
    let place = super::open_place(&root, false)?;
    if !args.delete.is_empty() {
        return super::pack::delete::run(&place, &args.delete, runtime.handle(), args.json);
    }
    let options = Options {
        grouping: match args.by {
            GroupingArg::Stem => Grouping::Stem,
            GroupingArg::Directory => Grouping::Directory,
        },
        skip_errors: args.skip_errors,
        anew: args.anew,
        threads: super::threads(args.threads.map(usize::from)),
        work_dir: std::env::temp_dir(),
    };
    let counts = Counts::default();
    let work = || adopt(&place, names, &options, runtime.handle(), &counts);
    let report = Bar::during("indexing", args.json, || Done::from(&counts), work)?;
    let written = super::write_foreign(&place, args.energon, args.dali, report.version, runtime.handle())?;
    if args.json {
        return print_json(&Json { report: &report, energon: written.energon, dali: written.dali });
    }
    super::tell_retries(report.retries);
    super::tell_left_out(report.skipped, &report.messages);
    let made = if report.changed { "made version" } else { "nothing changed since version" };
    print(&format!(
        "{made} {} of {place}: {} files in {} samples, {} in {} shards\n",
        report.version,
        report.files,
        report.samples,
        show_bytes(report.bytes),
        report.shards
    ))?;
    print(&super::foreign_text(written))
}

#[derive(Serialize)]
struct Json<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// Indexes of other programs.
    energon: u64,
    dali: u64,
}

/// The data set's root, and the tars below it when tars were named.
fn split(what: &[String]) -> Outcome<(String, Option<Vec<String>>)> {
    if let [one] = what
        && !is_tar(one)
    {
        return Ok((one.clone(), None));
    }
    if let Some(other) = what.iter().find(|one| !is_tar(one)) {
        return Err(Failure::usage(format!(
            "{other} is not a tar; give one folder, one s3://bucket/prefix, or tars"
        )));
    }
    let full: Vec<PathBuf> = what
        .iter()
        .map(|one| match one.starts_with("s3://") {
            true => Ok(PathBuf::from(one)),
            false => std::path::absolute(one).map_err(|e| Failure::io(format!("cannot find {one}"), &e)),
        })
        .collect::<Outcome<_>>()?;
    let root = full
        .iter()
        .filter_map(|tar| tar.parent())
        .fold(None, |root: Option<PathBuf>, parent| Some(common(root.as_deref().unwrap_or(parent), parent)))
        .unwrap_or_default();
    let text = |path: &Path| crate::commands::text_of(path);
    let root_text = text(&root)?;
    // `s3://bucket` has three components: `s3:`, the bucket, and what is below it.
    if root_text.starts_with("s3:") && root.components().count() < 2 || root_text.is_empty() {
        return Err(Failure::usage("the tars are in different buckets; a data set is in one"));
    }
    let names =
        full.iter().map(|tar| text(tar.strip_prefix(&root).unwrap_or(tar))).collect::<Outcome<Vec<_>>>()?;
    let root = match root_text.strip_prefix("s3:/") {
        // Components have joined the two slashes.
        Some(rest) if !root_text.starts_with("s3://") => format!("s3://{rest}"),
        _ => root_text,
    };
    Ok((root, Some(names)))
}

fn is_tar(one: &str) -> bool {
    match one.starts_with("s3://") {
        true => [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2"]
            .iter()
            .any(|end| one.ends_with(end)),
        false => Path::new(one).is_file(),
    }
}

/// The longest folder that both are in.
fn common(a: &Path, b: &Path) -> PathBuf {
    a.components().zip(b.components()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tars_have_a_common_root() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().to_str().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        for name in ["a/1.tar", "2.tar"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let named = |names: &[&str]| split(&names.iter().map(|n| format!("{top}/{n}")).collect::<Vec<_>>());
        let names = |names: &[&str]| Some(names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["a"]).unwrap(), (format!("{top}/a"), None));
        assert_eq!(named(&["a/1.tar"]).unwrap(), (format!("{top}/a"), names(&["1.tar"])));
        assert_eq!(named(&["a/1.tar", "2.tar"]).unwrap(), (top.to_owned(), names(&["a/1.tar", "2.tar"])));
        assert_eq!(named(&["a/1.tar", "a"]).unwrap_err().exit, 2);
    }

    #[test]
    fn tars_of_a_bucket_have_one_too() {
        let all = |names: &[&str]| split(&names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>());
        let (root, names) = all(&["s3://b/x/1.tar", "s3://b/x/y/2.tar"]).unwrap();
        assert_eq!(
            (root.as_str(), names.unwrap()),
            ("s3://b/x", vec!["1.tar".to_owned(), "y/2.tar".to_owned()])
        );
        assert_eq!(all(&["s3://b/1.tar"]).unwrap().0, "s3://b");
        assert_eq!(all(&["s3://b/1.tar", "s3://c/1.tar"]).unwrap_err().exit, 2);
        assert_eq!(all(&["s3://b/x"]).unwrap(), ("s3://b/x".to_owned(), None));
    }
}
