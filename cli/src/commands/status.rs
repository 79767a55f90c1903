//! `granary status`.

use std::fmt::Write;
use std::path::Path;

use crate::args::StatusArgs;
use crate::client::{Client, block_on};
use crate::exit::{Failure, Outcome};
use granary_core::Kind;
use granary_meta::Durability;

use crate::units::{show_bytes, show_period_ms, show_wait};
use crate::wire::{LinkStatus, MountStatus, OpeningStatus, SpaceStatus, Status, UnopenedStatus};
use crate::{packed, policies};

pub fn run(args: &StatusArgs) -> Outcome<()> {
    let settings = args.flags.sources().resolve()?;
    let status: Status = block_on(async { Client::new(&settings.socket).get("/v1/status").await })?;
    if args.here {
        check_here(status.pid, &settings.socket)?;
    }
    if args.json {
        let text = serde_json::to_string_pretty(&status)
            .map_err(|e| Failure::failed(format!("cannot print the status: {e}")))?;
        return super::print(&(text + "\n"));
    }
    super::print(&show(&status))
}

/// Another container's node, at a socket that both have, is not ours.
fn check_here(pid: u32, socket: &Path) -> Outcome<()> {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt"));
    match (of("self"), of(&pid.to_string())) {
        (Ok(ours), Ok(its)) if ours == its => Ok(()),
        (Err(e), _) => Err(Failure::io("cannot find out which mount namespace this is", &e)),
        _ => Err(Failure::of_kind(
            Kind::Unavailable,
            format!(
                "the node that serves at {} (pid {pid}) is not of this container; the one that is takes its place, or waits for it",
                socket.display()
            ),
        )),
    }
}

/// What brings out what is staged of a namespace whose tokens have ended.
const HAND: &str = "it is kept; `granary token delegate NAMESPACE` with an administrator's token makes one that `granary token hand` gives this \
                    node, and it goes on";

/// For people.
pub fn show(status: &Status) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{name:<8} {value}");
    };
    line(
        "node",
        format!(
            "{}, pid {}, version {}, up {}, {} of memory (at most {} for data in flight)",
            status.node,
            status.pid,
            status.version,
            show_period_ms(status.uptime_ms),
            show_bytes(status.memory_bytes),
            show_bytes(status.memory_in_flight_bytes_max)
        ),
    );
    if status.emptying {
        line(
            "",
            "being emptied (granary node drain): takes no new mounts until it is started again".to_owned(),
        );
    }
    line("volume", format!("{}, metadata in {}", status.volume, status.meta));
    if let Some(error) = &status.meta_error {
        line("", format!("NO CHANGES are taken; it is tried again every second: {error}"));
    }
    for text in status.service.iter().flat_map(link) {
        line("service", text);
    }
    line("store", status.store.clone());
    line(
        "cache",
        format!(
            "{}, {} of {} cached, {} free on the disk",
            status.cache,
            show_bytes(status.read_cache_bytes),
            show_bytes(status.read_cache_bytes_max),
            show_bytes(status.cache_disk_free_bytes)
        ),
    );
    if let Some(trouble) = &status.cache_error {
        line("", format!("DISK: {trouble}"));
    }
    for opening in &status.opening {
        line("opening", show_opening(opening));
    }
    if status.mounts.is_empty() {
        line("mounts", "none".to_owned());
    }
    for mount in &status.mounts {
        let read_only = if mount.read_only { ", read-only" } else { "" };
        let MountStatus { dir, mode, transport, space, kept, .. } = mount;
        let kept = if *kept { ", kept" } else { "" };
        line("mount", format!("{} at {dir}, {mode}{read_only}, over {transport}{kept}", space.namespace));
        for detail in details(&mount.space) {
            line("", detail);
        }
    }
    for warmup in &status.warmups {
        line("warmup", format!("{}: {}", warmup.id, super::warmup::show(warmup)));
    }
    for pin in &status.pinned {
        let error = pin.error.as_ref().map_or(String::new(), |e| format!("; NOT ALL of it: {e}"));
        line("pinned", format!("{}, {}{error}", pin.path, show_bytes(pin.bytes)));
    }
    for space in &status.draining {
        line("draining", format!("{}, not mounted", space.namespace));
        for detail in details(space) {
            line("", detail);
        }
    }
    for UnopenedStatus { dir, bytes, why } in &status.unopened {
        line(
            "unopened",
            format!(
                "{dir} has {} that may not be in the store, and cannot be opened: {why}",
                show_bytes(*bytes)
            ),
        );
        line("", HAND.to_owned());
    }
    out
}

fn show_opening(opening: &OpeningStatus) -> String {
    let OpeningStatus { namespace, url, indexes, indexes_total, entries, entries_total } = opening;
    let how_far = match entries_total {
        0 => format!("{indexes} of {indexes_total} indexes are here"),
        _ => format!("{entries} of {entries_total} files are in order"),
    };
    format!("{namespace}, the packed data set {url}: {how_far}")
}

fn details(space: &SpaceStatus) -> Vec<String> {
    let quota = match space.usage.bytes_max {
        0 => String::new(),
        max => format!(" of {}", show_bytes(max)),
    };
    let mut lines = vec![format!(
        "holds {}{quota} in {} files and folders",
        show_bytes(space.usage.bytes),
        space.usage.inodes
    )];
    if let Some(packed) = &space.packed {
        lines.insert(0, format!("shows the packed data set {}", packed::show(packed)));
        lines.push(cached(space));
        lines.extend(space.service.iter().flat_map(link));
        return lines;
    }
    lines.push(if space.dirty_files == 0 {
        "all of it is in the store".to_owned()
    } else {
        let rate = space.drain_bytes_per_s.map_or(String::new(), |rate| {
            let left = space.left_ms.map(|ms| format!(", {} left", show_period_ms(ms.div_ceil(1000) * 1000)));
            format!("; draining {}/s{}", show_bytes(rate), left.unwrap_or_default())
        });
        format!(
            "{} of {} in {} of {} files not in the store yet, the oldest for {}{rate}",
            show_bytes(space.dirty_bytes),
            show_bytes(space.policy.dirty_bytes_max),
            space.dirty_files,
            space.policy.dirty_files_max,
            show_period_ms(space.oldest_dirty_ms)
        )
    });
    lines.push(cached(space));
    let fsync = match space.durability {
        Durability::Local => "",
        Durability::Object => ", fsync waits for the store",
    };
    lines.push(format!("{}{fsync}", policies::effective(&space.policy)));
    if space.uploaded_objects > 0 {
        lines.push(format!(
            "{} in {} objects stored since the node opened it",
            show_bytes(space.uploaded_bytes),
            space.uploaded_objects
        ));
    }
    lines.extend(space.service.iter().flat_map(link));
    if space.dirty_files > 0 && space.service.as_ref().and_then(|link| link.token).is_some_and(|t| t.refused)
    {
        lines.push(HAND.to_owned());
    }
    if let Some(error) = &space.disk_error {
        lines.push(format!(
            "WRITES FAIL, and it is looked every second whether the disk works again: {error}"
        ));
    }
    if let Some(damage) = &space.damage {
        lines.push(format!("DAMAGED on this node's disk, and cannot be stored: {damage}"));
    }
    if let Some(error) = &space.error {
        let when = match space.retry_in_ms {
            None => String::new(),
            Some(0) => " now".to_owned(),
            Some(ms) => format!(" in {}", show_period_ms(ms.div_ceil(1000) * 1000)),
        };
        lines.push(format!("storing fails, and is tried again{when}: {error}"));
    }
    lines
}

/// Its part of the read cache.
fn cached(space: &SpaceStatus) -> String {
    let here = format!("{} in the read cache", show_bytes(space.cached_bytes));
    match (space.cache_bytes_min, space.cache_bytes_max) {
        (None, None) => here,
        (Some(min), None) => format!("{here}, at least {} stay", show_bytes(min)),
        (None, Some(max)) => format!("{here}, at most {}", show_bytes(max)),
        (Some(min), Some(max)) => {
            format!("{here}, at least {} stay, at most {}", show_bytes(min), show_bytes(max))
        }
    }
}

/// A connection to the metadata service: whether it works, and what to do when it does not.
fn link(link: &LinkStatus) -> Vec<String> {
    let since = show_period_ms(link.since_ms);
    let session = link.session.as_deref().unwrap_or("none yet");
    let left = link
        .token_left_ms
        .map_or(String::new(), |ms| format!(", by a token for {} more", show_wait(ms / 1000)));
    let mut lines = vec![if link.connected {
        format!(
            "connected to {} for {since} as {} ({}{left}), session {session}, {} leases",
            link.url, link.user, link.rights, link.leases
        )
    } else if link.token.is_some_and(|token| token.refused) {
        format!(
            "THE TOKEN HAS ENDED or was revoked, for {since}: whoever gave it (the CSI driver, for a pod) gave no other, so the right \
             was withdrawn, or they do not run. Programs get \"permission denied\" ({} calls wait now); with a new token it goes on",
            link.waiting_calls
        )
    } else {
        format!(
            "NOT CONNECTED to {} for {since}: {}; programs wait for it ({} calls now): see that `granary meta serve` runs there, \
             it connects again by itself",
            link.url,
            link.last_error.as_deref().unwrap_or("no answer"),
            link.waiting_calls
        )
    }];
    if let Some(fenced) = &link.fenced {
        lines.push(format!(
            "FENCED {} ago: {}; files that were being written then give errors: close them and write them again",
            show_period_ms(fenced.ago_ms),
            fenced.why
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{FencedStatus, MountStatus, NamespaceToken, PinStatus};
    use granary_core::limits::Limits;
    use granary_core::policy::WritePolicy;
    use granary_meta::{NamespacePolicy, Usage};

    fn status() -> Status {
        let space = SpaceStatus {
            namespace: "user/alice".to_owned(),
            cached_bytes: 3 << 29,
            cache_bytes_min: Some(1 << 30),
            cache_bytes_max: Some(2 << 30),
            dirty_bytes: 3 << 20,
            dirty_files: 2,
            oldest_dirty_ms: 1500,
            uploaded_bytes: 1 << 30,
            uploaded_objects: 70,
            drain_bytes_per_s: Some(1 << 20),
            left_ms: Some(3000),
            retry_in_ms: Some(4000),
            disk_error: Some("No space left on device".to_owned()),
            damage: Some("segment 0000000000000001 of the stage log was damaged".to_owned()),
            durability: Durability::Object,
            policy: WritePolicy::resolve(&Limits::default(), &NamespacePolicy::default()),
            usage: Usage { bytes: 5 << 30, inodes: 12, bytes_max: 1 << 40, ..Usage::default() },
            error: Some("store does not answer".to_owned()),
            service: Some(LinkStatus {
                url: "https://meta:7411".into(),
                connected: false,
                since_ms: 3_000,
                last_error: Some("connection refused".into()),
                session: Some("00000000000000ab".into()),
                user: "alice".into(),
                rights: "read-write".into(),
                token_left_ms: Some(90_000),
                token: None,
                leases: 4,
                waiting_calls: 2,
                fenced: Some(FencedStatus { why: "not heard of for 10 s".into(), ago_ms: 9_000 }),
            }),
            packed: None,
        };
        Status {
            version: "1".into(),
            pid: 7,
            node: "00000000000000aa".into(),
            uptime_ms: 61_000,
            volume: "v".into(),
            store: "file:///s".into(),
            meta: "/m".into(),
            cache: "/c".into(),
            memory_bytes: 1 << 20,
            memory_in_flight_bytes_max: 256 << 20,
            cache_disk_free_bytes: 1 << 30,
            read_cache_bytes: 0,
            read_cache_bytes_max: 64 << 30,
            cache_error: Some("the disk of /c is nearly full".into()),
            meta_error: Some("cannot write metadata in /m".into()),
            emptying: true,
            warmups: Vec::new(),
            pinned: vec![PinStatus {
                namespace: "user/alice".into(),
                path: "/mnt/alice/train".into(),
                bytes: 3 << 20,
                error: Some("the cache is too small".into()),
            }],
            service: space.service.clone().map(|link| LinkStatus { connected: true, ..link }),
            opening: vec![OpeningStatus {
                namespace: "dataset/images".into(),
                url: "s3://b/images".into(),
                indexes: 3,
                indexes_total: 9,
                ..OpeningStatus::default()
            }],
            mounts: vec![MountStatus {
                dir: "/mnt/alice".into(),
                tree: None,
                options: None,
                mode: "work".into(),
                transport: "uring".into(),
                kept: false,
                read_only: true,
                space: space.clone(),
            }],
            draining: vec![SpaceStatus { namespace: "group/asr".into(), dirty_files: 0, ..space }],
            unopened: vec![UnopenedStatus {
                dir: "/c/stage/00000007".into(),
                bytes: 5 << 20,
                why: "there is no namespace 00000007".into(),
            }],
        }
    }

    #[test]
    fn people_see_what_matters() {
        let text = show(&status());
        for part in [
            "user/alice at /mnt/alice, work, read-only, over uring",
            "5.0 GiB of 1.0 TiB in 12 files and folders",
            "3.0 MiB of 16.0 GiB in 2 of 1000000 files not in the store yet, the oldest for 1 s; draining 1.0 MiB/s, 3 s left",
            "stored after 2 s, large ones after 30 s; at most 4 uploads at once, fsync waits for the store",
            "tried again in 4 s: store does not answer",
            "1.5 GiB in the read cache, at least 1.0 GiB stay, at most 2.0 GiB",
            "being emptied (granary node drain)",
            "DISK: the disk of /c is nearly full",
            "NO CHANGES are taken; it is tried again every second: cannot write metadata in /m",
            "works again: No space left on device",
            "DAMAGED on this node's disk, and cannot be stored: segment 0000000000000001",
            "group/asr, not mounted",
            "up 1 min 1 s, 1.0 MiB of memory (at most 256.0 MiB for data in flight)",
            "NOT CONNECTED to https://meta:7411 for 3 s: connection refused",
            "connected to https://meta:7411 for 3 s as alice (read-write, by a token for 1 min 30 s more), session 00000000000000ab, 4 leases",
            "FENCED 9 s ago: not heard of for 10 s",
            "unopened /c/stage/00000007 has 5.0 MiB that may not be in the store, and cannot be opened: there is no namespace",
            "`granary token delegate NAMESPACE`",
            "opening  dataset/images, the packed data set s3://b/images: 3 of 9 indexes are here",
        ] {
            assert!(text.contains(part), "{part:?} in:\n{text}");
        }
    }

    #[test]
    fn a_packed_data_set_is_told_with_its_version() {
        let mut status = status();
        let packed = granary_meta::PackedSource { url: "s3://b/images".into(), version: Some(3) };
        let space = &mut status.mounts[0].space;
        (space.packed, space.usage.bytes_max) = (Some(packed), 0);
        let text = show(&status);
        assert!(text.contains("shows the packed data set s3://b/images, version 3\n"), "{text}");
        assert!(text.contains("holds 5.0 GiB in 12 files"), "{text}");
    }

    #[test]
    fn a_token_that_ended_is_told_with_the_way_on() {
        let mut status = status();
        (status.service, status.unopened) = (None, vec![]);
        status.draining.clear();
        let link = status.mounts[0].space.service.as_mut().unwrap();
        link.token = Some(NamespaceToken { left_write_ms: 0, refused: true });
        let text = show(&status);
        assert!(
            text.contains("THE TOKEN HAS ENDED or was revoked, for 3 s") && text.contains("token hand"),
            "{text}"
        );
        assert!(!text.contains("NOT CONNECTED"), "{text}");
        status.mounts[0].space.dirty_files = 0;
        assert!(!show(&status).contains("token hand"), "nothing is left here");
    }

    #[test]
    fn programs_read_it_back() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["mounts"][0]["namespace"], "user/alice");
        assert_eq!(serde_json::from_value::<Status>(json).unwrap(), status());
    }
}
