//! Over real sockets, with a clock that only moves when everything waits for it: no other timer runs, so what passes is what the
//! proxy added.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, HOST};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;

/// A store that gives back what it was sent, with the request's line, host and connection in headers of the answer.
async fn store() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(move |request| answer(request, connection));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

async fn answer(request: Request<Incoming>, connection: u32) -> hyper::Result<Response<Full<Bytes>>> {
    let line = format!("{} {}", request.method(), request.uri());
    let host = request.headers()[HOST].clone();
    let close = request.headers().contains_key("x-close");
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert("x-line", line.parse().unwrap());
    headers.insert("x-host", host);
    headers.insert("x-connection", connection.into());
    if close {
        headers.insert("connection", "close".parse().unwrap());
    }
    Ok(response)
}

struct Fixture {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    counts: Arc<Counts>,
    _stop: tokio_util::sync::DropGuard,
}

/// A proxy before the store, and a client's connection to it.
async fn fixture(delays: Delays, seed: u64) -> Fixture {
    let upstream = store().await.to_string();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts = Arc::new(Counts::default());
    let schedule = Arc::new(Schedule::new(delays, seed));
    let serving = serve::Serving { upstream: Arc::from(upstream), schedule, counts: counts.clone() };
    let stop = CancellationToken::new();
    tokio::spawn(serve::accept(listener, serving, stop.clone()));
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    Fixture { sender, counts, _stop: stop.drop_guard() }
}

impl Fixture {
    async fn send(&mut self, method: &str, path: &str, body: Vec<u8>) -> Response<Bytes> {
        let request = Request::builder().method(method).uri(path).header(HOST, "bucket.example:7480");
        self.send_request(request.body(Full::from(body)).unwrap()).await
    }

    async fn send_request(&mut self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        self.sender.ready().await.unwrap();
        let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }
}

fn header(response: &Response<Bytes>, name: &str) -> String {
    response.headers()[name].to_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_connection_waits_and_nothing_else_does() {
    let mut proxy = fixture(Delays::new(30, 0.0, 2000).unwrap(), 1).await;
    for _ in 0..3 {
        let before = Instant::now();
        proxy.send("GET", "/a", vec![]).await;
        assert_eq!(before.elapsed(), Duration::from_millis(30));
    }
}

#[tokio::test(start_paused = true)]
async fn stalls_are_those_that_the_seed_says() {
    let delays = Delays::new(5, 20.0, 2000).unwrap();
    let schedule = Schedule::new(delays, 3);
    let mut proxy = fixture(delays, 3).await;
    for number in 0..40 {
        let before = Instant::now();
        proxy.send("GET", "/a", vec![]).await;
        assert_eq!(before.elapsed(), schedule.of(number), "request {number}");
    }
    let stalled = (0..40).filter(|&n| schedule.stalls(n)).count() as u64;
    assert!(stalled > 0);
    assert_eq!(proxy.counts.totals().stalled, stalled);
}

#[tokio::test]
async fn requests_and_answers_are_passed_on_as_they_are_and_counted() {
    let mut proxy = fixture(Delays::default(), 1).await;
    let body: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let put = proxy.send("PUT", "/bucket/a%20b?partNumber=1&x=%2F", body.clone()).await;
    assert_eq!(put.status(), StatusCode::OK);
    assert_eq!(put.body(), &body);
    assert_eq!(header(&put, "x-line"), "PUT /bucket/a%20b?partNumber=1&x=%2F");
    assert_eq!(header(&put, "x-host"), "bucket.example:7480");
    for _ in 0..2 {
        let get = proxy.send("GET", "/bucket/c", vec![]).await;
        assert_eq!(header(&get, "x-connection"), "0", "one connection to the store for one of the client");
    }
    let by_method = proxy.counts.by_method();
    let (sent, n) = (body.len() as u64, by_method["PUT"]);
    assert_eq!((n.requests, n.sent_bytes, n.received_bytes), (1, sent, sent));
    assert_eq!(by_method["GET"], Totals { requests: 2, ..Totals::default() });
}

#[tokio::test]
async fn the_length_of_an_object_survives_head() {
    let mut proxy = fixture(Delays::default(), 1).await;
    let head = proxy.send("HEAD", "/bucket/a", vec![7; 1234]).await;
    assert_eq!(head.headers()[CONTENT_LENGTH], "1234");
    assert!(head.body().is_empty());
}

#[tokio::test]
async fn a_connection_that_the_store_ends_is_made_anew() {
    let mut proxy = fixture(Delays::default(), 1).await;
    let request = Request::builder().uri("/a").header(HOST, "h").header("x-close", "1");
    let last = proxy.send_request(request.body(Full::default()).unwrap()).await;
    assert_eq!(header(&last, "x-connection"), "0");
    // `Connection: close` is passed on, so that the client asks on another connection, as it would without a proxy.
    assert!(proxy.sender.ready().await.is_err());
}

#[test]
fn stores_are_named_by_host_and_port() {
    assert_eq!(upstream_of("http://127.0.0.1:7480").unwrap(), "127.0.0.1:7480");
    assert_eq!(upstream_of("http://store.example/").unwrap(), "store.example:80");
    assert!(upstream_of("https://store.example").is_err());
    assert!(upstream_of("http://store.example/path").is_err());
    assert!(upstream_of("http://").is_err());
}

#[test]
fn a_proxy_of_its_own_runtime_serves_and_ends() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let upstream = runtime.block_on(store());
    let listen = "127.0.0.1:0".parse().unwrap();
    let proxy = Proxy::start(listen, &format!("http://{upstream}"), Delays::default(), 1).unwrap();
    let address = proxy.address;
    assert_eq!(proxy.url(), format!("http://{address}"));
    runtime.block_on(async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().uri("/a").header(HOST, "h").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::OK);
    });
    assert_eq!(proxy.totals().requests, 1);
    drop(proxy);
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}
