//! Metadata: its service, its backups.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{PlaceFlags, ServiceFlags};

/// Serve a volume's metadata to many machines, look at that service, save metadata and bring it back
///
/// One machine needs none of this: there the node has the metadata itself. For many machines, one runs the service and
/// the others name it: `granary mount user/alice /mnt/alice --meta https://HOST:7411 --token-file FILE`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary meta serve --meta /var/lib/granary/meta --listen 0.0.0.0:7411 \\\n           \
                        --tls-cert cert.pem --tls-key key.pem --trust granary.key.pub"
)]
pub struct MetaArgs {
    #[command(subcommand)]
    pub command: MetaCommand,
}

#[derive(Debug, Subcommand)]
pub enum MetaCommand {
    /// Run the service, in the foreground; SIGTERM stops it cleanly
    ///
    /// Who may do what is said by tokens (`granary token`), which count when a key given with --trust has signed them.
    /// Stopped and started again, it goes on where it was: programs on other machines see a pause.
    #[command(
        after_help = "Example: granary meta serve --meta /var/lib/granary/meta --listen 10.0.0.1:7411 \\\n           \
                      --tls-cert cert.pem --tls-key key.pem --trust granary.key.pub"
    )]
    Serve {
        /// Listen beyond this machine without TLS: anybody on the network can then read tokens and names
        #[arg(long)]
        insecure: bool,
        /// Tell on standard output, in one line of JSON, that the service is ready or why it is not.
        #[arg(long, hide = true)]
        notify: bool,
        #[command(flatten)]
        flags: ServiceFlags,
    },
    /// Save the metadata in a file, while programs go on
    ///
    /// Works through the node when it runs, and on the metadata folder itself otherwise. A node, and a metadata service, also
    /// save it in the store by themselves (setting meta_backup_interval_ms).
    #[command(after_help = "Example: granary meta backup /srv/backups/granary.meta")]
    Backup {
        /// The file, replaced when all of it is written
        file: PathBuf,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Bring saved metadata back, into a new folder
    ///
    /// The folder of --meta must be new or empty. What was changed since the backup was made is not in it; files whose objects
    /// were deleted since are told by `granary fsck`. Objects that were stored since are garbage for it.
    #[command(
        after_help = "Example: granary meta restore --from-store s3://training/granary --meta /var/lib/granary/meta-new\n         \
                      granary meta restore /srv/backups/granary.meta --meta /var/lib/granary/meta-new"
    )]
    Restore {
        /// A file made by `granary meta backup`
        #[arg(conflicts_with = "from_store")]
        file: Option<PathBuf>,
        /// The store of the volume, with the backups that its node or service wrote
        #[arg(long, value_name = "URL")]
        from_store: Option<String>,
        /// The newest backup made no later than then: 2026-01-31T12:00, or 3h for three hours ago [default: the newest]
        #[arg(long, value_name = "WHEN", requires = "from_store")]
        at: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Show whether the service answers, whom it takes you for, and what is connected
    #[command(
        after_help = "Example: granary meta status --meta https://meta.example:7411 --token-file admin.token"
    )]
    Status {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// List the nodes that are connected, with what they have open: an administrator sees all, others their own
    #[command(
        after_help = "Example: granary meta sessions --meta https://meta.example:7411 --token-file admin.token"
    )]
    Sessions {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
}
