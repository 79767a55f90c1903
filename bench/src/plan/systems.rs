//! The systems of one round.

use std::path::Path;

use anyhow::{Context, Result};

use crate::system::{Ext4, Granary, Juicefs, Programs, Rclone, S3fs, System};
use crate::target::Target;

/// Which of them do a piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    All,
    /// Those with metadata of their own.
    Posix,
    /// ext4 and Granary.
    Own,
    /// Those over the store.
    Stored,
}

pub struct Systems {
    pub ext4: Ext4,
    pub granary: Granary,
    pub peers: Vec<Box<dyn System>>,
}

impl Systems {
    pub fn make(programs: &Programs, dir: &Path, target: &Target, number: u32) -> Result<Self> {
        let number = number + 1;
        let name = |system: &str| format!("{system}-{number}");
        let mut peers: Vec<Box<dyn System>> = Vec::new();
        if let Some(binary) = &programs.juicefs {
            let made = Juicefs::make(binary, dir, target, &name("juicefs"));
            peers.push(Box::new(made.context("JuiceFS")?));
        }
        if let Some(binary) = &programs.s3fs {
            peers.push(Box::new(S3fs::make(binary, dir, target, &name("s3fs")).context("s3fs")?));
        }
        if let Some(binary) = &programs.rclone {
            peers.push(Box::new(Rclone::make(binary, dir, target, &name("rclone")).context("rclone")?));
        }
        let granary = Granary::make(&programs.granary, dir, target, &name("round")).context("Granary")?;
        Ok(Systems { ext4: Ext4::make(dir)?, granary, peers })
    }

    /// In an order that changes from round to round.
    pub fn of(&mut self, who: Who, round: u32) -> Vec<&mut dyn System> {
        let mut systems: Vec<&mut dyn System> = vec![&mut self.ext4, &mut self.granary];
        systems.extend(self.peers.iter_mut().map(|peer| &mut **peer as &mut dyn System));
        let name = |system: &dyn System| system.name();
        systems.retain(|system| match who {
            Who::All => true,
            Who::Posix => system.is_posix(),
            Who::Own => [crate::system::EXT4, crate::system::GRANARY].contains(&name(&**system)),
            Who::Stored => name(&**system) != crate::system::EXT4,
        });
        let turn = round as usize % systems.len().max(1);
        systems.rotate_left(turn);
        systems
    }
}
