//! `granary trace`: slow operations as they happen.

use std::fmt::Write;

use crate::args::TraceArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::output::{print_next, say};
use crate::wire::observe::{SlowLine, TraceLine, TraceRequest};

pub fn run(args: &TraceArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let dir = super::text_of(&super::real_dir(&args.dir)?)?;
    let request = TraceRequest { dir, min_ms: args.min_ms, ops: args.ops.clone() };
    let client = Client::new(&settings.socket);
    block_on(async {
        let watching = client.watch(&request, |line| tell(args, line));
        tokio::select! {
            outcome = watching => outcome,
            // It is how one ends it.
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    })
}

fn tell(args: &TraceArgs, line: TraceLine) -> Outcome<Option<()>> {
    if let TraceLine::Failed(failure) = line {
        return Err(failure);
    }
    if args.json {
        let text = serde_json::to_string(&line)
            .map_err(|e| Failure::failed(format!("cannot print what is seen: {e}")))?;
        print_next((text + "\n").as_bytes())?;
        return Ok(None);
    }
    match line {
        TraceLine::Watching { namespace } => {
            say(format_args!("watching {namespace} for operations of {} ms and more", args.min_ms));
        }
        TraceLine::Missed(n) => say(format_args!("{n} slow operations were lost here: too many at once")),
        TraceLine::Slow(slow) => print_next(show(&slow).as_bytes())?,
        TraceLine::Failed(_) => {}
    }
    Ok(None)
}

/// One operation, with a line for each thing that it waited for.
fn show(slow: &SlowLine) -> String {
    let (secs, millis) = (slow.at_unix_ms / 1000, slow.at_unix_ms % 1000);
    let (hours, minutes) = (secs / 3600 % 24, secs / 60 % 60);
    let what = match (&slow.path, &slow.name) {
        (Some(path), _) => path.clone(),
        (None, Some(name)) => format!("{name:?} (inode {})", slow.inode),
        (None, None) => format!("inode {}", slow.inode),
    };
    let who = slow.command.as_deref().unwrap_or("gone by now");
    let errno = slow
        .errno
        .map_or(String::new(), |errno| format!("  error {}", std::io::Error::from_raw_os_error(errno)));
    let mut out = format!(
        "{hours:02}:{minutes:02}:{:02}.{millis:03}Z {:>10}  {:<12} {what}  by {who} (pid {}){errno}\n",
        secs % 60,
        super::top::show_micros(slow.took_us),
        slow.op,
        slow.pid
    );
    for wait in &slow.waits {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "              {:>10}  waited for {}",
            super::top::show_micros(wait.took_us),
            wait.what
        );
    }
    if slow.waits.is_empty() {
        out += "                          waited for nothing but the node's disk and processor\n";
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::observe::WaitLine;

    fn slow() -> SlowLine {
        SlowLine {
            at_unix_ms: 1_700_000_000_123,
            took_us: 2_034_000,
            op: "read".into(),
            inode: 77,
            path: Some("/mnt/alice/images/7.jpg".into()),
            name: None,
            pid: 4242,
            uid: 1000,
            command: Some("python3".into()),
            waits: vec![WaitLine {
                on: "store".into(),
                what: "store: GET of ns/1/p/ab/xyz".into(),
                took_us: 2_033_000,
            }],
            errno: None,
        }
    }

    #[test]
    fn people_see_who_waited_for_what() {
        let text = show(&slow());
        let first = "22:13:20.123Z     2.03 s  read         /mnt/alice/images/7.jpg  by python3 (pid 4242)\n";
        assert_eq!(
            text,
            format!("{first}                  2.03 s  waited for store: GET of ns/1/p/ab/xyz\n")
        );
    }

    #[test]
    fn what_is_not_known_is_said() {
        let text = show(&SlowLine {
            path: None,
            name: Some("a\nb".into()),
            command: None,
            waits: vec![],
            errno: Some(5),
            ..slow()
        });
        for part in
            [r#""a\nb" (inode 77)"#, "gone by now", "Input/output error", "nothing but the node's disk"]
        {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
}
