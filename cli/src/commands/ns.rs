//! `granary ns`: through the node when one runs, by the token that is given or else its own, otherwise directly on the metadata folder
//! or through the service.

use std::path::Path;

use granary_core::{Kind, NamespaceName};
use granary_meta::{Durability, NamespaceChange, NamespaceInfo, PackedSource, PolicyChange, check_trash_ms};

use crate::args::{DurabilityArg, NsArgs, NsCommand, NsFields, PlaceFlags, PolicyFields};
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use crate::node::source::Source;
use crate::settings::Settings;
use crate::token_file::{self, Secret};
use crate::units::{parse_bytes, parse_period_ms, show_bytes, show_wait};
use crate::wire::{ChangeRequest, CreateRequest, ListRequest, RemoveRequest};
use crate::{log, namespaces, packed, policies, removal, users};

pub fn run(args: &NsArgs) -> Outcome<()> {
    match &args.command {
        NsCommand::Create { name, what, packed, version, flags } => {
            let packed = packed.as_deref().map(|place| packed::source(place, *version)).transpose()?;
            create(name, what, packed, flags)
        }
        NsCommand::List { json, flags } => list(*json, flags),
        NsCommand::Show { name, json, flags } => show_one(name, *json, flags),
        NsCommand::Set { name, what, policy, flags } => set(name, what, policy, flags),
        NsCommand::Remove { name, force, flags } => remove(name, *force, flags),
    }
}

/// The node, when one runs at this socket.
fn node(settings: &Settings) -> Outcome<Option<Client>> {
    let client = Client::new(&settings.socket);
    Ok(block_on(client.is_there())?.then_some(client))
}

/// The token that is given on the command line. What variables and settings name is the node's own.
fn token(flags: &PlaceFlags) -> Outcome<Option<Secret>> {
    let given = flags.given.iter().rev().find(|(name, _)| name == "token_file");
    given.map(|(_, path)| token_file::read(Path::new(path))).transpose()
}

/// The metadata itself, while no node has it: of the folder, or through the service.
fn with_source<T>(settings: &Settings, work: impl AsyncFnOnce(&Source) -> Outcome<T>) -> Outcome<T> {
    log::start_quiet();
    block_on(async {
        let source = Source::for_command(settings).await?;
        let outcome = work(&source).await;
        source.shutdown().await?;
        outcome
    })
}

fn create(name: &str, what: &NsFields, packed: Option<PackedSource>, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let name: NamespaceName = name.parse()?;
    let change = fields(what)?;
    let request = CreateRequest {
        uid: change.uid,
        gid: change.gid,
        mode: change.mode,
        bytes_max: change.bytes_max.unwrap_or(0),
        inodes_max: change.inodes_max.unwrap_or(0),
        durability: change.durability.unwrap_or_default(),
        trash_ms: change.trash_ms,
        packed,
        token: token(flags)?,
        ..namespaces::by_name(&name)
    };
    let info: NamespaceInfo = match node(&settings)? {
        Some(client) => block_on(client.post("/v1/namespaces/create", &request))?,
        None => {
            let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
            let new = namespaces::wanted(&request, uid, gid)?;
            with_source(&settings, async |source| {
                packed::check(new.packed.as_ref(), &settings).await?;
                source.create(None, new).await
            })?
        }
    };
    super::print(&show(&[info]))
}

fn all(settings: &Settings, flags: &PlaceFlags) -> Outcome<Vec<NamespaceInfo>> {
    match node(settings)? {
        Some(client) => {
            let request = ListRequest { token: token(flags)? };
            block_on(client.post("/v1/namespaces/list", &request))
        }
        None => with_source(settings, async |source| source.list(None).await),
    }
}

fn show_one(name: &str, json: bool, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let name: NamespaceName = name.parse()?;
    let info = all(&settings, flags)?.into_iter().find(|info| info.name == name).ok_or_else(|| {
        let text =
            format!("there is no namespace {name}; granary ns list shows them, granary ns create makes one");
        Failure::of_kind(Kind::NotFound, text)
    })?;
    if json {
        let text = serde_json::to_string_pretty(&info)
            .map_err(|e| Failure::failed(format!("cannot print the namespace: {e}")))?;
        return super::print(&(text + "\n"));
    }
    super::print(&details(&info))
}

fn list(json: bool, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let all = all(&settings, flags)?;
    if json {
        let text = serde_json::to_string_pretty(&all)
            .map_err(|e| Failure::failed(format!("cannot print the list: {e}")))?;
        return super::print(&(text + "\n"));
    }
    super::print(&show(&all))
}

fn set(name: &str, what: &NsFields, policy: &PolicyFields, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let name: NamespaceName = name.parse()?;
    let change = NamespaceChange { policy: policies::change(policy)?, ..fields(what)? };
    if change == NamespaceChange::default() {
        return Err(Failure::usage(format!(
            "nothing to change of {name}; give --owner, --group, --mode, --bytes-max, --inodes-max, --durability, --trash, or how its \
             writes reach the store (granary ns set --help)"
        )));
    }
    let info: NamespaceInfo = match node(&settings)? {
        Some(client) => {
            let request = ChangeRequest { namespace: name.to_string(), change, token: token(flags)? };
            block_on(client.post("/v1/namespaces/set", &request))?
        }
        None => {
            namespaces::check_change(&change)?;
            with_source(&settings, async |source| source.set(None, &name, change).await)?
        }
    };
    super::print(&show(&[info]))
}

fn remove(name: &str, force: bool, flags: &PlaceFlags) -> Outcome<()> {
    let settings = flags.sources().resolve()?;
    let name: NamespaceName = name.parse()?;
    if let Some(client) = node(&settings)? {
        let request = RemoveRequest { namespace: name.to_string(), force, token: token(flags)? };
        let _: serde_json::Value = block_on(client.post("/v1/namespaces/remove", &request))?;
        return Ok(());
    }
    with_source(&settings, async |source| removal::remove_offline(&settings, source, &name, force).await)
}

fn fields(what: &NsFields) -> Outcome<NamespaceChange> {
    let number_or = |text: &str, find: &dyn Fn(&str) -> Option<u32>, kind: &str| {
        text.parse::<u32>().ok().or_else(|| find(text)).ok_or_else(|| {
            Failure::usage(format!(
                "there is no {kind} {text:?} here; give a name this system knows, or a number"
            ))
        })
    };
    let owner = what.owner.as_deref().map(|t| number_or(t, &|t| users::by_login(t).map(|u| u.uid), "user"));
    let group = what.group.as_deref().map(|t| number_or(t, &users::group, "group"));
    let mode = what.mode.as_deref().map(|text| {
        u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).map_err(|_| {
            Failure::usage(format!("mode {text:?} is not octal; write it as chmod does, for example 0750"))
        })
    });
    let bytes_max = what.bytes_max.as_deref().map(|text| {
        parse_bytes(text).map_err(|why| Failure::usage(format!("--bytes-max cannot be used: {why}")))
    });
    let trash_ms = what.trash.as_deref().map(|text| {
        let cannot = |why: String| Failure::usage(format!("--trash cannot be used: {why}"));
        let ms = parse_period_ms(text).map_err(cannot)?;
        check_trash_ms(ms).map_err(|e| cannot(e.to_string())).map(|()| ms)
    });
    Ok(NamespaceChange {
        uid: owner.transpose()?,
        gid: group.transpose()?,
        mode: mode.transpose()?,
        bytes_max: bytes_max.transpose()?,
        inodes_max: what.inodes_max,
        durability: what.durability.map(|d| match d {
            DurabilityArg::Local | DurabilityArg::Default => Durability::Local,
            DurabilityArg::Object => Durability::Object,
        }),
        policy: PolicyChange::default(),
        trash_ms: trash_ms.transpose()?,
    })
}

/// A table for people.
fn show(all: &[NamespaceInfo]) -> String {
    let mut rows =
        vec![["NAME", "OWNER", "GROUP", "MODE", "BYTES", "FILES", "FSYNC", "WRITES"].map(str::to_owned)];
    for info in all {
        let of = |used: String, max: String, limited: bool| {
            if limited { format!("{used} of {max}") } else { used }
        };
        let usage = &info.usage;
        rows.push([
            info.name.to_string(),
            info.uid.to_string(),
            info.gid.to_string(),
            format!("{:04o}", info.mode),
            of(show_bytes(usage.bytes), show_bytes(usage.bytes_max), usage.bytes_max > 0),
            of(usage.inodes.to_string(), usage.inodes_max.to_string(), usage.inodes_max > 0),
            fsync(info).to_owned(),
            policies::summary(&info.policy),
        ]);
    }
    super::columns(&rows)
}

fn fsync(info: &NamespaceInfo) -> &'static str {
    match info.durability {
        Durability::Local => "local",
        Durability::Object => "object",
    }
}

/// All settings of one, for people: by the names of the flags that change them.
fn details(info: &NamespaceInfo) -> String {
    let limit = |max: u64, shown: String| if max == 0 { "none".to_owned() } else { shown };
    let usage = &info.usage;
    let mut rows = vec![
        ["namespace".to_owned(), info.name.to_string()],
        ["owner".to_owned(), info.uid.to_string()],
        ["group".to_owned(), info.gid.to_string()],
        ["mode".to_owned(), format!("{:04o}", info.mode)],
        ["holds".to_owned(), format!("{} in {} files and folders", show_bytes(usage.bytes), usage.inodes)],
        ["bytes-max".to_owned(), limit(usage.bytes_max, show_bytes(usage.bytes_max))],
        ["inodes-max".to_owned(), limit(usage.inodes_max, usage.inodes_max.to_string())],
        ["durability".to_owned(), fsync(info).to_owned()],
        [
            "trash".to_owned(),
            if info.trash_ms == 0 { "none".to_owned() } else { show_wait(info.trash_ms / 1_000) },
        ],
        [
            "trash holds".to_owned(),
            format!("{} in {} files and folders", show_bytes(usage.trash_bytes), usage.trash_inodes),
        ],
    ];
    if let Some(source) = &info.packed {
        rows.push(["packed".to_owned(), packed::show(source)]);
    }
    rows.extend(policies::lines(&info.policy).map(|(name, value)| [name.to_owned(), value]));
    super::columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use granary_core::NamespaceId;
    use granary_meta::Usage;

    #[test]
    fn fields_are_checked() {
        let what = NsFields {
            owner: Some("root".into()),
            group: Some("12".into()),
            mode: Some("02770".into()),
            bytes_max: Some("1TiB".into()),
            inodes_max: Some(5),
            durability: Some(DurabilityArg::Object),
            trash: Some("12h".into()),
        };
        let change = fields(&what).unwrap();
        assert_eq!((change.uid, change.gid, change.mode), (Some(0), Some(12), Some(0o2770)));
        assert_eq!((change.bytes_max, change.inodes_max), (Some(1 << 40), Some(5)));
        assert_eq!(change.trash_ms, Some(43_200_000));
        for (what, part) in [
            (
                NsFields { owner: Some("no-such-user-here".into()), ..NsFields::default() },
                "no-such-user-here",
            ),
            (NsFields { mode: Some("rwx".into()), ..NsFields::default() }, "octal"),
            (NsFields { bytes_max: Some("much".into()), ..NsFields::default() }, "--bytes-max"),
            (NsFields { trash: Some("soon".into()), ..NsFields::default() }, "--trash"),
            (NsFields { trash: Some("5ms".into()), ..NsFields::default() }, "from 1000 to"),
        ] {
            let e = fields(&what).unwrap_err();
            assert!(e.exit == 2 && e.message.contains(part), "{e}");
        }
    }

    #[test]
    fn the_table() {
        let info = NamespaceInfo {
            id: NamespaceId(1),
            name: "user/alice".parse().unwrap(),
            uid: 1000,
            gid: 100,
            mode: 0o700,
            durability: Durability::Local,
            policy: granary_meta::NamespacePolicy { uploads_max: Some(9), ..Default::default() },
            trash_ms: granary_meta::TRASH_MS_DEFAULT,
            packed: None,
            usage: Usage {
                bytes: 1 << 30,
                inodes: 3,
                bytes_max: 1 << 40,
                inodes_max: 0,
                trash_bytes: 5 << 20,
                trash_inodes: 2,
            },
        };
        let all = details(&info);
        assert!(
            all.contains("uploads           9\n") && all.contains("dirty-bytes       default\n"),
            "{all}"
        );
        assert!(all.contains("trash             1 d 0 h\n") && all.contains("5.0 MiB in 2 files"), "{all}");
        let text = show(&[info]);
        assert_eq!(text.lines().count(), 2);
        assert!(
            text.contains("user/alice  1000   100    0700  1.0 GiB of 1.0 TiB  3      local  uploads 9"),
            "{text}"
        );
    }
}
