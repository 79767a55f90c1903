//! `granary meta`: the metadata service, and questions to one; metadata saved and brought back.

mod saved;

use granary_meta::call::SessionInfo;
use granary_meta::token::inspect;
use serde_json::json;

use crate::args::{MetaArgs, MetaCommand, PlaceFlags, ServiceFlags};
use crate::client::block_on;
use crate::exit::{Failure, Outcome};
use crate::node::clients::Clients;
use crate::node::notify::Starter;
use crate::node::source::Source;
use crate::settings::Settings;
use crate::units::show_period_ms;
use crate::{log, service};

pub fn run(args: MetaArgs) -> Outcome<()> {
    match args.command {
        MetaCommand::Serve { insecure, notify, flags } => serve(insecure, notify, &flags),
        MetaCommand::Backup { file, flags } => saved::backup(&file, &flags),
        MetaCommand::Restore { file, from_store, at, flags } => {
            saved::restore(file.as_deref(), from_store.as_deref(), at.as_deref(), &flags)
        }
        MetaCommand::Status { json, flags } => status(json, &flags),
        MetaCommand::Sessions { json, flags } => sessions(json, &flags),
    }
}

fn serve(insecure: bool, notify: bool, flags: &ServiceFlags) -> Outcome<()> {
    let starter = Starter::new(notify);
    let outcome = flags.sources().resolve().and_then(|settings| service::run(settings, insecure, &starter));
    if let Err(failure) = &outcome {
        starter.failed(failure);
    }
    outcome
}

/// A conversation with the service of these settings.
pub fn ask<T>(flags: &PlaceFlags, work: impl AsyncFnOnce(&Settings, &Clients) -> Outcome<T>) -> Outcome<T> {
    let settings = flags.sources().resolve()?;
    if settings.meta.service().is_none() {
        return Err(Failure::usage(format!(
            "which metadata service is meant? {} is a folder; give --meta https://HOST:PORT",
            settings.meta
        )));
    }
    log::start_quiet();
    block_on(async {
        let source = Source::for_command(&settings).await?;
        let outcome = match &source {
            Source::Service(clients) => work(&settings, clients).await,
            Source::Local(_) => Err(Failure::usage("a folder is no service")),
        };
        source.shutdown().await?;
        outcome
    })
}

fn status(as_json: bool, flags: &PlaceFlags) -> Outcome<()> {
    let (link, volume, sessions) = ask(flags, async |_, clients| {
        let link = clients.own().status();
        let volume = clients.own().client.volume()?;
        // An administrator hears of all, others of their own.
        let sessions = clients.own().client.sessions().await?;
        Ok((link, volume, sessions))
    })?;
    if as_json {
        let all: Vec<_> = sessions.iter().map(as_value).collect();
        let value = json!({"url": link.url, "volume": volume.uuid, "store": volume.store_url,
            "user": link.user, "rights": link.rights, "sessions": all});
        return super::print_json(&value);
    }
    // This command is one of them.
    let others = sessions.len().saturating_sub(1);
    let (leases, opens, locks) = sessions
        .iter()
        .fold((0, 0, 0), |(leases, opens, locks), s| (leases + s.leases, opens + s.opens, locks + s.locks));
    let yours = if link.rights == "admin" { "" } else { "yours: " };
    super::print(&format!(
        "service  {} answers, and knows you as {} ({})\nvolume   {}\nstore    {}\n\
         sessions {yours}{others}, with {leases} leases, {opens} open files, {locks} locks; `granary meta sessions` lists them\n",
        link.url, link.user, link.rights, volume.uuid, volume.store_url
    ))
}

fn sessions(as_json: bool, flags: &PlaceFlags) -> Outcome<()> {
    let all = ask(flags, async |_, clients| Ok(clients.own().client.sessions().await?))?;
    if as_json {
        return super::print_json(&all.iter().map(as_value).collect::<Vec<_>>());
    }
    super::print(&table(&all))
}

fn as_value(session: &SessionInfo) -> serde_json::Value {
    json!({
        "session": session.session.to_string(),
        "node": session.node.to_string(),
        "name": session.name,
        "user": session.user,
        "silent_ms": session.silent.as_millis() as u64,
        "leases": session.leases,
        "opens": session.opens,
        "locks": session.locks,
    })
}

fn table(all: &[SessionInfo]) -> String {
    let mut rows =
        vec![["SESSION", "HOST", "NODE", "USER", "SILENT", "LEASES", "OPEN", "LOCKS"].map(str::to_owned)];
    rows.extend(all.iter().map(|s| {
        [
            s.session.to_string(),
            // A node says its own name: only what cannot confuse a terminal is shown.
            s.name.chars().filter(char::is_ascii_graphic).collect(),
            s.node.to_string(),
            s.user.clone(),
            show_period_ms(s.silent.as_millis() as u64),
            s.leases.to_string(),
            s.opens.to_string(),
            s.locks.to_string(),
        ]
    }));
    super::columns(&rows)
}

/// Ends a token before its time.
pub fn revoke(token: &str, flags: &PlaceFlags) -> Outcome<()> {
    let said = inspect(token)?;
    ask(flags, async |_, clients| {
        clients
            .own()
            .client
            .revoke_token(&said.id)
            .await
            .map_err(|e| Failure::from(e).context("cannot revoke it"))
    })?;
    super::print(&format!("token {} of {} is revoked: its sessions have ended\n", said.id, said.user))
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::{NodeId, SessionId};

    #[test]
    fn the_table_shows_no_control_characters() {
        let session = SessionInfo {
            session: SessionId(1),
            node: NodeId(2),
            name: "ho\u{1b}[2Jst".into(),
            user: "alice".into(),
            silent: std::time::Duration::from_millis(1500),
            leases: 3,
            opens: 4,
            locks: 5,
        };
        let text = table(&[session]);
        assert!(text.lines().count() == 2 && !text.contains('\u{1b}') && text.contains("ho[2Jst"), "{text}");
    }
}
