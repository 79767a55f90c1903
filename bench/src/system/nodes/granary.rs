//! Granary: a metadata service, and node processes that reach it over loopback, all on one image.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Nodes;
use crate::clock::Stopwatch;
use crate::disk::Disk;
use crate::process::{Memory, end_marked, force_unmount, is_mounted, memory, run};
use crate::system::GRANARY;
use crate::target::Target;
use crate::work::service::Endpoint;

const NAMESPACE: &str = "group/bench";
/// How long processes may take to start or to stop.
const PATIENCE_S: f64 = 20.0;

#[derive(Debug)]
struct OneNode {
    socket: PathBuf,
    variables: HashMap<String, String>,
}

#[derive(Debug)]
pub struct GranaryNodes {
    binary: PathBuf,
    meta: PathBuf,
    port: u16,
    metrics_port: u16,
    token_file: PathBuf,
    service: Child,
    nodes: Vec<OneNode>,
    roots: Vec<PathBuf>,
    _disk: Disk, // after what lies on it was stopped
}

/// Free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl GranaryNodes {
    /// A new volume below `prefix` of the store, served, and mounted by `count` nodes.
    pub fn make(binary: &Path, dir: &Path, target: &Target, prefix: &str, count: usize) -> Result<Self> {
        let disk = Disk::make(dir, "granary-disk")?;
        let meta = disk.path().join("meta");
        let granary = |args: &[&str]| {
            let mut command = Command::new(binary);
            command.args(args).env("GRANARY_META", &meta).envs(target.variables());
            run(&mut command)
        };
        let (key, token_file) = (dir.join("key"), dir.join("token"));
        let key_text = key.to_string_lossy();
        granary(&["init", "--store", &target.granary_url(prefix)?])?;
        granary(&["ns", "create", NAMESPACE, "--owner", "0", "--group", "0", "--trash", "0"])?;
        granary(&["token", "key", "--key", &key_text])?;
        let group = NAMESPACE.strip_prefix("group/").expect("a group's");
        let token = granary(&[
            "token", "issue", "--user", "bench", "--group", group, "--rights", "admin", "--key", &key_text,
        ])?;
        std::fs::write(&token_file, token)?;

        let (port, metrics_port) = (free_port()?, free_port()?);
        let log = File::create(dir.join("service.log"))?;
        let service = Command::new(binary)
            .args(["meta", "serve", "--listen", &format!("127.0.0.1:{port}")])
            .args(["--trust", &format!("{key_text}.pub"), "--metrics-port", &metrics_port.to_string()])
            .env("GRANARY_META", &meta)
            .envs(target.variables())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let (nodes, roots) = (Vec::new(), Vec::new());
        let mut all = GranaryNodes {
            binary: binary.into(),
            meta,
            port,
            metrics_port,
            token_file,
            service,
            nodes,
            roots,
            _disk: disk,
        };
        all.wait_for_service(&dir.join("service.log"))?;
        for i in 0..count {
            all.add_node(dir, target, i)?;
        }
        Ok(all)
    }

    fn wait_for_service(&mut self, log: &Path) -> Result<()> {
        let watch = Stopwatch::start();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let words = || std::fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = self.service.try_wait()? {
                bail!("granary meta serve ended with {status}: {}", words());
            }
            ensure!(watch.seconds() < PATIENCE_S, "granary meta serve does not listen: {}", words());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        Ok(())
    }

    fn add_node(&mut self, dir: &Path, target: &Target, i: usize) -> Result<()> {
        let (root, socket) = (dir.join(format!("{GRANARY}-{i}")), dir.join(format!("node-{i}.sock")));
        std::fs::create_dir(&root)?;
        let cache = self._disk.path().join(format!("cache-{i}"));
        let mut variables = target.variables();
        for (name, value) in [
            ("GRANARY_META", self.url()),
            ("GRANARY_TOKEN_FILE", self.token_file.to_string_lossy().into_owned()),
            ("GRANARY_CACHE", cache.to_string_lossy().into_owned()),
            ("GRANARY_SOCKET", socket.to_string_lossy().into_owned()),
            ("GRANARY_DATA_LISTEN", format!("127.0.0.1:{}", free_port()?)),
        ] {
            variables.insert(name.into(), value);
        }
        self.nodes.push(OneNode { socket, variables });
        self.roots.push(root.clone());
        run(self.command(i, "mount").arg(NAMESPACE).arg(&root))?;
        ensure!(is_mounted(&root), "granary mount said nothing, and {} is no mount", root.display());
        Ok(())
    }

    fn command(&self, node: usize, name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(name).envs(&self.nodes[node].variables);
        command
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// For clients without mounts.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let token = std::fs::read_to_string(&self.token_file)?;
        Ok(Endpoint { url: self.url(), token, namespace: NAMESPACE.into() })
    }

    /// Of the service's process.
    pub fn service_memory(&self) -> Result<Memory> {
        memory(&self.meta)
    }

    /// Calls that the service has done since it started, by its metrics.
    pub fn service_calls(&self) -> Result<u64> {
        let mut stream =
            TcpStream::connect(("127.0.0.1", self.metrics_port)).context("the service's metrics")?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        counter(&text, "granary_meta_calls_total").context("the metrics have no granary_meta_calls_total")
    }
}

/// The sum of a counter over its labels.
fn counter(metrics: &str, name: &str) -> Option<u64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.rsplit_once(' ')?;
        (value.0.is_empty() || value.0.starts_with('{')).then(|| value.1.parse::<f64>().ok())?
    });
    values.map(|v| v as u64).reduce(|a, b| a + b)
}

impl Nodes for GranaryNodes {
    fn name(&self) -> &'static str {
        GRANARY
    }

    fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    fn settle(&self) -> Result<()> {
        for (i, root) in self.roots.iter().enumerate() {
            run(self.command(i, "sync").arg(root))?;
        }
        rustix::fs::sync();
        Ok(())
    }
}

impl Drop for GranaryNodes {
    fn drop(&mut self) {
        for (i, root) in self.roots.iter().enumerate() {
            if is_mounted(root) && run(self.command(i, "umount").arg(root)).is_err() {
                force_unmount(root);
            }
            if self.nodes[i].socket.exists() {
                let _ = run(self.command(i, "node").arg("stop"));
            }
            end_marked(&self.nodes[i].socket, PATIENCE_S);
            force_unmount(root);
        }
        let _ = kill_process(Pid::from_child(&self.service), Signal::TERM);
        let watch = Stopwatch::start();
        while self.service.try_wait().is_ok_and(|ended| ended.is_none()) {
            if watch.seconds() > PATIENCE_S {
                let _ = self.service.kill();
                let _ = self.service.wait();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_labels() {
        let text = "# TYPE a counter\na_total 3\na_total_other 9\nb_total{kind=\"x y\"} 4\nb_total{kind=\"z\"} 5\n# EOF\n";
        assert_eq!(counter(text, "a_total"), Some(3));
        assert_eq!(counter(text, "b_total"), Some(9));
        assert_eq!(counter(text, "c_total"), None);
    }
}
