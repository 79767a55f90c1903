//! Tokens.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::PlaceFlags;

/// Make, read and revoke the tokens that prove to a metadata service who asks
///
/// A token is a line of text that says who its bearer is and until when; whoever has it may use it, so keep it as you
/// keep a password. It is signed with a key that only the administrator has; the service knows its public part.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: granary token issue --user alice --group asr --ttl 30d --key granary.key >alice.token"
)]
pub struct TokenArgs {
    #[command(subcommand)]
    pub command: TokenCommand,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a key that signs tokens, and beside it FILE.pub, which a service is given with --trust
    #[command(after_help = "Example: granary token key --key granary.key --meta /var/lib/granary/meta")]
    Key {
        /// The new file, readable by its owner only
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The volume whose tokens it signs [default: the one of --meta, or of the node that runs here]
        #[arg(long, value_name = "UUID")]
        volume: Option<String>,
        /// One that is not there yet: `granary init --key FILE` makes it
        #[arg(long, conflicts_with = "volume")]
        new_volume: bool,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Print a new token
    #[command(
        after_help = "Example: granary token issue --user alice --group asr --rights read-write --ttl 30d --key granary.key"
    )]
    Issue {
        /// Whose token it is: it opens user/NAME
        #[arg(long, value_name = "NAME")]
        user: String,
        /// A group of theirs: it opens group/NAME too; may be given several times
        #[arg(long = "group", value_name = "NAME")]
        groups: Vec<String>,
        /// What it is good for; delegate: having the service make short-lived tokens, and nothing else; admin: everything of everybody
        #[arg(long, value_enum, default_value = "read-write")]
        rights: RightsArg,
        /// These namespaces and no others, as KIND/NAME, KIND/* or */*; may be given several times [default: user/NAME and the groups'; with
        /// --rights delegate all]
        #[arg(long = "namespace", value_name = "NAMESPACE")]
        namespaces: Vec<String>,
        /// For how long, for example 12h or 30d
        #[arg(long, value_name = "PERIOD", default_value = "30d")]
        ttl: String,
        /// The key that signs it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The volume that it is for [default: the one that the key was made for]
        #[arg(long, value_name = "UUID")]
        volume: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Print a short-lived token for one namespace, which the metadata service makes by your token's right to delegate
    ///
    /// It ends with your token, or when that is revoked. No key is needed.
    #[command(
        after_help = "Example: granary token delegate group/asr --ttl 1h --meta https://meta.example:7411 --token-file csi.token"
    )]
    Delegate {
        /// The namespace that it is for
        namespace: String,
        /// To read only
        #[arg(long)]
        read_only: bool,
        /// For how long, a day at most
        #[arg(long, value_name = "PERIOD", default_value = "1h")]
        ttl: String,
        /// For whom, as the service's audit log tells it
        #[arg(long, value_name = "TEXT", default_value = "")]
        purpose: String,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Give the node here a token: what it has of a namespace goes on with it, and what is left of one goes to the store
    #[command(after_help = "Example: granary token hand asr.token --socket /run/granary/node.sock")]
    Hand {
        /// The token, a file with it, or - for standard input
        token: String,
        /// The namespace that is meant [default: the one that the token is for]
        #[arg(long, value_name = "NAMESPACE")]
        namespace: Option<String>,
        #[command(flatten)]
        flags: PlaceFlags,
    },
    /// Show what a token says; no key is needed
    #[command(after_help = "Example: granary token inspect alice.token")]
    Inspect {
        /// The token, a file with it, or - for standard input
        token: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Make a token worthless before its time, with all that was delegated from it; mounts that use it end (administrators only)
    #[command(
        after_help = "Example: granary token revoke alice.token --meta https://meta.example:7411 --token-file admin.token"
    )]
    Revoke {
        /// The token, a file with it, or - for standard input
        token: String,
        #[command(flatten)]
        flags: PlaceFlags,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RightsArg {
    ReadOnly,
    ReadWrite,
    Delegate,
    Admin,
}
