//! The metadata: the volume in the folder, or the service. A node that runs has the folder for itself, and is asked.

use granary_core::Kind;

use super::Finding;
use crate::client::{Client, block_on};
use crate::exit::Outcome;
use crate::node::source::Source;
use crate::settings::Settings;
use crate::wire::Status;

/// What is to be said of it, and where the volume's objects are, if that is known.
pub fn look(settings: &Settings) -> (Finding, Option<String>) {
    match block_on(ask(settings)) {
        Ok((found, store)) => (Finding::good("metadata", found), store),
        Err(failure) if failure.is(Kind::NotFound) => {
            let found = format!("no volume in {}", settings.meta);
            (
                Finding::lacking(
                    "metadata",
                    found,
                    "make one with `granary init`, or name another with --meta",
                ),
                None,
            )
        }
        Err(failure) => (Finding::failed("metadata", &failure), None),
    }
}

async fn ask(settings: &Settings) -> Outcome<(String, Option<String>)> {
    let node = Client::new(&settings.socket);
    if node.is_there().await.unwrap_or(false) {
        let status: Status = node.get("/v1/status").await?;
        let mine = env!("CARGO_PKG_VERSION");
        let other = match status.version == mine {
            true => String::new(),
            false => format!(" of version {} (this is {mine})", status.version),
        };
        // `describe` of a bucket says the server behind the URL.
        let url = status.store.split(" at ").next().unwrap_or_default().to_owned();
        return Ok((format!("{}, served by the node{other}, pid {}", status.meta, status.pid), Some(url)));
    }
    let source = Source::for_command(settings).await?;
    let info = source.volume()?;
    Ok((format!("{}, volume {}", settings.meta, info.uuid), Some(info.store_url)))
}
