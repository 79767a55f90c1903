//! What a GET costs this process: CPU seconds for each GiB, by the S3 client alone and through the production stack.
//!
//! `cargo run --release -p granary-store --example get_cost`: a server in a process of its own sends the same bytes for ever.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures::StreamExt;
use granary_core::limits::Limits;
use granary_core::{Clock, SystemClock};
use granary_store::{Environment, Options, Store, open, stacked};
use prometheus_client::registry::Registry;

type Failed = Box<dyn std::error::Error>;

const LONGEST: usize = 4 << 20;
const TOTAL: u64 = 4 << 30;
const AT_ONCE: usize = 8;

fn main() -> Result<(), Failed> {
    if std::env::args().nth(1).as_deref() == Some("serve") {
        return serve();
    }
    let mut server = Command::new(std::env::current_exe()?)
        .arg("serve")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut url = String::new();
    BufReader::new(server.stdout.take().ok_or("the server has no output")?).read_line(&mut url)?;
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(url.trim()));
    // The server ends with its input.
    drop(server.stdin.take());
    server.wait()?;
    outcome
}

async fn measure(url: &str) -> Result<(), Failed> {
    let environment = Environment::default()
        .with("AWS_ENDPOINT_URL", url)
        .with("AWS_ACCESS_KEY_ID", "id")
        .with("AWS_SECRET_ACCESS_KEY", "secret");
    let client = open("s3://bucket/prefix", &Options { environment, ..Options::default() })?;
    let clock = Arc::new(SystemClock);
    let stack = stacked(client.clone(), &Limits::default(), clock.clone(), &mut Registry::default());
    println!("| store | bytes | CPU seconds a GiB | GiB/s |\n|---|---|---|---|");
    for (name, store) in [("client", client), ("stack", stack)] {
        for len in [64 << 10, 1 << 20, 4 << 20] {
            get(&store, len, TOTAL / 16).await?;
            let (cpu, start) = (cpu_seconds()?, clock.monotonic());
            get(&store, len, TOTAL).await?;
            let gibibytes = TOTAL as f64 / f64::from(1 << 30);
            let (cpu, took) = (cpu_seconds()? - cpu, clock.monotonic() - start);
            println!("| {name} | {len} | {:.3} | {:.2} |", cpu / gibibytes, gibibytes / took.as_secs_f64());
        }
    }
    Ok(())
}

async fn get(store: &Arc<dyn Store>, len: u64, total: u64) -> Result<(), Failed> {
    let gets = (0..total / len).map(|_| {
        let store = store.clone();
        async move { tokio::spawn(async move { store.get("k", 0..len).await }).await }
    });
    let mut gets = futures::stream::iter(gets).buffer_unordered(AT_ONCE);
    while let Some(bytes) = gets.next().await {
        assert_eq!(bytes??.len() as u64, len);
    }
    Ok(())
}

/// Of all threads: user and system time in ticks of 10 ms (proc(5)).
fn cpu_seconds() -> Result<f64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / 100.0)
}

fn serve() -> Result<(), Failed> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Any request, with as many bytes as its range has.
fn answer(stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let bytes = vec![7u8; LONGEST];
    let mut requests = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    let mut len = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=0-") {
            len = range.trim().parse::<usize>().ok()? + 1;
        }
        if line == "\r\n" {
            let head = format!(
                "HTTP/1.1 206 Partial\r\ncontent-length: {len}\r\ncontent-range: bytes 0-{}/{LONGEST}\r\netag: \"e\"\r\n\
                 last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n\r\n",
                len - 1
            );
            stream.write_all(head.as_bytes()).ok()?;
            stream.write_all(&bytes[..len]).ok()?;
        }
    }
}
