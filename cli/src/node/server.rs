//! The node's listening socket: bounded connections, each with the kernel's word on who is there.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use granary_core::Kind;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::peer::Peer;
use super::{Node, api};
use crate::exit::{Failure, Outcome, plain};

/// Connections at once, of everybody. Further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// Connections at once of one user who is not root. Further ones are closed, so that nobody can shut others out.
const CONNECTIONS_OF_USER_MAX: usize = 16;

/// How long a request in progress may take to end, once the node stops.
const END_WAIT: Duration = Duration::from_secs(2);

/// The tasks that serve.
#[derive(Debug)]
pub struct Servers {
    tasks: JoinSet<io::Result<()>>,
}

/// Serves until the node is told to stop.
pub fn start(node: &Arc<Node>, gate: Gate, metrics: Option<TcpListener>) -> Servers {
    let mut tasks = JoinSet::new();
    let app = api::router(node.clone()).into_make_service_with_connect_info::<Peer>();
    let stop = node.stop.begin.clone();
    tasks.spawn(async move { axum::serve(gate, app).with_graceful_shutdown(stop.cancelled_owned()).await });
    if let Some(listener) = metrics {
        let app = api::metrics_router(node.clone());
        let stop = node.stop.begin.clone();
        tasks.spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(stop.cancelled_owned()).await
        });
    }
    Servers { tasks }
}

impl Servers {
    /// Called once the node is told to stop: no new connections, and a bounded wait for those in progress.
    pub async fn end(mut self) {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Ok(Err(e)) = ended {
                    tracing::warn!("a socket of the node failed: {}", plain(&e));
                }
            }
        };
        if tokio::time::timeout(END_WAIT, all).await.is_err() {
            tracing::warn!("a request was still in progress when the node stopped");
        }
        self.tasks.shutdown().await;
    }
}

/// Binds the socket, replacing one that a dead node left. `Busy` when a node answers there.
pub fn bind(path: &Path) -> Outcome<Gate> {
    let cannot = |e: &io::Error| Failure::io(format!("cannot listen at the socket {}", path.display()), e);
    if let Some(dir) = path.parent()
        && !dir.exists()
    {
        std::fs::create_dir_all(dir).map_err(|e| cannot(&e))?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).map_err(|e| cannot(&e))?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(Failure::usage(format!(
                "cannot listen at {}: something that is no socket is there; remove it, or give another --socket",
                path.display()
            )));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(Failure::of_kind(
                    Kind::Busy,
                    format!(
                        "another granary node listens at {}; stop it with `granary node stop`, or give this one another \
                         --socket",
                        path.display()
                    ),
                ));
            }
            Err(_) => std::fs::remove_file(path).map_err(|e| cannot(&e))?,
        },
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| cannot(&e))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(|e| cannot(&e))?;
    Ok(Gate {
        listener,
        path: path.to_owned(),
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        counts: Arc::default(),
    })
}

/// The listener. Dropping it removes the socket.
#[derive(Debug)]
pub struct Gate {
    listener: UnixListener,
    path: PathBuf,
    room: Arc<Semaphore>,
    counts: Counts,
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Fails when somebody removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Connections of each user that is not root. The lock guards the map for a look-up, never across I/O.
type Counts = Arc<Mutex<HashMap<u32, usize>>>;

fn lock(counts: &Counts) -> MutexGuard<'_, HashMap<u32, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One user's place among the connections; given back when dropped.
#[derive(Debug)]
struct Place {
    _room: OwnedSemaphorePermit,
    counted: Option<(u32, Counts)>,
}

impl Place {
    fn take(room: OwnedSemaphorePermit, peer: &Peer, counts: &Counts) -> Option<Place> {
        if peer.administrator {
            return Some(Place { _room: room, counted: None });
        }
        let mut all = lock(counts);
        let count = all.entry(peer.uid).or_default();
        if *count >= CONNECTIONS_OF_USER_MAX {
            return None;
        }
        *count += 1;
        Some(Place { _room: room, counted: Some((peer.uid, counts.clone())) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((uid, counts)) = &self.counted else { return };
        let mut all = lock(counts);
        if let Some(count) = all.get_mut(uid) {
            *count -= 1;
            if *count == 0 {
                all.remove(uid);
            }
        }
    }
}

impl Listener for Gate {
    type Io = Connection;
    type Addr = Peer;

    async fn accept(&mut self) -> (Connection, Peer) {
        loop {
            let Ok(room) = self.room.clone().acquire_owned().await else {
                unreachable!("the gate's semaphore is never closed")
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(e) => {
                    // Mostly: no descriptors left. Those in use are given back in time.
                    tracing::warn!("cannot accept a connection at {}: {}", self.path.display(), plain(&e));
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // A peer that is gone already has no credentials.
            let Ok(peer) = Peer::of(&stream) else { continue };
            match Place::take(room, &peer, &self.counts) {
                Some(place) => return (Connection { stream, _place: place }, peer),
                None => tracing::warn!(
                    uid = peer.uid,
                    "a user has {CONNECTIONS_OF_USER_MAX} connections; one more refused"
                ),
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Ok(Peer::new(uid.as_raw(), gid.as_raw(), Vec::new()))
    }
}

/// A connection and its place.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    _place: Place,
}

impl Connection {
    /// For those who speak something else than HTTP over it.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_listener_and_stale_sockets_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/node.sock");
        let mut gate = bind(&path).unwrap();
        assert!(bind(&path).unwrap_err().is(Kind::Busy));
        let (_client, (_connection, peer)) = (UnixStream::connect(&path).await.unwrap(), gate.accept().await);
        assert!(peer.administrator);
        drop(gate);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // as after kill -9
        bind(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind(&path).unwrap_err().message.contains("no socket"));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_user_cannot_take_every_place() {
        let (counts, room) = (Counts::default(), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let take = |uid, administrator| {
            let peer = Peer { administrator, ..Peer::new(uid, uid, vec![]) };
            Place::take(room.clone().try_acquire_owned().unwrap(), &peer, &counts)
        };
        let mut places: Vec<_> = (0..CONNECTIONS_OF_USER_MAX).map(|_| take(1000, false).unwrap()).collect();
        assert!(take(1000, false).is_none());
        assert!(take(1001, false).is_some() && take(0, true).is_some());
        places.pop();
        assert!(take(1000, false).is_some());
        drop(places);
        assert!(lock(&counts).is_empty());
    }
}
