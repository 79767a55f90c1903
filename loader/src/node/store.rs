//! The node as a store that is only read; and what is done while the node is away.
//!
//! | the node | a packed data set that this process's keys reach | anything else |
//! |---|---|---|
//! | answers | its cache | its cache |
//! | is away | the data set's own bucket or folder; the node is tried again each second | waited for, at most [`NODE_WAIT`] |
//! | was never there | an error, at once | an error, at once |

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use granary_core::{Clock, Error, Kind, Result, Timestamp};
use granary_packer::place::{self, Place};
use granary_store::{ObjectMeta, Store};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::link::{Heard, Link, Silence};
use super::next_uses::NextUses;
use super::parts::{self, Came};
use super::wire::{Ask, FILES_MAX, RANGE_BYTES_MAX, Said};
use super::{NODE_WAIT, hello};

/// How often a node that is away is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Before another connection, when one has ended.
const RECONNECT_DELAY: Duration = Duration::from_millis(20);
/// Ranges whose bytes were wrong that are remembered.
const DOUBTS_MAX: usize = 64;

/// What a [`NodeStore`] is made of.
#[derive(Debug)]
pub(crate) struct NodeStoreParts {
    pub socket: PathBuf,
    /// Namespace and folder.
    pub root: String,
    /// How the data set itself is reached while the node is away.
    pub place: place::Options,
    pub clock: Arc<dyn Clock>,
    /// Another process found the data set there: a node that is away is waited for from the beginning.
    pub known: bool,
}

#[derive(Debug)]
pub(crate) struct NodeStore {
    parts: NodeStoreParts,
    /// One connects, and others wait for what comes of it.
    connecting: tokio::sync::Mutex<()>,
    /// Guards the state, for a look.
    state: Mutex<State>,
    next_uses: NextUses,
    counters: Counters,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    /// Why there is none, and when it is tried again.
    away: Option<Away>,
    was_there: bool,
    own: Own,
    /// What was wrong when it came last: it is asked for with a check.
    doubts: Vec<(String, Range<u64>)>,
}

#[derive(Debug)]
struct Away {
    why: Error,
    again_at: Duration,
}

/// Who is asked now.
enum Turn {
    Node(Heard),
    Own(Place),
}

/// The data set's own bucket or folder.
#[derive(Debug, Default)]
enum Own {
    /// The root is no packed data set, or it is not known yet.
    #[default]
    None,
    At(String),
    Open(Place),
    /// This process cannot read it.
    Refused,
}

#[derive(Debug, Default)]
struct Counters {
    lent: Counter,
    copied: Counter,
    own: Counter,
    connections: Counter,
}

impl NodeStore {
    pub fn new(parts: NodeStoreParts, registry: &mut Registry) -> NodeStore {
        let counters = Counters::default();
        for (name, help, counter) in [
            ("lent_bytes", "Bytes read from files of the node's cache", &counters.lent),
            ("copied_bytes", "Bytes that the node could not lend, and sent", &counters.copied),
            ("own_bytes", "Bytes fetched without the node while it was away", &counters.own),
            ("connections", "Connections to the node that were opened", &counters.connections),
        ] {
            registry.register(format!("granary_loader_node_{name}"), help, counter.clone());
        }
        let state = Mutex::new(State { was_there: parts.known, ..State::default() });
        NodeStore { parts, connecting: Default::default(), state, next_uses: NextUses::default(), counters }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of this range were not what they should be: the node looks at what it has before it lends it again.
    pub fn doubt(&self, name: &str, range: Range<u64>) {
        let mut state = self.state();
        if state.doubts.len() == DOUBTS_MAX {
            state.doubts.remove(0);
        }
        state.doubts.push((name.to_owned(), range));
    }

    /// When bytes that will be asked for are wanted again; see [`NextUses::tell`].
    pub fn wanted_again(&self, name: &str, range: &Range<u64>, next: &[u32]) {
        self.next_uses.tell(name, range, next);
    }

    fn is_doubted(&self, name: &str, range: &Range<u64>) -> bool {
        let overlaps = |of: &Range<u64>| of.start < range.end && range.start < of.end;
        self.state().doubts.iter().any(|(doubted, of)| doubted == name && overlaps(of))
    }

    fn live_link(&self) -> Option<Arc<Link>> {
        self.state().link.clone().filter(|link| !link.has_ended())
    }

    /// A connection, opened if there is none and it is time to try. `None`: the node is away.
    ///
    /// Errors: the node is there, and refuses, or was never there.
    async fn link(&self) -> Result<Option<Arc<Link>>> {
        if let Some(link) = self.live_link() {
            return Ok(Some(link));
        }
        let _one = self.connecting.lock().await;
        if let Some(link) = self.live_link() {
            return Ok(Some(link));
        }
        let now = self.parts.clock.monotonic();
        if self.state().away.as_ref().is_some_and(|away| now < away.again_at) {
            return Ok(None);
        }
        let (socket, root) = (self.parts.socket.clone(), self.parts.root.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let opened = hello::open(&socket, &root)?;
            Ok::<_, Error>((opened.source.clone(), Link::new(opened)?))
        });
        let opened = opened
            .await
            .map_err(|_| Error::new(Kind::Interrupted, "the loader ended while it asked the node"))?;
        let mut state = self.state();
        match opened {
            Ok((source, link)) => {
                self.counters.connections.inc();
                let link = Arc::new(link);
                if let (Some(source), Own::None) = (source, &state.own) {
                    state.own = Own::At(source);
                }
                (state.link, state.away, state.was_there) = (Some(link.clone()), None, true);
                Ok(Some(link))
            }
            // After a restart it may not have mounted the namespace again yet.
            Err(e) if state.was_there && matches!(e.kind(), Kind::Unavailable | Kind::NotFound) => {
                if state.away.is_none() {
                    tracing::warn!("{e}; it is tried again");
                }
                state.away = Some(Away { why: e, again_at: now + RETRY_INTERVAL });
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The answer; `None` while the node is away.
    async fn heard(&self, ask: &Ask) -> Result<Option<Heard>> {
        let Some(link) = self.link().await? else { return Ok(None) };
        match link.ask(ask.clone()).await {
            Ok(heard) => match heard.said {
                Said::Refused { kind, message } => {
                    Err(Error::new(kind, format!("{}: {message}", self.describe())))
                }
                _ => Ok(Some(heard)),
            },
            Err(Silence::Wrong(e)) => Err(e),
            Err(Silence::Gone(e)) => {
                tracing::debug!("{e}");
                Ok(None)
            }
        }
    }

    /// The data set's own place, while the node is away; `None` where there is none that this process can read.
    fn own(&self) -> Option<Place> {
        let mut state = self.state();
        if let Own::At(url) = &state.own {
            let opened = Place::open(url, &self.parts.place, self.parts.clock.clone());
            state.own = match opened {
                Ok(place) => {
                    tracing::warn!("the granary node is away; {url} is read without it");
                    Own::Open(place)
                }
                Err(e) => {
                    tracing::warn!("the granary node is away, and {url} cannot be read without it: {e}");
                    Own::Refused
                }
            };
        }
        match &state.own {
            Own::Open(place) => Some(place.clone()),
            _ => None,
        }
    }

    /// What `own` finds, if this process may read there.
    fn own_found<T>(&self, found: Result<T>) -> Result<Option<T>> {
        match found {
            Err(e) if matches!(e.kind(), Kind::Denied | Kind::NotFound) => {
                tracing::warn!("the granary node is away, and the data set cannot be read without it: {e}");
                self.state().own = Own::Refused;
                Ok(None)
            }
            found => found.map(Some),
        }
    }

    /// The node was away a moment ago: waits before it is asked again. `since`: of this question, when it was so first.
    ///
    /// Errors: `Unavailable` when it has been away for too long.
    async fn wait(&self, since: &mut Option<Duration>) -> Result<()> {
        let now = self.parts.clock.monotonic();
        let since = *since.get_or_insert(now);
        let (again_at, why) = match &self.state().away {
            Some(away) => (away.again_at, away.why.to_string()),
            // The connection ended, and another was not tried yet.
            None => (now + RECONNECT_DELAY, "connections to it end at once".to_owned()),
        };
        if now.saturating_sub(since) >= NODE_WAIT {
            let waited = NODE_WAIT.as_secs();
            return Err(Error::new(
                Kind::Unavailable,
                format!("the granary node is away for {waited} s: {why}"),
            ));
        }
        tokio::time::sleep(again_at.saturating_sub(now)).await;
        Ok(())
    }

    async fn bytes(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        let len = range.end - range.start;
        let mut all = Vec::with_capacity(len as usize);
        let (mut check, mut since) = (self.is_doubted(name, &range), None);
        while (all.len() as u64) < len {
            let from = range.start + all.len() as u64;
            let end = range.end.min(from + RANGE_BYTES_MAX);
            let next = self.next_uses.of(name, &(from..end));
            let ask = Ask::Bytes { name: name.to_owned(), range: from..end, check, next };
            let heard = match self.turn(&ask, &mut since).await? {
                Turn::Node(heard) => heard,
                Turn::Own(own) => {
                    if let Some(rest) = self.own_found(own.get(name, from..range.end).await)? {
                        self.counters.own.inc_by(rest.len() as u64);
                        all.extend_from_slice(&rest);
                    }
                    continue;
                }
            };
            let (before, mut into) = (all.len(), std::mem::take(&mut all));
            let read = tokio::task::spawn_blocking(move || {
                let came = parts::read(heard, &mut into, end - from);
                (into, came)
            });
            let came;
            (all, came) = read.await.map_err(|_| {
                Error::new(Kind::Interrupted, "the loader ended while it read the node's cache")
            })?;
            match came {
                Ok(Came { lent, copied }) => {
                    self.counters.lent.inc_by(lent);
                    self.counters.copied.inc_by(copied);
                }
                // A chunk is cut off or its disk fails: the node finds that out, too, and fetches it again.
                Err(e) if !check => {
                    tracing::warn!("{e}; it is asked for again");
                    all.truncate(before);
                    check = true;
                }
                Err(e) => return Err(e.context(format_args!("cannot read {name} of {}", self.describe()))),
            }
        }
        Ok(all.into())
    }

    /// An answer, or the data set's own place, however long the node is away.
    async fn turn(&self, ask: &Ask, since: &mut Option<Duration>) -> Result<Turn> {
        loop {
            if let Some(heard) = self.heard(ask).await? {
                return Ok(Turn::Node(heard));
            }
            if let Some(own) = self.own() {
                return Ok(Turn::Own(own));
            }
            self.wait(since).await?;
        }
    }
}

/// The files that the node told of.
fn files(heard: Heard) -> Result<Vec<ObjectMeta>> {
    match heard.said {
        Said::Files(files) => Ok(files.into_iter().map(meta).collect()),
        _ => Err(Error::new(Kind::Corrupt, "the node answered something else than what was asked")),
    }
}

fn read_only() -> Error {
    Error::new(
        Kind::ReadOnly,
        "a data set is only read through the node; write it into a mount, or to its bucket",
    )
}

#[async_trait]
impl Store for NodeStore {
    async fn get(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        self.bytes(key, range).await
    }

    async fn put(&self, _key: &str, _parts: Vec<Bytes>) -> Result<()> {
        Err(read_only())
    }

    async fn head(&self, key: &str) -> Result<ObjectMeta> {
        let (ask, mut since) = (Ask::Length { name: key.to_owned() }, None);
        loop {
            match self.turn(&ask, &mut since).await? {
                Turn::Node(heard) => {
                    let absent = || Error::new(Kind::NotFound, format!("there is no {key}"));
                    return files(heard)?.pop().ok_or_else(absent);
                }
                Turn::Own(own) => {
                    if let Some(found) = self.own_found(own.head(key).await)? {
                        return Ok(found);
                    }
                }
            }
        }
    }

    async fn delete(&self, _keys: Vec<String>) -> Result<()> {
        Err(read_only())
    }

    /// Of one folder: `prefix` ends with a slash.
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<ObjectMeta>> {
        let max = max.min(FILES_MAX);
        let ask = Ask::Files {
            folder: prefix.to_owned(),
            after: after.unwrap_or_default().to_owned(),
            max: max as u64,
        };
        let mut since = None;
        loop {
            match self.turn(&ask, &mut since).await? {
                Turn::Node(heard) => return files(heard),
                Turn::Own(own) => {
                    if let Some(found) = self.own_found(own.list(prefix, after, max).await)? {
                        return Ok(found);
                    }
                }
            }
        }
    }

    fn describe(&self) -> String {
        format!("granary://{}", self.parts.root)
    }
}

fn meta(file: super::wire::FileOf) -> ObjectMeta {
    let modified = Timestamp {
        secs: (file.modified_ms / 1000) as i64,
        nanos: (file.modified_ms % 1000) as u32 * 1_000_000,
    };
    ObjectMeta { key: file.name, size: file.bytes, modified }
}
