//! `granary gc`.

use granary_core::SystemClock;
use granary_maintain::garbage::{self, GcOptions, GcReport, Why};

use crate::args::GcArgs;
use crate::exit::{Failure, Outcome};
use crate::maintenance;
use crate::node::api::names;
use crate::units::{parse_period_ms, show_bytes, show_period_ms};
use crate::wire::GcRequest;

pub fn run(args: &GcArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let grace_ms = parse_period_ms(&args.grace)
        .map_err(|why| Failure::usage(format!("--grace cannot be used: {why}")))?;
    let options = GcOptions { grace_ms, delete: args.delete };
    garbage::check_options(&options)?;
    let chosen = names(&args.namespaces)?;
    let request = GcRequest { namespaces: args.namespaces.clone(), options };
    let report: GcReport =
        maintenance::run(&settings, ("/v1/gc", &request), async |volume, store, progress| {
            garbage::run(volume, store, &SystemClock, &chosen, options, progress).await
        })?;
    if args.json {
        return super::print_json(&report);
    }
    super::print(&show(&report))
}

fn words(why: Why) -> &'static str {
    match why {
        Why::Dead => "no file has bytes in it any more",
        Why::Unnamed => "never named: left by a crash",
        Why::Removed => "its namespace was removed",
        Why::Young => "not named yet: may be on its way (kept)",
        Why::Later => "of a namespace made after this metadata was saved (kept)",
        Why::Strange => "no object of granary's (kept)",
    }
}

fn show(report: &GcReport) -> String {
    let mut out = String::new();
    if !report.heaps.is_empty() {
        let mut rows = vec![["NAMESPACE", "OBJECTS", "BYTES", "OLDEST", "DELETED", "WHY"].map(str::to_owned)];
        rows.extend(report.heaps.iter().map(|of| {
            [
                of.namespace.clone(),
                of.heap.objects.to_string(),
                show_bytes(of.heap.bytes),
                show_period_ms(of.heap.oldest_ms),
                of.heap.deleted_objects.to_string(),
                words(of.why).to_owned(),
            ]
        }));
        out += &super::columns(&rows);
    }
    let ((objects, bytes), (gone, gone_bytes)) = (report.garbage(), report.gone());
    out += &match (report.deleted, objects) {
        (_, 0) => "there is no garbage\n".to_owned(),
        (false, _) => {
            format!("{objects} objects of {} are garbage; --delete deletes them\n", show_bytes(bytes))
        }
        (true, _) => format!("{gone} objects of {} were deleted\n", show_bytes(gone_bytes)),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_maintain::garbage::{Heap, HeapOf};

    #[test]
    fn the_table_and_what_to_do() {
        let mut report = GcReport::default();
        assert_eq!(show(&report), "there is no garbage\n");
        let heap = Heap { objects: 2, bytes: 4096, oldest_ms: 7_200_000, ..Heap::default() };
        report.heaps.push(HeapOf { namespace: "user/a".into(), why: Why::Unnamed, heap });
        let text = show(&report);
        assert!(text.contains("user/a     2        4.0 KiB  2 h 0 min  0        never named"), "{text}");
        assert!(text.ends_with("2 objects of 4.0 KiB are garbage; --delete deletes them\n"), "{text}");
    }
}
