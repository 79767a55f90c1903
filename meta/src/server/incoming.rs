//! Connections that come in, counted, and told apart by address.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;
use granary_core::{Error, Kind, Result};
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tonic::transport::server::Connected;

use super::gate::{Gate, Pass};

pub(super) struct Incoming {
    listeners: Vec<TcpListener>,
    gate: Arc<Gate>,
    /// Whose turn it is.
    next: usize,
}

impl Incoming {
    pub fn new(listeners: Vec<TcpListener>, gate: Arc<Gate>) -> Result<Incoming> {
        if listeners.is_empty() {
            return Err(Error::new(Kind::Invalid, "the metadata service has no address to listen on"));
        }
        Ok(Incoming { listeners, gate, next: 0 })
    }
}

impl Stream for Incoming {
    type Item = io::Result<Guest>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Guest>>> {
        for _ in 0..self.listeners.len() {
            let listener = self.next;
            self.next = (self.next + 1) % self.listeners.len();
            while let Poll::Ready(accepted) = self.listeners[listener].poll_accept(cx) {
                let (stream, address) = match accepted {
                    Ok(accepted) => accepted,
                    // tonic goes on after those that concern one connection, and waits after those of the process.
                    Err(e) => return Poll::Ready(Some(Err(e))),
                };
                // Who is one too many is closed by this.
                let Some(pass) = self.gate.enter(address.ip()) else { continue };
                // An answer must not wait for the acknowledgement of the one before it.
                if let Err(e) = stream.set_nodelay(true) {
                    tracing::debug!("a connection of {address} ended before it began: {e}");
                    continue;
                }
                return Poll::Ready(Some(Ok(Guest { stream, address, _pass: pass })));
            }
        }
        Poll::Pending
    }
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Guest {
    stream: TcpStream,
    address: SocketAddr,
    _pass: Pass,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

impl Connected for Guest {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        Peer(self.address)
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
