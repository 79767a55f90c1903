//! `granary fsck`.

use granary_maintain::finding::Findings;
use granary_maintain::fsck::{self, FsckOptions, FsckReport};

use crate::args::FsckArgs;
use crate::exit::{Failure, Outcome};
use crate::maintenance;
use crate::node::api::names;
use crate::units::show_bytes;
use crate::wire::FsckRequest;

pub fn run(args: &FsckArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let options = FsckOptions { data: args.data, quick: args.quick, repair: args.repair };
    let chosen = names(&args.namespaces)?;
    let request = FsckRequest { namespaces: args.namespaces.clone(), options };
    let report: FsckReport =
        maintenance::run(&settings, ("/v1/fsck", &request), async |volume, store, progress| {
            fsck::run(volume, store, &chosen, options, progress).await
        })?;
    if args.json {
        super::print_json(&report)?;
    } else {
        super::print(&show(&report))?;
    }
    verdict(&report.findings)
}

fn verdict(findings: &Findings) -> Outcome<()> {
    match findings.problems {
        0 => Ok(()),
        1 => Err(Failure::failed("1 problem was found; what to do stands beside it")),
        n => Err(Failure::failed(format!("{n} problems were found; what to do stands beside each"))),
    }
}

fn show(report: &FsckReport) -> String {
    let mut out = String::new();
    for finding in &report.findings.told {
        out += &format!("{finding}\n");
    }
    if report.findings.left_out > 0 {
        out += &format!("and {} findings more\n", report.findings.left_out);
    }
    let mut rows =
        vec![["NAMESPACE", "INODES", "OBJECTS", "BYTES", "NOT STORED YET", "UNNAMED"].map(str::to_owned)];
    rows.extend(report.namespaces.iter().map(|c| {
        [
            c.namespace.clone(),
            c.inodes.to_string(),
            c.objects.to_string(),
            show_bytes(c.bytes),
            show_bytes(c.staged_bytes),
            if c.unnamed_objects == 0 {
                "0".to_owned()
            } else {
                format!("{} ({})", c.unnamed_objects, show_bytes(c.unnamed_bytes))
            },
        ]
    }));
    out += &super::columns(&rows);
    if report.findings.problems == 0 {
        out += "everything is there and agrees\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_maintain::finding::{FileRef, Finding, What};
    use granary_maintain::fsck::Checked;

    #[test]
    fn findings_come_first_and_decide_the_exit() {
        let mut report = FsckReport {
            namespaces: vec![Checked {
                namespace: "user/a".into(),
                inodes: 3,
                bytes: 2048,
                ..Checked::default()
            }],
            findings: Findings::default(),
        };
        let text = show(&report);
        assert!(text.contains("user/a     3       0        2.0 KiB  0 B             0\n"), "{text}");
        assert!(text.ends_with("agrees\n") && verdict(&report.findings).is_ok());
        report.findings.add(Finding {
            namespace: "user/a".into(),
            what: What::Lost,
            object: Some("ns/1".into()),
            files: vec![FileRef { inode: 7, path: Some("/x".into()) }, FileRef { inode: 8, path: None }],
            files_total: 9,
            message: "an object is lost".into(),
            mend: "bring it back".into(),
        });
        let text = show(&report);
        let line = "user/a: an object is lost [object ns/1] [/x (inode 0000000000000007), inode 0000000000000008, without a \
                    name, and 7 more]; bring it back\n";
        assert!(text.starts_with(line), "{text}");
        assert_eq!(verdict(&report.findings).unwrap_err().exit, 1);
    }
}
