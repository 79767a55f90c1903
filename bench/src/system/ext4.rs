//! The yardstick.

use std::path::Path;

use anyhow::Result;

use super::{EXT4, System};
use crate::disk::Disk;
use crate::process::Memory;

#[derive(Debug)]
pub struct Ext4(Disk);

impl Ext4 {
    pub fn make(dir: &Path) -> Result<Self> {
        Ok(Ext4(Disk::make(dir, EXT4)?))
    }
}

impl System for Ext4 {
    fn name(&self) -> &'static str {
        EXT4
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn settle(&self) -> Result<()> {
        rustix::fs::sync();
        Ok(())
    }

    fn forget(&mut self, _endpoint: Option<&str>) -> Result<()> {
        Ok(())
    }

    fn memory(&self) -> Result<Option<Memory>> {
        Ok(None)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        None
    }
}
