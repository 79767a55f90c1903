//! `granary recover`.

use std::path::{Path, PathBuf};

use granary_core::Kind;

use crate::args::RecoverArgs;
use crate::exit::{Exit, Failure, Outcome};
use crate::node::identity;
use crate::node::lock::CacheLock;
use crate::units::show_bytes;
use crate::wire::RecoverReport;
use crate::{log, node, recovery};

pub fn run(args: &RecoverArgs) -> Outcome<()> {
    let mut settings = args.flags.sources().resolve()?;
    let (cache, whose) = cache_of(&args.stage)?;
    settings.cache = cache;
    log::start_quiet();
    node::raise_open_files();
    // Whoever has it is the node itself.
    let _lock = CacheLock::acquire(&settings.cache)?;
    let report = recovery::run(&settings, &whose)?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&show(&settings.cache, &report))?;
    }
    verdict(&report)
}

/// The cache directory that is meant, and whose it is.
fn cache_of(stage: &Path) -> Outcome<(PathBuf, recovery::Whose)> {
    let dir = std::path::absolute(stage)
        .map_err(|e| Failure::io(format!("cannot find {}", stage.display()), &e))?;
    let above = dir.parent().filter(|_| dir.ends_with("stage"));
    for cache in [Some(&*dir), above].into_iter().flatten() {
        if let Some((node, volume)) = identity::read(cache)? {
            return Ok((cache.to_owned(), recovery::Whose { node, volume }));
        }
    }
    Err(Failure::of_kind(
        Kind::NotFound,
        format!(
            "{} is no node's cache directory: it has no node.json; give the directory that was the node's setting `cache` \
             (without it, /var/cache/granary), on its disk",
            dir.display()
        ),
    ))
}

fn show(cache: &Path, report: &RecoverReport) -> String {
    let is_something = |space: &&crate::wire::RecoveredSpace| {
        space.replayed + space.stage_files + space.stored_objects > 0 || space.left.is_some()
    };
    let mut rows = vec![["NAMESPACE", "NEW CHANGES", "LARGE FILES", "STORED", "OBJECTS"].map(str::to_owned)];
    rows.extend(report.namespaces.iter().filter(is_something).map(|space| {
        [
            space.namespace.clone(),
            space.replayed.to_string(),
            space.stage_files.to_string(),
            show_bytes(space.stored_bytes),
            space.stored_objects.to_string(),
        ]
    }));
    let mut out = if rows.len() > 1 { super::columns(&rows) } else { String::new() };
    for space in &report.namespaces {
        for aside in &space.kept_aside {
            out += &format!("{}: {aside}\n", space.namespace);
        }
        if space.damaged_bytes > 0 {
            let bytes = show_bytes(space.damaged_bytes);
            out += &format!("{}: {bytes} of its log are damaged and could not be read\n", space.namespace);
        }
    }
    if rows.len() == 1 {
        out += &format!("nothing is left in {} that is not in the store\n", cache.display());
    } else if report.clean {
        out += &format!(
            "all that only node {} had is in the store; its disk is not needed any more\n",
            report.node
        );
    }
    out
}

/// The first reason decides the exit code.
fn verdict(report: &RecoverReport) -> Outcome<()> {
    let left: Vec<_> =
        report.namespaces.iter().filter_map(|s| s.left.as_ref().map(|why| (&s.namespace, why))).collect();
    if let Some((_, first)) = left.first() {
        let lines: Vec<_> = left.iter().map(|(name, why)| format!("  {name}: {why}")).collect();
        let text = format!(
            "not everything is in the store yet; it is kept, mend this and recover again:\n{}",
            lines.join("\n")
        );
        return Err(Failure { message: text, ..Failure::new(Exit::from_code(first.exit), "") });
    }
    if report.clean {
        return Ok(());
    }
    Err(Failure::failed(
        "all that could be brought back is in the store; what could not, and where it lies, stands above",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RecoveredSpace;

    #[test]
    fn other_directories_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let e = cache_of(dir.path()).unwrap_err();
        assert!(e.is(Kind::NotFound) && e.message.contains("no node.json"), "{e}");
        identity::identify(dir.path(), "v1", || 7).unwrap();
        std::fs::create_dir(dir.path().join("stage")).unwrap();
        for given in [dir.path().to_owned(), dir.path().join("stage")] {
            let (cache, whose) = cache_of(&given).unwrap();
            assert_eq!((cache, whose.volume.as_str(), whose.node.0), (dir.path().to_owned(), "v1", 7));
        }
    }

    #[test]
    fn what_is_left_decides_the_exit() {
        let cache = Path::new("/c");
        let mut report =
            RecoverReport { node: "7".into(), clean: true, namespaces: vec![RecoveredSpace::default()] };
        assert!(show(cache, &report).contains("nothing is left in /c") && verdict(&report).is_ok());
        report.namespaces.push(RecoveredSpace {
            namespace: "user/a".into(),
            replayed: 3,
            stored_bytes: 2048,
            stored_objects: 1,
            ..RecoveredSpace::default()
        });
        let text = show(cache, &report);
        assert!(
            text.contains("user/a     3            0            2.0 KiB  1\n")
                && text.contains("only node 7 had"),
            "{text}"
        );
        (report.clean, report.namespaces[1].kept_aside) = (false, vec!["inode 5 lies in /c/aside/5".into()]);
        assert!(show(cache, &report).contains("user/a: inode 5 lies in /c/aside/5\n"));
        assert_eq!(verdict(&report).unwrap_err().exit, 1);
        report.namespaces[1].left = Some(Failure::of_kind(Kind::Unavailable, "the store is gone"));
        let e = verdict(&report).unwrap_err();
        assert!(e.exit == 3 && e.message.contains("user/a: the store is gone"), "{e}");
    }
}
