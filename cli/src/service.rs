//! The metadata service as a process: `granary meta serve`. It opens a volume's metadata as a node does, and serves it to
//! many nodes over the network.
//!
//! | part | what it does |
//! |---|---|
//! | [`authenticate`] | whose token counts |
//! | [`ticket_key`] | the service's own key, for what nodes show one another, and for tokens that it delegates |
//! | [`metrics`] | what Prometheus sees |
//!
//! It ends in this order: no new connections, and sessions are told so that their nodes connect again to the next start;
//! then the metadata is made durable and closed.

pub mod authenticate;
pub mod metrics;
pub mod ticket_key;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use granary_core::{Clock, SystemClock};
use granary_meta::Volume;
use granary_meta::server::{self, ServeLimits, ServeOptions, TlsPem};
use granary_meta::service::{Service, ServiceOptions};
use granary_meta::token::{Delegator, TicketSigner, Verifier};
use prometheus_client::registry::Registry;
use rand::Rng;
use tokio::net::TcpListener;

use crate::commands::token::read_public;
use crate::exit::{Failure, Outcome};
use crate::node::notify::Starter;
use crate::node::signals::{self, Stop};
use crate::node::{blocking, raise_open_files, tls};
use crate::settings::Settings;
use crate::{failpoints, log, node, randomness, volume};
use authenticate::Tokens;

/// Serves until it is told to stop. `insecure`: also to other machines without TLS.
pub fn run(settings: Settings, insecure: bool, starter: &Starter) -> Outcome<()> {
    check(&settings, insecure)?;
    raise_open_files();
    log::start(&settings)?;
    failpoints::arm()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("granary")
        .enable_all()
        .build()
        .map_err(|e| Failure::io("cannot start the service's runtime", &e))?;
    let outcome = runtime.block_on(serve(&settings, starter));
    runtime.shutdown_timeout(Duration::from_secs(2));
    outcome
}

/// What can be told before anything is opened.
fn check(settings: &Settings, insecure: bool) -> Outcome<()> {
    settings.meta.folder()?;
    let service = &settings.service;
    if service.tls.is_none() && !service.listen.ip().is_loopback() && !insecure {
        return Err(Failure::usage(format!(
            "{} can be reached from other machines, and without TLS anybody on the network could read tokens and names: give \
             --tls-cert and --tls-key, or --insecure if that network is yours alone",
            service.listen
        )));
    }
    if service.trust.is_empty() {
        return Err(Failure::usage(
            "whose tokens are to count? Give --trust FILE with the public key that `granary token key` made",
        ));
    }
    Ok(())
}

async fn serve(settings: &Settings, starter: &Starter) -> Outcome<()> {
    // Watched first: a signal that comes while the service starts stops it cleanly as soon as it has started.
    let stop = Stop::default();
    signals::watch(&stop)?;
    let listener = listen(settings.service.listen).await?;
    let address =
        listener.local_addr().map_err(|e| Failure::io("cannot tell the address of the service", &e))?;
    let metrics_listener = node::metrics::listen(settings.metrics).await?;
    let tls = settings.service.tls.as_ref().map(tls::identity).transpose()?;
    let keys = settings.service.trust.iter().map(|path| read_public(path)).collect::<Outcome<Vec<_>>>()?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened = volume::open_for_service(settings)?;
    let uuid = opened.info().uuid.clone();
    let mut generator = randomness::generator()?;
    let signer = ticket_key::load_or_make(settings.meta.folder()?, || {
        let mut seed = [0; 32];
        generator.fill_bytes(&mut seed);
        seed
    })?;
    let signer = Arc::new(signer);
    let tickets = TicketSigner::new(&uuid, signer.clone(), clock.clone());
    let delegator = Delegator::new(&uuid, signer, clock.clone());
    let own = delegator.public().clone();
    let lease_time = Duration::from_millis(settings.service.lease_time_ms);
    let options = ServiceOptions {
        lease_time,
        grace: lease_time,
        ticket_key: own.as_bytes().to_vec(),
        delegator: Some(Arc::new(delegator)),
        tickets: Some(Arc::new(move |ns, session| tickets.ticket(ns, session))),
        ..ServiceOptions::default()
    };
    // Ids of tokens too: not to be guessed.
    let random = Box::new(move || generator.next_u64());
    let service = Service::start(opened.clone(), clock.clone(), random, options)?;
    let revoked = service.clone();
    let verifier = Verifier::new(&uuid, keys, clock.clone(), Arc::new(move |id| revoked.is_revoked(id)))?
        .delegating(own);

    start_backups(settings, &opened, &clock, &stop);
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(listener) = metrics_listener {
        metrics::serve(&mut tasks, listener, service.clone(), &stop);
    }
    let serving = ServeOptions {
        listeners: vec![listener],
        tls: tls.map(|identity| TlsPem { certificate: identity.cert, key: identity.key }),
        limits: ServeLimits::default(),
        clock: clock.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    tracing::info!(
        volume = uuid,
        tls = settings.service.tls.is_some(),
        "serving the metadata in {} at {address}",
        settings.meta
    );
    starter.ready();
    let served = server::serve(
        service.clone(),
        serving,
        Arc::new(Tokens::new(verifier)),
        stop.begin.clone().cancelled_owned(),
    )
    .await;
    starter.stopping();
    stop.begin.cancel();
    tasks.shutdown().await;
    let closed = blocking(move || Ok(opened.shutdown()?)).await;
    match (&served, &closed) {
        (Ok(()), Ok(())) => tracing::info!("stopped"),
        _ => tracing::error!("stopped, not cleanly; what was acknowledged is in the metadata"),
    }
    served.map_err(Failure::from).and(closed)
}

/// The service itself needs no store: without one its metadata is served, and not saved.
fn start_backups(settings: &Settings, volume: &Arc<Volume>, clock: &Arc<dyn Clock>, stop: &Stop) {
    if settings.backup.interval_ms == 0 {
        return;
    }
    match volume::store(&volume.info().store_url, settings, clock.clone(), &mut Registry::default()) {
        Ok(store) => {
            node::backups::start(volume.clone(), store, clock.clone(), settings.backup, &stop.begin);
        }
        Err(failure) => tracing::warn!(
            "the metadata is not saved in the store: {failure}; give the service the store's keys, or set \
             meta_backup_interval_ms to 0"
        ),
    }
}

async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|e| Failure::io(format!("cannot listen at {address} (setting listen)"), &e))
}
