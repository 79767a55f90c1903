//! What people see of a node at work: `granary top`, `trace` and `explain`, its metrics and their dashboard.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use granary_tests::{Node, StoreKind, run_ok, start, until};
use serde_json::Value;

/// Nothing leaves for the store by itself.
const NEVER: [(&str, &str); 2] =
    [("GRANARY_SMALL_PERIOD_MS", "3600000"), ("GRANARY_LARGE_PERIOD_MS", "3600000")];

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The mount's figures, as programs get them.
fn top(node: &Node, namespace: &str) -> Value {
    let frame = json(&node.ok(&["top", "--once", "--json"]));
    let mounts = frame["mounts"].as_array().expect("mounts");
    mounts.iter().find(|mount| mount["namespace"] == namespace).expect("it is mounted").clone()
}

fn op(mount: &Value, name: &str) -> Value {
    let ops = mount["ops"].as_array().expect("operations");
    ops.iter().find(|op| op["op"] == name).cloned().unwrap_or(Value::Null)
}

fn explain(node: &Node, path: &Path) -> Value {
    json(&node.ok(&["explain", "--json", text(path)]))
}

fn metrics(node: &Node) -> String {
    node.get("/metrics")
}

#[test]
fn top_tells_what_was_done_and_where_from() {
    let node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("f"), vec![7; 100_000]).expect("write");
    granary_tests::drop_page_cache();
    assert!(fs::read(dir.join("f")).expect("read") == vec![7; 100_000]);
    let alice = top(&node, "user/alice");
    assert_eq!((&alice["mode"], &alice["dirs"][0]), (&"work".into(), &text(&dir).into()));
    let (create, read) = (op(&alice, "create"), op(&alice, "read"));
    assert_eq!(create["count"], 1);
    assert!(
        read["count"].as_u64() >= Some(1) && read["p50_us"].as_u64() <= read["p999_us"].as_u64(),
        "{alice}"
    );
    let stage = alice["tiers"].as_array().expect("tiers").iter().find(|t| t["tier"] == "stage").cloned();
    assert_eq!(stage.expect("the stage")["bytes"], 100_000);
    assert_eq!(alice["dirty_bytes"], 100_000);
    // Not a terminal: a report for people, the same figures.
    let report = node.ok(&["top"]);
    assert!(report.contains("user/alice (work)") && report.contains("P99.9"), "{report}");
}

/// A trace of reads that runs beside the test.
struct Trace {
    child: Child,
    lines: BufReader<File>,
}

impl Trace {
    fn of(node: &Node, args: &[&str]) -> Trace {
        let mut command = node.command(args);
        command.stdout(Stdio::piped());
        let started = start(command);
        Trace { child: started.child, lines: BufReader::new(started.output.expect("piped")) }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        json(&line)
    }

    /// As with Ctrl-C.
    fn end(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("kill");
        assert!(self.child.wait().expect("wait").success());
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it has ended, if the test went well
        let _ = self.child.wait();
    }
}

/// A store that hangs: the object is a pipe that nobody writes to, so that opening it waits.
#[test]
fn trace_names_who_waits_for_the_store() {
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("slow.bin"), vec![3; 300_000]).expect("write");
    let dir = node.come_back_from_the_store(&dir, "user/alice", "");
    let objects = node.stored_objects();
    let [object] = &objects[..] else { panic!("one pack: {objects:?}") };
    let (object, real, pipe) = (PathBuf::from(object), node.path("real"), node.path("pipe"));
    fs::rename(&object, &real).expect("rename");
    run_ok("mkfifo \"$1\"", &[text(&object)]);

    let mut trace = Trace::of(&node, &["trace", text(&dir), "--min-ms", "0", "--op", "read", "--json"]);
    assert_eq!(trace.line()["watching"]["namespace"], "user/alice");
    let path = dir.join("slow.bin");
    // Open until the end, so that its path can be told.
    let mut file = fs::File::open(&path).expect("open");
    let (told, until_told) = std::sync::mpsc::channel::<()>();
    let reader = {
        let mut file = file.try_clone().expect("dup");
        // The error is the store's, or none, if it is asked again. A thread that has ended has no process.
        std::thread::spawn(move || {
            drop(file.read(&mut [0; 4096]));
            let _told = until_told.recv();
        })
    };
    until("somebody waits for the store", || {
        let alice = top(&node, "user/alice");
        op(&alice, "read")["in_flight"].as_u64() >= Some(1) && alice["io_wait"].as_f64() > Some(0.0)
    });
    // The store comes back, and what waited for the pipe goes on.
    fs::rename(&object, &pipe).expect("rename");
    fs::rename(&real, &object).expect("rename");
    let writer = fs::OpenOptions::new().write(true).open(&pipe).expect("somebody waits to read");
    let line = trace.line();
    drop((told, writer));
    reader.join().expect("the reader");
    let slow = &line["slow"];
    assert_eq!((&slow["op"], &slow["path"]), (&"read".into(), &text(&path).into()), "{line}");
    assert_eq!(slow["pid"], std::process::id());
    let waited = &slow["waits"][0];
    assert_eq!(waited["on"], "store");
    let key = text(&object).split_once("/store/").expect("a key").1;
    assert_eq!(waited["what"], format!("store: GET of {key}"));
    trace.end();
    file.rewind().expect("seek");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the store is well again");
    assert!(bytes == vec![3; 300_000]);
}

#[test]
fn trace_says_what_it_cannot_do() {
    let node = Node::new(StoreKind::Folder);
    let dir = node.mount("user/alice", "");
    node.fails(&["trace", text(&dir), "--op", "reed"], "there is no operation \"reed\"; they are lookup");
    node.fails(&["trace", "/proc"], "nothing of this node is mounted at /proc");
    node.fails(&["explain", "/proc/self/status"], "nothing of this node is mounted at");
}

#[test]
fn explain_follows_a_file_to_the_store_and_back() {
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fs::create_dir(dir.join("d")).expect("mkdir");
    fs::write(dir.join("d/f"), vec![9; 100_000]).expect("write");
    let staged = explain(&node, &dir.join("d/f"));
    let staged = &staged["file"];
    assert_eq!(
        (&staged["places"]["stage_log"], &staged["requests"]),
        (&100_000.into(), &0.into()),
        "{staged}"
    );
    let waits = &staged["waits"];
    assert_eq!(waits["by"], "small_period_ms");
    assert!(waits["left_ms"].as_u64() > Some(3_000_000), "{waits}"); // of an hour
    let people = node.ok(&["explain", text(&dir.join("d/f"))]);
    assert!(
        people.contains("leaves for the store in 5") || people.contains("leaves for the store in 1 h"),
        "{people}"
    );

    node.sync(&dir);
    let stored = explain(&node, &dir.join("d/f"));
    assert_eq!(stored["file"]["places"]["cache"], 100_000, "the drain leaves it in the cache: {stored}");
    let key = stored["file"]["stretches"][0]["key"].as_str().expect("a key");
    assert!(node.stored_objects().iter().any(|path| path.ends_with(key)), "{key}");

    let dir = node.come_back_from_the_store(&dir, "user/alice", "");
    let evicted = explain(&node, &dir.join("d/f"));
    let evicted = &evicted["file"];
    assert_eq!(evicted["places"]["store"], 100_000, "{evicted}");
    assert!(
        evicted["requests"].as_u64() >= Some(1) && evicted["fetch_bytes"].as_u64() >= Some(100_000),
        "{evicted}"
    );
    let below = explain(&node, &dir);
    let below = &below["directory"];
    assert_eq!(
        (&below["files"], &below["directories"], &below["places"]["store"]),
        (&1.into(), &1.into(), &100_000.into()),
        "{below}"
    );
    assert_eq!(below["requests"], evicted["requests"]);
}

/// Every metric that the dashboard asks for is one that a node shows.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let mut node = Node::with_settings(StoreKind::Folder, &NEVER);
    let dir = node.mount("user/alice", "");
    fs::write(dir.join("f"), vec![1; 50_000]).expect("write");
    // What nobody did yet has no samples.
    let dir = node.come_back_from_the_store(&dir, "user/alice", "");
    assert_eq!(fs::read(dir.join("f")).expect("read").len(), 50_000);
    let answer = metrics(&node);
    let known: BTreeSet<&str> = answer
        .lines()
        .filter(|line| line.starts_with("granary_"))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/grafana/granary.json");
    let dashboard = json(&fs::read_to_string(path).expect("the dashboard"));
    let mut asked = Vec::new();
    queries(&dashboard, &mut asked);
    assert!(asked.len() > 20, "{asked:?}");
    for query in &asked {
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let names: Vec<_> = words.filter(|word| word.starts_with("granary_")).collect();
        assert!(!names.is_empty(), "{query}");
        for name in names {
            assert!(known.contains(name), "{name} of {query:?} is not among {known:#?}");
        }
    }
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    assert!(variables.iter().any(|v| v["name"] == "datasource" && v["type"] == "datasource"));
    let sources = dashboard["panels"].as_array().expect("panels").iter().map(|p| &p["datasource"]["uid"]);
    assert!(sources.into_iter().all(|uid| uid == "${datasource}"));
}

/// Every expression and definition in it.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(all) => all.iter().for_each(|v| queries(v, found)),
        Value::Object(all) => {
            for (name, v) in all {
                match v.as_str() {
                    Some(text) if ["expr", "definition"].contains(&name.as_str()) => {
                        found.push(text.to_owned())
                    }
                    _ => queries(v, found),
                }
            }
        }
        _ => {}
    }
}
