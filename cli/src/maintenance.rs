//! Long works on a volume: through the node when it runs and has the metadata itself, else on the metadata's folder.

use std::sync::Arc;
use std::time::Duration;

use granary_core::{Kind, SystemClock};
use granary_maintain::progress::Progress;
use granary_meta::Volume;
use granary_store::Store;
use prometheus_client::registry::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::node::blocking;
use crate::progress::Steps;
use crate::settings::{MetaPlace, Settings};
use crate::wire::Status;
use crate::{log, volume};

/// How often progress is shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(200);

/// Says where to do what works only where the metadata is.
pub fn elsewhere(meta: &MetaPlace) -> Failure {
    Failure::of_kind(
        Kind::Unsupported,
        format!(
            "the metadata is with the service at {meta}, which cannot do this while it serves: stop it for the time (programs \
             wait meanwhile), and give this command, on its machine, --meta FOLDER"
        ),
    )
}

/// The node of this volume, when one runs: at the socket, and not of another volume than --meta names.
pub async fn node(settings: &Settings) -> Outcome<Option<Client>> {
    let client = Client::new(&settings.socket);
    if !client.is_there().await? {
        return Ok(None);
    }
    if settings.is_given("meta") {
        let status: Status = client.get("/v1/status").await?;
        if status.meta != settings.meta.to_string() {
            return Ok(None);
        }
    }
    Ok(Some(client))
}

/// Opens the metadata's folder for a work, and closes it in any case.
pub async fn with_folder<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&Arc<Volume>) -> Outcome<T>,
) -> Outcome<T> {
    if settings.meta.service().is_some() {
        return Err(elsewhere(&settings.meta));
    }
    // As a service does: what is unlinked but open in sessions that may come back, stays.
    let opened = volume::open_for_service(settings)?;
    let outcome = work(&opened).await;
    let closed = blocking(move || Ok(opened.shutdown()?)).await;
    outcome.and_then(|result| closed.map(|()| result))
}

/// Does a work, with its progress on the terminal: by a request to the node, or here.
pub fn run<T: DeserializeOwned>(
    settings: &Settings,
    (path, request): (&str, &impl Serialize),
    here: impl AsyncFnOnce(&Arc<Volume>, &dyn Store, &Arc<Progress>) -> granary_core::Result<T>,
) -> Outcome<T> {
    let steps = Steps::new();
    block_on(async {
        if let Some(client) = node(settings).await? {
            return client.work(path, request, |step| steps.on_step(step)).await;
        }
        log::start_quiet();
        with_folder(settings, async |volume| {
            let clock = Arc::new(SystemClock);
            let store = volume::store(&volume.info().store_url, settings, clock, &mut Registry::default())?;
            volume::check_marker(&*store, volume.info()).await?;
            let progress = Arc::new(Progress::default());
            shown(&steps, &progress, here(volume, &*store, &progress)).await
        })
        .await
    })
}

/// Shows how far a work is, until it is done.
pub async fn shown<T>(
    steps: &Steps,
    progress: &Progress,
    work: impl Future<Output = granary_core::Result<T>>,
) -> Outcome<T> {
    tokio::pin!(work);
    let mut tick = tokio::time::interval(SHOW_INTERVAL);
    loop {
        tokio::select! {
            outcome = &mut work => return Ok(outcome?),
            _ = tick.tick() => steps.on_step(&progress.now()),
        }
    }
}
