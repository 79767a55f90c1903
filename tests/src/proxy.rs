//! The network between a node and the service: TCP through here can be slow, silent, cut, or lose answers to requests that
//! arrived, which are then asked again.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

#[derive(Debug, Default)]
struct State {
    /// Each piece of data arrives this much later.
    delay: Duration,
    /// Nothing passes, but connections stay: a half-open network.
    silent: bool,
    /// Requests pass; the first answer to come cuts its connection instead.
    lose_answer: bool,
    /// New connections are closed at once.
    refuse: bool,
    closed: bool,
    /// Both sides of every live connection.
    connections: Vec<(TcpStream, TcpStream)>,
    /// Connections that were cut because an answer came.
    lost_answers: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the proxy's state")
    }
}

/// Listens on a loopback port until dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn new(upstream: &str) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let port = listener.local_addr().expect("its address").port();
        let shared = Arc::new(Shared::default());
        let (upstream, for_accept) = (upstream.to_owned(), shared.clone());
        std::thread::spawn(move || accept(&listener, &upstream, &for_accept));
        Proxy { port, shared }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }

    pub fn delay(&self, delay: Duration) {
        self.change(|s| s.delay = delay);
    }

    /// From now on nothing passes, and nobody is told.
    pub fn silence(&self) {
        self.change(|s| s.silent = true);
    }

    /// Ends every connection; what is under way is lost.
    pub fn cut(&self) {
        self.change(cut_all);
    }

    /// Cuts, and refuses new connections until `mend`.
    pub fn unplug(&self) {
        self.change(|s| {
            s.refuse = true;
            cut_all(s);
        });
    }

    /// Requests reach the service, but the next answer is lost, and its connection with it: what was asked will be asked again.
    pub fn lose_answer(&self) {
        self.change(|s| s.lose_answer = true);
    }

    /// Answers lost so far.
    pub fn lost_answers(&self) -> u64 {
        self.shared.lock().lost_answers
    }

    /// All passes again; connections that were silent are cut, as a network's would be.
    pub fn mend(&self) {
        self.change(|s| {
            if s.silent {
                cut_all(s);
            }
            *s = State {
                connections: std::mem::take(&mut s.connections),
                lost_answers: s.lost_answers,
                ..State::default()
            };
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.change(|s| {
            s.closed = true;
            s.silent = false;
            cut_all(s);
        });
        // Wakes `accept`, which sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn cut_all(state: &mut State) {
    for (a, b) in state.connections.drain(..) {
        // Gone already is as good.
        let _ = a.shutdown(Shutdown::Both);
        let _ = b.shutdown(Shutdown::Both);
    }
}

fn accept(listener: &TcpListener, upstream: &str, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        {
            let state = shared.lock();
            if state.closed {
                return;
            }
            if state.refuse {
                continue;
            }
        }
        // No service: the node sees its connection closed.
        let Ok(server) = TcpStream::connect(upstream) else { continue };
        for stream in [&client, &server] {
            let _ = stream.set_nodelay(true);
        }
        let copy = |s: &TcpStream| s.try_clone().expect("a descriptor");
        shared.lock().connections.push((copy(&client), copy(&server)));
        let (from, to, asking) = (copy(&client), copy(&server), shared.clone());
        std::thread::spawn(move || pump(from, to, &asking, false));
        let answering = shared.clone();
        std::thread::spawn(move || pump(server, client, &answering, true));
    }
}

/// Moves bytes one way until either side ends or is cut.
fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared, answers: bool) {
    let mut buf = vec![0; 64 << 10];
    loop {
        let n = match from.read(&mut buf) {
            Ok(0) | Err(_) => break,
            Ok(n) => n,
        };
        let delay = {
            let state = shared.lock();
            let mut state = shared.changed.wait_while(state, |s| s.silent).expect("the proxy's state");
            if answers && state.lose_answer {
                state.lose_answer = false;
                state.lost_answers += 1;
                break;
            }
            state.delay
        };
        if !delay.is_zero() {
            std::thread::sleep(delay); // the fault itself
        }
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::until;

    /// A server that answers each byte with itself.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> Option<u8> {
        stream.write_all(&[byte]).ok()?;
        let mut answer = [0];
        stream.read_exact(&mut answer).ok()?;
        Some(answer[0])
    }

    #[test]
    fn it_passes_loses_cuts_and_is_silent_as_told() {
        let proxy = Proxy::new(&echo());
        let connect = || TcpStream::connect(("127.0.0.1", proxy.port)).unwrap();
        let mut stream = connect();
        assert_eq!(ask(&mut stream, 1), Some(1));
        proxy.delay(Duration::from_millis(1));
        assert_eq!(ask(&mut stream, 2), Some(2));

        proxy.lose_answer();
        assert_eq!(ask(&mut stream, 3), None);
        assert_eq!(proxy.lost_answers(), 1);
        let mut stream = connect();
        assert_eq!(ask(&mut stream, 4), Some(4));

        proxy.unplug();
        assert_eq!(ask(&mut stream, 5), None);
        assert_eq!(ask(&mut connect(), 6), None);
        proxy.mend();
        let mut stream = connect();
        assert_eq!(ask(&mut stream, 7), Some(7));

        proxy.silence();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(ask(&mut stream, 8), None);
        stream.set_read_timeout(None).unwrap();
        let cut = std::thread::spawn(move || ask(&mut stream, 9));
        proxy.mend();
        assert_eq!(cut.join().unwrap(), None);
        until("it passes again", || ask(&mut connect(), 10) == Some(10));
    }
}
