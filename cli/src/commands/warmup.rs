//! `granary warmup`: brings trees into the node's cache before they are read; looks what is there; drops it.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::args::WarmupArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::progress::WarmProgress;
use crate::units::{show_bytes, show_period_ms};
use crate::wire::{WarmCancelRequest, WarmRequest, WarmStatus, WarmWork};

/// A part of a list that goes to the node at once: less than what it takes in one request.
const LIST_BYTES_MAX: usize = 4 << 20;

pub fn run(args: &WarmupArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let client = Client::new(&settings.socket);
    if args.list {
        return list(&client, args.json);
    }
    if let Some(id) = args.cancel {
        let status: WarmStatus = block_on(client.post("/v1/warmups/cancel", &WarmCancelRequest { id }))?;
        return super::print(&format!("warmup {} of {} ends\n", status.id, status.path));
    }
    let requests = requests(args)?;
    let mut all = Vec::new();
    for request in &requests {
        all.push(block_on(follow(&client, request))?);
    }
    if args.json {
        super::print_json(&all)?;
    } else {
        all.iter().try_for_each(|status| super::print(&(show(status) + "\n")))?;
    }
    if args.background { Ok(()) } else { all.iter().try_for_each(verdict) }
}

async fn follow(client: &Client, request: &WarmRequest) -> Outcome<WarmStatus> {
    let mut progress = WarmProgress::new(&request.path);
    client.warm(request, |status| progress.on_status(status)).await
}

fn work_of(args: &WarmupArgs) -> WarmWork {
    match args {
        _ if args.check => WarmWork::Check,
        _ if args.evict => WarmWork::Evict,
        _ if args.pin => WarmWork::Pin,
        _ if args.unpin => WarmWork::Unpin,
        _ => WarmWork::Fetch,
    }
}

/// One for each path; of a list one for each part.
fn requests(args: &WarmupArgs) -> Outcome<Vec<WarmRequest>> {
    let request = |path: String, files| {
        let (work, background) = (work_of(args), args.background);
        WarmRequest { path, files, work, background }
    };
    let Some(list) = &args.files_from else {
        return args.paths.iter().map(|path| Ok(request(super::text_of(&real(path)?)?, None))).collect();
    };
    let here = PathBuf::from(".");
    let base = match &args.paths[..] {
        [] => &here,
        [base] => base,
        _ => {
            return Err(Failure::usage(
                "with --files-from give one PATH at most: what the names on the list are below",
            ));
        }
    };
    let base = super::text_of(&real(base)?)?;
    let parts = read_list(list)?;
    if args.background && parts.len() > 1 {
        return Err(Failure::usage(format!(
            "{} is too long to be gone through in the background ({} at most); give it in parts",
            list.display(),
            show_bytes(LIST_BYTES_MAX as u64)
        )));
    }
    Ok(parts.into_iter().map(|files| request(base.clone(), Some(files))).collect())
}

fn real(path: &Path) -> Outcome<PathBuf> {
    path.canonicalize().map_err(|e| Failure::io(format!("cannot find {}", path.display()), &e))
}

/// Names, one a line, in order, in parts of bounded length. Empty lines are left out.
fn read_list(list: &Path) -> Outcome<Vec<Vec<String>>> {
    let cannot = |e: &std::io::Error| Failure::io(format!("cannot read the list {}", list.display()), e);
    let reader: Box<dyn BufRead> = if list == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(std::io::BufReader::new(std::fs::File::open(list).map_err(|e| cannot(&e))?))
    };
    let mut parts: Vec<Vec<String>> = Vec::new();
    let mut bytes = LIST_BYTES_MAX;
    for line in reader.lines() {
        let line = line.map_err(|e| cannot(&e))?;
        if line.is_empty() {
            continue;
        }
        bytes += line.len() + 3; // quotes and a comma
        if bytes > LIST_BYTES_MAX {
            parts.push(Vec::new());
            bytes = line.len() + 3;
        }
        if let Some(part) = parts.last_mut() {
            part.push(line);
        }
    }
    Ok(parts)
}

fn list(client: &Client, json: bool) -> Outcome<()> {
    let all: Vec<WarmStatus> = block_on(client.get("/v1/warmups"))?;
    if json {
        return super::print_json(&all);
    }
    if all.is_empty() {
        return super::print("no warmup was asked for\n");
    }
    all.iter().try_for_each(|status| super::print(&format!("{}: {}\n", status.id, show(status))))
}

/// For people.
pub fn show(status: &WarmStatus) -> String {
    let mut text = format!(
        "{}: {} of {} files, {} of {} ({} %) on this node",
        status.path,
        status.files_here,
        status.files,
        show_bytes(status.bytes_here),
        show_bytes(status.bytes),
        status.percent_here()
    );
    match status.work {
        WarmWork::Fetch | WarmWork::Pin if status.ended => {
            let rate = (status.bytes_fetched * 1000).checked_div(status.running_ms).unwrap_or(0);
            text += &format!(
                "; {} fetched in {}, {}/s",
                show_bytes(status.bytes_fetched),
                show_period_ms(status.running_ms),
                show_bytes(rate)
            );
        }
        _ if !status.ended => text += "; under way",
        _ => {}
    }
    if status.bytes_elsewhere > 0 {
        text += &format!(
            "; {} are on another node, and not in the store yet",
            show_bytes(status.bytes_elsewhere)
        );
    }
    if status.denied > 0 {
        text += &format!("; {} files or folders are not for you to read", status.denied);
    }
    if status.failed > 0 {
        let first = status.first_failure.as_deref().unwrap_or("unknown");
        text += &format!("; {} failed, the first: {first}", status.failed);
    }
    if let Some(failure) = &status.failure {
        text += &format!("; it ended early: {failure}");
    }
    text
}

/// How the command ends: well when it did what was asked, for all of it.
fn verdict(status: &WarmStatus) -> Outcome<()> {
    let left = match status.work {
        WarmWork::Fetch | WarmWork::Pin | WarmWork::Check => !status.is_complete(),
        WarmWork::Evict | WarmWork::Unpin => status.failed + status.denied > 0,
    };
    if !left {
        return Ok(());
    }
    let mend = match status.work {
        WarmWork::Check => "`granary warmup` fetches it",
        _ => "see the line above; the same command goes on from there",
    };
    Err(Failure::failed(format!("not all of {} is on this node; {mend}", status.path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_in_order_and_in_parts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        std::fs::write(&path, "b/2\n\na/1\nc 3").unwrap();
        assert_eq!(read_list(&path).unwrap(), [["b/2", "a/1", "c 3"]]);
        let long = "x".repeat(LIST_BYTES_MAX / 2);
        std::fs::write(&path, format!("{long}\n{long}\n1\n{long}\n")).unwrap();
        let parts: Vec<usize> = read_list(&path).unwrap().iter().map(Vec::len).collect();
        assert_eq!(parts, [1, 2, 1]);
        std::fs::write(&path, "").unwrap();
        assert!(read_list(&path).unwrap().is_empty());
    }

    #[test]
    fn what_a_person_reads() {
        let status = WarmStatus {
            path: "/mnt/d".into(),
            files: 10,
            bytes: 10 << 20,
            files_here: 9,
            bytes_here: 9 << 20,
            denied: 1,
            ended: true,
            work: WarmWork::Check,
            ..WarmStatus::default()
        };
        let text = show(&status);
        assert_eq!(
            text,
            "/mnt/d: 9 of 10 files, 9.0 MiB of 10.0 MiB (90 %) on this node; 1 files or folders are not for you to read"
        );
        assert!(verdict(&status).unwrap_err().message.contains("fetches it"));
        let whole = WarmStatus { files_here: 10, bytes_here: 10 << 20, denied: 0, ..status };
        verdict(&whole).unwrap();
    }
}
