//! What the S3 client says when a server refuses, lies, breaks or is not there.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::bucket::Bucket;
use common::http::{End, Reply, Request, Server};
use granary_core::limits::Limits;
use granary_core::{Error, Kind, SystemClock};
use granary_store::{Environment, Options, Store, open, probe, stacked};
use prometheus_client::registry::Registry;

async fn server(answer: impl Fn(Request) -> Reply + Send + Sync + 'static) -> (Server, Arc<dyn Store>) {
    let server = Server::start(answer).await;
    let store = open("s3://a-bucket/vol", &common::options(&server.url())).unwrap();
    (server, store)
}

async fn put(store: &dyn Store) -> Error {
    store.put("k", vec![Bytes::from_static(b"x")]).await.unwrap_err()
}

#[track_caller]
fn assert_says(e: &Error, kind: Kind, words: &[&str]) {
    assert_eq!(e.kind(), kind, "{e}");
    for word in words {
        assert!(e.to_string().contains(word), "{word:?} is not in: {e}");
    }
}

#[tokio::test]
async fn refusals_have_their_kind_and_mend() {
    let cases: [(u16, &str, Kind, &[&str]); 25] = [
        (403, "InvalidAccessKeyId", Kind::Denied, &["AWS_ACCESS_KEY_ID", "a-bucket/vol at http://127.0.0.1"]),
        (403, "SignatureDoesNotMatch", Kind::Denied, &["AWS_SECRET_ACCESS_KEY"]),
        (400, "ExpiredToken", Kind::Denied, &["AWS_SESSION_TOKEN"]),
        (403, "AccessDenied", Kind::Denied, &["may not write", "s3:PutObject", "a-bucket"]),
        (401, "", Kind::Denied, &["may not write"]),
        (
            403,
            "RequestTimeTooSkewed",
            Kind::Denied,
            &["clock is wrong", "the server's says Sun, 01 Nov", "NTP"],
        ),
        (404, "NoSuchBucket", Kind::NotFound, &["bucket a-bucket does not exist", "aws s3 mb s3://a-bucket"]),
        (404, "", Kind::NotFound, &["no bucket a-bucket", "AWS_ENDPOINT_URL"]),
        (400, "RequestExpired", Kind::Denied, &["clock is wrong"]),
        (400, "IncompleteBody", Kind::Unavailable, &["bytes were lost", "check the network"]),
        (503, "ServiceUnavailable", Kind::Unavailable, &["granary sends less until it recovers"]),
        (403, "QuotaExceeded", Kind::NoSpace, &["over its quota", "ask for more, or delete"]),
        (507, "InsufficientStorage", Kind::NoSpace, &["full"]),
        (405, "MethodNotAllowed", Kind::ReadOnly, &["read-only"]),
        (503, "SlowDown", Kind::Unavailable, &["503 SlowDown", "overloaded"]),
        (503, "", Kind::Unavailable, &["overloaded"]),
        (429, "TooManyRequests", Kind::Unavailable, &["overloaded"]),
        (500, "InternalError", Kind::Unavailable, &["500 InternalError (told so)"]),
        (502, "", Kind::Unavailable, &["the server failed"]),
        (400, "BadDigest", Kind::Unavailable, &["changed on the way"]),
        (400, "RequestTimeout", Kind::Unavailable, &["on the way"]),
        (409, "OperationAborted", Kind::Busy, &["now"]),
        (501, "NotImplemented", Kind::Unsupported, &["not one granary can use"]),
        (
            400,
            "AuthorizationHeaderMalformed",
            Kind::Invalid,
            &["not in region us-east-1, but in eu-1", "AWS_REGION"],
        ),
        (
            400,
            "SomethingNew",
            Kind::Invalid,
            &["SomethingNew", "is the endpoint (AWS_ENDPOINT_URL) an S3 server?"],
        ),
    ];
    for (status, code, kind, words) in cases {
        let (_server, store) = server(move |_| {
            let reply =
                if code.is_empty() { Reply::new(status, "<html>no XML") } else { Reply::error(status, code) };
            reply.header("date", "Sun, 01 Nov 2026 00:00:00 GMT").header("x-amz-bucket-region", "eu-1")
        })
        .await;
        assert_says(&put(&*store).await, kind, words);
        // Whatever it is asked, the kind is the same; what has no body has no code.
        if code == "NoSuchBucket" || code == "SlowDown" {
            assert_eq!(store.get("k", 0..1).await.unwrap_err().kind(), kind);
            assert_eq!(store.list("", None, 1).await.unwrap_err().kind(), kind);
            assert_eq!(store.delete(vec!["k".into()]).await.unwrap_err().kind(), kind);
            assert_eq!(store.head("k").await.unwrap_err().kind(), kind);
        }
    }
}

#[tokio::test]
async fn a_batch_of_deletes_tells_of_its_keys() {
    for (code, kind) in [
        ("AccessDenied", Kind::Denied),
        ("SlowDown", Kind::Unavailable),
        ("InternalError", Kind::Unavailable),
    ] {
        let (_server, store) = server(move |_| {
            let text = format!(
                "<DeleteResult><Deleted><Key>vol/a</Key></Deleted><Error><Key>vol/b</Key><Code>{code}</Code>\
                 <Message>m</Message></Error></DeleteResult>"
            );
            Reply::new(200, text)
        })
        .await;
        let e = store.delete(vec!["a".into(), "b".into()]).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{code}: {e}");
    }
    let (_server, store) = server(|_| {
        let error =
            |key| format!("<Error><Key>vol/{key}</Key><Code>NoSuchKey</Code><Message>m</Message></Error>");
        Reply::new(200, format!("<DeleteResult>{}{}</DeleteResult>", error("a"), error("b")))
    })
    .await;
    store.delete(vec!["a".into(), "b".into()]).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let store = open("s3://a-bucket", &common::options(&format!("http://{address}"))).unwrap();
    let e = put(&*store).await;
    let expected = format!(
        "cannot reach s3://a-bucket at http://{address}: connection refused; check the endpoint (AWS_ENDPOINT_URL) and the \
         network"
    );
    assert_eq!((e.kind(), e.to_string()), (Kind::Unavailable, expected));
    let store = open("s3://a-bucket", &common::options("http://does-not-exist.invalid")).unwrap();
    assert_says(&put(&*store).await, Kind::Unavailable, &["cannot reach", "http://does-not-exist.invalid: "]);
}

#[tokio::test]
async fn silence_and_broken_connections_are_unavailable() {
    let body = vec![b'x'; 1000];
    for (end, words) in [
        (End::Silence, "no first byte in 300ms from s3://a-bucket/vol at http://127.0.0.1"),
        (End::Stall(10), "no further byte in 300ms from s3://a-bucket/vol at http://127.0.0.1"),
        (End::Cut(10), "broke"),
        (End::Hangup, "broke"),
    ] {
        let body = body.clone();
        let (_server, store) = server(move |_| {
            Reply::new(206, body.clone())
                .header("content-range", "bytes 0-999/1000")
                .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
                .end(end)
        })
        .await;
        let e = store.get("k", 0..1000).await.unwrap_err();
        assert_says(&e, Kind::Unavailable, &[words, "a-bucket/vol at http://127.0.0.1"]);
    }
    let server = Server::start(|_| Reply::default().end(End::Silence)).await;
    let store = open("s3://a-bucket", &common::options(&server.url())).unwrap();
    assert_says(&put(&*store).await, Kind::Unavailable, &["no first byte in 300ms from s3://a-bucket at"]);
    // The whole time ends what moves too slowly.
    let options =
        Options { request_ms_max: 300, first_byte_ms_max: 60_000, ..common::options(&server.url()) };
    let store = open("s3://a-bucket", &options).unwrap();
    let whole = "a request took longer than 300ms at s3://a-bucket";
    assert_says(&put(&*store).await, Kind::Unavailable, &[whole]);
    assert_says(&store.get("k", 0..1).await.unwrap_err(), Kind::Unavailable, &[whole]);
}

/// A server that takes so much of a request and then closes the connection, or reads no further.
async fn halfway(bytes: usize, close: bool) -> (String, tokio::task::JoinHandle<()>) {
    use tokio::io::AsyncReadExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let task = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut taken = vec![0; bytes];
            stream.read_exact(&mut taken).await.unwrap();
            if !close {
                open.push(stream);
            }
        }
    });
    (url, task)
}

#[tokio::test]
async fn an_upload_that_is_cut_short_or_stalls_is_unavailable_and_named() {
    for (close, words) in [(true, "broke"), (false, "no byte more was taken in 300ms by")] {
        let (url, task) = halfway(100_000, close).await;
        let store = open("s3://a-bucket/vol", &common::options(&url)).unwrap();
        // More than the sockets' buffers take.
        let parts = vec![Bytes::from(vec![7; 16 << 20])];
        let e = store.put("k", parts).await.unwrap_err();
        assert_says(&e, Kind::Unavailable, &[words, "a-bucket/vol at http://127.0.0.1", "AWS_ENDPOINT_URL"]);
        task.abort();
    }
}

#[tokio::test]
async fn answers_that_are_not_what_was_asked_are_never_data() {
    let ok = |body: &'static str| {
        Reply::new(206, body).header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT").header("etag", "\"e\"")
    };
    // A shorter range, another range, the whole object, no range said.
    for (reply, kind) in [
        (ok("abc").header("content-range", "bytes 0-2/3"), Kind::Corrupt),
        (ok("abcde").header("content-range", "bytes 5-9/20"), Kind::Unavailable),
        (Reply { status: 200, ..ok("abcdefghij") }, Kind::Unavailable),
        (ok("abcde"), Kind::Unavailable),
        // It says five bytes and sends three, or seven.
        (ok("abc").header("content-range", "bytes 0-4/5"), Kind::Corrupt),
        (ok("abcdefg").header("content-range", "bytes 0-4/5"), Kind::Corrupt),
    ] {
        let said = format!("{reply:?}");
        let (_server, store) = server(move |_| reply.clone()).await;
        assert_eq!(store.get("k", 0..5).await.unwrap_err().kind(), kind, "{said}");
    }
    for page in ["<html>hello</html>", "", "<ListBucketResult><Contents>"] {
        let (_server, store) = server(move |_| Reply::new(200, page)).await;
        assert_says(&store.list("", None, 5).await.unwrap_err(), Kind::Unavailable, &["an S3 server?"]);
    }
    let entry = |key: &str| {
        format!(
            "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>"
        )
    };
    for (page, kind, words) in [
        (entry("vol/b") + &entry("vol/a"), Kind::Unsupported, "out of order"),
        (entry("elsewhere/a"), Kind::Corrupt, "not asked for"),
    ] {
        let page = format!("<ListBucketResult>{page}</ListBucketResult>");
        let (_server, store) = server(move |_| Reply::new(200, page.clone())).await;
        assert_says(&store.list("", None, 5).await.unwrap_err(), kind, &[words]);
    }
}

#[tokio::test]
async fn keys_that_are_missing_are_told_at_once() {
    let environment = Environment::default().with("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let e = open("s3://a-bucket", &Options { environment, ..Options::default() }).unwrap_err();
    assert_says(&e, Kind::Denied, &["no keys for s3://a-bucket at http://127.0.0.1:1", "AWS_ACCESS_KEY_ID"]);
    let environment =
        Environment::default().with("AWS_CA_BUNDLE", "/does/not/exist.pem").with("AWS_ACCESS_KEY_ID", "x");
    let environment = environment.with("AWS_SECRET_ACCESS_KEY", "x");
    let e = open("s3://a-bucket", &Options { environment, ..Options::default() }).unwrap_err();
    assert_says(&e, Kind::Invalid, &["/does/not/exist.pem (AWS_CA_BUNDLE)"]);
}

#[tokio::test]
async fn the_probe_names_the_missing_right_and_wrong_keys_are_not_rights() {
    let bucket = Arc::new(Bucket::default());
    let (_server, store) = server(move |request| match request.method.as_str() {
        "POST" => Reply::error(403, "AccessDenied"),
        _ => bucket.answer(request),
    })
    .await;
    let e = probe(&*store, &SystemClock).await.unwrap_err();
    assert_says(&e, Kind::Denied, &["granary may not delete (s3:DeleteObject) in s3://a-bucket/vol"]);
    assert!(!e.to_string().contains("s3:GetObject"), "{e}");

    let (_server, store) = server(|_| Reply::error(403, "AccessDenied")).await;
    let e = probe(&*store, &SystemClock).await.unwrap_err();
    assert_says(&e, Kind::Denied, &["write (s3:PutObject), list (s3:ListBucket)"]);

    let (_server, store) = server(|_| Reply::error(403, "SignatureDoesNotMatch")).await;
    let e = probe(&*store, &SystemClock).await.unwrap_err();
    assert_says(&e, Kind::Denied, &["secret key is wrong"]);
    assert!(!e.to_string().contains("s3:PutObject"), "{e}");
}

#[tokio::test]
async fn the_stack_rides_out_a_server_that_is_overloaded_for_a_moment() {
    let bucket = Arc::new(Bucket::default());
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let (_server, store) =
        server(move |request| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) % 3 {
            0 => Reply::error(503, "SlowDown"),
            1 => Reply::default().end(End::Hangup),
            _ => bucket.answer(request),
        })
        .await;
    let store = stacked(store, &Limits::default(), Arc::new(SystemClock), &mut Registry::default());
    store.put("k", vec![Bytes::from_static(b"hello")]).await.unwrap();
    assert_eq!(store.get("k", 0..5).await.unwrap(), "hello");
    assert_eq!(store.list("", None, 5).await.unwrap().len(), 1);
    store.delete(vec!["k".into()]).await.unwrap();
}
