//! A Ceph RGW of the run's own, through `tools/ceph-rgw`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;

/// A running cluster; stopped and removed when dropped.
#[derive(Debug)]
pub struct Ceph {
    tool: PathBuf,
    state: PathBuf,
}

impl Ceph {
    /// Starts one in `DIR/ceph` with an empty bucket; also gives the `AWS_*` variables that reach it.
    pub fn start(tool: &Path, dir: &Path, bucket: &str) -> Result<(Self, HashMap<String, String>)> {
        let tool =
            tool.canonicalize().with_context(|| format!("{} is not there (--ceph-rgw)", tool.display()))?;
        let ceph = Ceph { tool, state: dir.join("ceph") };
        ceph.run(&["start"])?;
        ceph.run(&["bucket", bucket])?;
        let variables = parse_exports(&ceph.run(&["env"])?);
        Ok((ceph, variables))
    }

    fn run(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.tool);
        command.args(args).env("CEPH_RGW_STATE", &self.state);
        command.env("CEPH_RGW_PORT", "auto").env("CEPH_RGW_MGR", "0").env("CEPH_RGW_SIZE_GB", "60");
        run(&mut command)
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        let _ = self.run(&["destroy"]);
    }
}

fn parse_exports(text: &str) -> HashMap<String, String> {
    let pairs = text.lines().filter_map(|l| l.strip_prefix("export ")?.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_read() {
        let vars = parse_exports("export A=http://h:1\nceph-rgw: up\nexport B=x=y\n");
        assert_eq!(vars["A"], "http://h:1");
        assert_eq!(vars["B"], "x=y");
        assert_eq!(vars.len(), 2);
    }
}
