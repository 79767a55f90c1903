//! A TCP proxy that cuts, stalls and drops what goes through it, by order of the test.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    /// Connections of an earlier number end.
    cuts: watch::Sender<u64>,
    /// Connections that are carried.
    carried: watch::Sender<usize>,
    /// What the service answers is swallowed.
    deaf: AtomicBool,
    /// New connections are closed at once.
    closed: AtomicBool,
    /// The next answer is nonsense.
    garbles: AtomicBool,
    /// Bytes of answers that still go through before the connection is cut; negative: all.
    answer_bytes: AtomicI64,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

impl Proxy {
    pub async fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            cuts: watch::channel(0).0,
            carried: watch::channel(0).0,
            deaf: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            garbles: AtomicBool::new(false),
            answer_bytes: AtomicI64::new(-1),
        });
        let accepting = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((inbound, _)) = listener.accept().await {
                let target = *accepting.target.lock().unwrap();
                let shared = accepting.clone();
                if let Some(target) = target {
                    // Counted, and listening for cuts, before it looks: who closes counts on it, or is seen by it.
                    shared.carried.send_modify(|n| *n += 1);
                    let cuts = shared.cuts.subscribe();
                    tokio::spawn(async move {
                        if !shared.closed.load(Ordering::SeqCst) {
                            shared.carry(inbound, target, cuts).await;
                        }
                        shared.carried.send_modify(|n| *n -= 1);
                    });
                }
            }
        });
        Proxy { address, shared, task }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_target(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = Some(target);
    }

    /// All connections end now.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|n| *n += 1);
    }

    /// Until `heal` answers get lost, and then connections do.
    pub fn drop_answers(&self) {
        self.shared.deaf.store(true, Ordering::SeqCst);
    }

    /// Nobody gets through, from its return on.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut();
        self.shared.carried.subscribe().wait_for(|carried| *carried == 0).await.unwrap();
    }

    /// After so many bytes of answers the connection that carries them is cut.
    pub fn cut_after(&self, bytes: i64) {
        self.shared.answer_bytes.store(bytes, Ordering::SeqCst);
    }

    /// The next bytes of an answer arrive as others.
    pub fn garble_once(&self) {
        self.shared.garbles.store(true, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.shared.garbles.store(false, Ordering::SeqCst);
        self.shared.closed.store(false, Ordering::SeqCst);
        self.shared.answer_bytes.store(-1, Ordering::SeqCst);
        if self.shared.deaf.swap(false, Ordering::SeqCst) {
            self.cut();
        }
    }
}

impl Shared {
    async fn carry(&self, inbound: TcpStream, target: SocketAddr, mut cuts: watch::Receiver<u64>) {
        let Ok(outbound) = TcpStream::connect(target).await else { return };
        inbound.set_nodelay(true).unwrap();
        outbound.set_nodelay(true).unwrap();
        let ((mut from, mut back), (mut answers, mut to)) = (inbound.into_split(), outbound.into_split());
        let asks = async move {
            let _ = tokio::io::copy(&mut from, &mut to).await;
        };
        let answering = async {
            let mut buf = vec![0; 16 << 10];
            loop {
                let Ok(n @ 1..) = answers.read(&mut buf).await else { return };
                if self.deaf.load(Ordering::SeqCst) {
                    continue;
                }
                if self.garbles.swap(false, Ordering::SeqCst) {
                    // Frame lengths too: no message of these can be taken for another.
                    buf[..n].iter_mut().for_each(|byte| *byte ^= 0xa5);
                }
                let left = self.answer_bytes.load(Ordering::SeqCst);
                let mut send = n;
                if left >= 0 {
                    let after = self.answer_bytes.fetch_sub(n as i64, Ordering::SeqCst) - n as i64;
                    if after < 0 {
                        send = (n as i64 + after).max(0) as usize;
                    }
                }
                if back.write_all(&buf[..send]).await.is_err() || send < n {
                    return;
                }
            }
        };
        tokio::select! {
            () = asks => {}
            () = answering => {}
            _ = cuts.changed() => {}
        }
    }
}
