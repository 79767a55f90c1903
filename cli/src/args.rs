//! The command line. A file for the commands of one thing; settings' flags are made from the table in [`crate::settings`].

mod csi;
mod flags;
mod meta;
mod mount;
mod node;
mod ns;
mod observe;
mod repair;
#[cfg(test)]
mod tests;
mod token;

use clap::{Parser, Subcommand};

pub use csi::{CsiArgs, CsiRole};
pub use flags::{NodeFlags, PlaceFlags, ServiceFlags, SettingFlags};
pub use meta::{MetaArgs, MetaCommand};
pub use mount::{BenchArgs, MountArgs, SyncArgs, UmountArgs, WarmupArgs};
pub use node::{DoctorArgs, InitArgs, KeeperArgs, NodeArgs, NodeCommand, StatusArgs};
pub use ns::{DurabilityArg, NsArgs, NsCommand, NsFields, PolicyFields};
pub use observe::{ExplainArgs, TopArgs, TraceArgs};
pub use repair::{FsckArgs, GcArgs, RebuildArgs, RecoverArgs};
pub use token::{RightsArg, TokenArgs, TokenCommand};

pub use crate::datasets::{CatArgs, IndexArgs, LsArgs, PackArgs, PlanArgs, UnpackArgs, VerifyArgs};

#[derive(Debug, Parser)]
#[command(
    name = "granary",
    version,
    about = "A POSIX file system over object storage, as fast as the node's disk",
    after_help = "Every setting is a flag, a GRANARY_* variable and a key of granary.toml; the first that gives it wins.\n\
                  Exit codes: 0 done, 1 failed, 2 cannot be used as given, 3 the store is unavailable."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Init(InitArgs),
    Node(NodeArgs),
    Mount(MountArgs),
    Umount(UmountArgs),
    Sync(SyncArgs),
    Warmup(WarmupArgs),
    Status(StatusArgs),
    Bench(BenchArgs),
    Top(TopArgs),
    Trace(TraceArgs),
    Explain(ExplainArgs),
    Doctor(DoctorArgs),
    Csi(CsiArgs),
    /// Hold the mounts of a node, so that they outlive its process
    #[command(hide = true)]
    Keeper(KeeperArgs),
    Ns(Box<NsArgs>),
    Fsck(FsckArgs),
    Gc(GcArgs),
    Rebuild(RebuildArgs),
    Recover(RecoverArgs),
    Meta(MetaArgs),
    Token(TokenArgs),
    Pack(Box<PackArgs>),
    Index(IndexArgs),
    Verify(VerifyArgs),
    Ls(LsArgs),
    Cat(CatArgs),
    Unpack(UnpackArgs),
    Plan(Box<PlanArgs>),
    /// Print the version
    Version,
}
