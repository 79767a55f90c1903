//! Events at a pod: what `kubectl describe pod` shows of its volumes.

use granary_core::calendar::civil;
use granary_core::{Error, Kind, Result, Timestamp};
use reqwest::Method;
use serde_json::json;

use super::{Call, Kube, segment};
use crate::DRIVER_NAME;
use crate::pod::Pod;

const CALL: Call<'static> = Call { what: "to keep an event", right: "create events of events.k8s.io" };
/// Of an event's note, as Kubernetes bounds it.
const NOTE_BYTES_MAX: usize = 1024;
/// Of who reports it.
const INSTANCE_BYTES_MAX: usize = 128;

/// Something that happened to a volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// In CamelCase.
    pub reason: &'static str,
    pub warning: bool,
    pub note: String,
}

impl Kube {
    /// Keeps an event at `pod`.
    pub async fn tell(&self, pod: &Pod, event: &Event, node: &str, now: Timestamp) -> Result<()> {
        let (namespace, name) = (segment(&pod.namespace)?, segment(&pod.name)?);
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let id = u128::from(now.unix_ms()) * 1_000_000 + u128::from(now.nanos % 1_000_000);
        let event = json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": { "name": format!("{name:.230}.{id:x}"), "namespace": namespace },
            "eventTime": micro_time(now),
            "reportingController": DRIVER_NAME,
            "reportingInstance": cut(node, INSTANCE_BYTES_MAX),
            "action": "CheckVolume",
            "reason": event.reason,
            "type": if event.warning { "Warning" } else { "Normal" },
            "note": cut(&event.note, NOTE_BYTES_MAX),
            "regarding": { "apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name, "uid": pod.uid },
        });
        let body = serde_json::to_vec(&event)
            .map_err(|e| Error::new(Kind::Bug, "an event cannot be written").with_source(e))?;
        self.send(CALL, Method::POST, &path, Some(("application/json", body))).await?.good(CALL).map(drop)
    }
}

/// As Kubernetes writes a time with microseconds.
fn micro_time(now: Timestamp) -> String {
    let (days, second) = (now.secs.div_euclid(86_400), now.secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        now.nanos / 1000
    )
}

fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_notes_are_as_kubernetes_takes_them() {
        let time = Timestamp { secs: 1_782_864_000, nanos: 123_456_789 };
        assert_eq!(micro_time(time), "2026-07-01T00:00:00.123456Z");
        assert_eq!(cut("größe", 3), "gr");
        assert_eq!(cut("abc", 10), "abc");
    }
}
