//! In virtual time: a moment of these tests is no moment of the machine's.

use std::future::pending;

use object_store::PutPayload;

use super::*;

const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    first_byte: Duration::from_millis(300),
    stall: Duration::from_millis(200),
    request: Duration::from_secs(60),
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A connection that takes a piece every `every`, at most `pieces`, and answers so long after the last.
async fn put(
    parts: Vec<Bytes>,
    every: Duration,
    pieces: usize,
    answer: Duration,
) -> Result<usize, HttpError> {
    let payload: PutPayload = parts.into_iter().collect();
    let (body, upload) = upload(HttpRequestBody::from(payload));
    let mut bytes = 0;
    let connection = async {
        let mut body = std::pin::pin!(body);
        for _ in 0..pieces {
            tokio::time::sleep(every).await;
            match body.next().await {
                Some(piece) => bytes += piece?.len(),
                None => break,
            }
        }
        tokio::time::sleep(answer).await;
        Ok(HttpResponse::new(HttpResponseBody::from(Bytes::new())))
    };
    upload.head(&TIMEOUTS, connection).await?;
    Ok(bytes)
}

fn why(result: Result<usize, HttpError>) -> String {
    let e = result.unwrap_err();
    assert_eq!(e.kind(), HttpErrorKind::Timeout);
    e.to_string()
}

#[tokio::test(start_paused = true)]
async fn an_upload_may_take_long_as_long_as_it_moves_and_then_has_its_time_for_the_answer() {
    let parts = vec![Bytes::from(vec![1; PIECE_BYTES * 7 + 1]), Bytes::from(vec![2; 3])];
    let len = PIECE_BYTES * 7 + 4;
    assert_eq!(put(parts.clone(), ms(150), 9, ms(290)).await.unwrap(), len);
    assert_eq!(why(put(parts.clone(), ms(150), 9, ms(310)).await), "HTTP error: no first byte in 300ms");
    assert_eq!(
        why(put(parts.clone(), ms(210), 9, ms(0)).await),
        "HTTP error: no byte more was taken in 200ms"
    );
    // It stops in the middle.
    let stopped = put(parts.clone(), ms(1), 5, ms(10_000)).await;
    assert_eq!(why(stopped), "HTTP error: no byte more was taken in 200ms");
    // The answer comes before the end of the body: the server refuses.
    assert!(put(parts, ms(1), 3, ms(10)).await.is_ok());
}

struct Drip(Vec<Duration>);

impl Drip {
    fn body(self) -> HttpResponseBody {
        let pieces = stream::iter(self.0).then(|pause| async move {
            tokio::time::sleep(pause).await;
            Ok(Frame::data(Bytes::from_static(b"x")))
        });
        // A body must be Sync, which a stream of timers in boxes is not said to be.
        HttpResponseBody::new(http_body_util::StreamBody::new(SyncStream(std::sync::Mutex::new(
            pieces.boxed(),
        ))))
    }
}

struct SyncStream(std::sync::Mutex<futures::stream::BoxStream<'static, Result<Frame<Bytes>, HttpError>>>);

impl Stream for SyncStream {
    type Item = Result<Frame<Bytes>, HttpError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().0.get_mut().unwrap().as_mut().poll_next(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_take_long_as_long_as_it_moves() {
    let good = watched(HttpResponse::new(Drip(vec![ms(190); 20]).body()), TIMEOUTS.stall);
    assert_eq!(good.into_body().bytes().await.unwrap().len(), 20);
    let stalled = watched(HttpResponse::new(Drip(vec![ms(190), ms(1), ms(210)]).body()), TIMEOUTS.stall);
    let e = stalled.into_body().bytes().await.unwrap_err();
    assert_eq!(e.to_string(), "HTTP error: no further byte in 200ms");
    let head = head(TIMEOUTS.first_byte, pending()).await.unwrap_err();
    assert_eq!(head.to_string(), "HTTP error: no first byte in 300ms");
}
