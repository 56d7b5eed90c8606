//! Every bound of a request: bytes, time, and how many at a time.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use wasmtime_wasi_http::RequestOptions;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::*;

/// A body of unknown length, made of the chunks that come through the channel.
fn channel_body(chunks: mpsc::Receiver<Bytes>) -> WasiBody {
    let frames = futures_util::stream::unfold(chunks, |mut chunks| async move {
        chunks.recv().await.map(|chunk| (Ok(Frame::data(chunk)), chunks))
    });
    StreamBody::new(frames.boxed()).boxed_unsync()
}

fn chunked(chunk: &'static [u8], times: usize) -> WasiBody {
    let frames =
        futures_util::stream::iter((0..times).map(move |_| Ok(Frame::data(Bytes::from_static(chunk)))));
    StreamBody::new(frames).boxed_unsync()
}

/// A server that takes the request and never says a word; tells when the client is gone.
async fn silent_server(gone: mpsc::Sender<()>) -> Server {
    Server::raw(move |mut stream| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            read_to_the_end(&mut stream).await;
            let _ = gone.send(()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_announced_body_over_the_cap_is_not_read() {
    let server = Server::http(|_| async { Response::new(full(vec![b'x'; 101])) }).await;
    let egress = client(HttpLimits { response_body_bytes_max: 100, ..HttpLimits::default() });
    let error = fetch(&egress, &scope(&egress, &[server.origin()]), &server.origin()).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpResponseBodySize(Some(100))));
}

#[tokio::test]
async fn a_streamed_body_over_the_cap_is_cut_with_an_error() {
    let server = Server::http(|_| async { Response::new(chunked(&[b'x'; 50], 3)) }).await;
    let egress = client(HttpLimits { response_body_bytes_max: 100, ..HttpLimits::default() });
    let response =
        egress.request(get(&server.origin()), None, &scope(&egress, &[server.origin()])).await.unwrap();
    let mut body = response.into_body();
    let mut received = 0;
    let error = loop {
        match body.frame().await.expect("an error before the end") {
            Ok(frame) => received += frame.into_data().unwrap().len(),
            Err(error) => break error,
        }
    };
    assert!(received <= 100, "{received}");
    assert!(matches!(error, Error::HttpResponseBodySize(Some(100))), "{error:?}");
    assert!(body.frame().await.is_none());
    assert_eq!(egress.idle_connections(), 0);
}

#[tokio::test]
async fn a_body_of_exactly_the_cap_comes_whole() {
    let server = Server::http(|_| async { Response::new(chunked(&[b'x'; 50], 2)) }).await;
    let egress = client(HttpLimits { response_body_bytes_max: 100, ..HttpLimits::default() });
    assert_eq!(
        fetch(&egress, &scope(&egress, &[server.origin()]), &server.origin()).await.unwrap().len(),
        100
    );
}

#[tokio::test]
async fn a_request_body_over_the_cap_is_refused_before_or_while_it_is_sent() {
    let server = Server::http(|request| async {
        let _ = request.into_body().collect().await;
        Response::new(empty())
    })
    .await;
    let egress = client(HttpLimits { request_body_bytes_max: 100, ..HttpLimits::default() });
    let scope = scope(&egress, &[server.origin()]);
    let post = |body| Request::post(server.origin()).body(body).unwrap();

    let error = egress.request(post(full(vec![b'x'; 101])), None, &scope).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpRequestBodySize(Some(100))), "{error:?}");
    assert_eq!(server.accepted(), 0);

    let error = egress.request(post(chunked(&[b'x'; 50], 3)), None, &scope).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpRequestBodySize(Some(100))), "{error:?}");

    egress.request(post(chunked(&[b'x'; 50], 2)), None, &scope).await.unwrap();
}

#[tokio::test]
async fn heads_over_the_cap_are_refused() {
    let server = Server::http(|_| async {
        Response::builder().header("x-long", "y".repeat(10_000)).body(empty()).unwrap()
    })
    .await;
    let limits =
        HttpLimits { response_head_bytes_max: 9_000, request_head_bytes_max: 1_000, ..HttpLimits::default() };
    let egress = client(limits);
    let scope = scope(&egress, &[server.origin()]);
    let error = fetch(&egress, &scope, &server.origin()).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpResponseHeaderSectionSize(Some(9_000))), "{error:?}");

    let long = format!("{}/{}", server.origin(), "x".repeat(1_000));
    let error = fetch(&egress, &scope, &long).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpRequestHeaderSectionSize(Some(1_001..))), "{error:?}");
}

#[tokio::test]
async fn an_invocation_has_a_bounded_number_of_requests_open() {
    let server = Server::hello().await;
    let egress = client(HttpLimits { requests_per_invocation_max: 2, ..HttpLimits::default() });
    let scope_of_one = scope(&egress, &[server.origin()]);
    let open = async || egress.request(get(&server.origin()), None, &scope_of_one).await;
    let (first, second) = (open().await.unwrap(), open().await.unwrap());
    let error = open().await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::ConnectionLimitReached));

    let of_another = scope(&egress, &[server.origin()]);
    assert_eq!(fetch(&egress, &of_another, &server.origin()).await.unwrap(), "hello");

    assert_eq!(text(first).await.unwrap(), "hello");
    drop(second);
    let (_first, _second) = (open().await.unwrap(), open().await.unwrap());
}

#[tokio::test]
async fn a_refused_request_gives_its_place_back() {
    let server = Server::hello().await;
    let limits =
        HttpLimits { requests_per_invocation_max: 1, request_head_bytes_max: 1_000, ..HttpLimits::default() };
    let egress = client(limits);
    let scope = scope(&egress, &[server.origin()]);
    for _ in 0..3 {
        let not_granted = fetch(&egress, &scope, "http://10.0.0.2/").await.unwrap_err();
        assert!(matches!(not_granted, EgressError::NotGranted { .. }));
        let long = format!("{}/{}", server.origin(), "x".repeat(1_000));
        let too_large = fetch(&egress, &scope, &long).await.unwrap_err();
        assert!(matches!(too_large, EgressError::RequestHeadTooLarge { .. }));
    }
    assert_eq!(fetch(&egress, &scope, &server.origin()).await.unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let (gone, mut left) = mpsc::channel(4);
    let server = silent_server(gone).await;
    let egress = client(HttpLimits::default());
    let scope_without_end = scope(&egress, &[server.origin()]);
    let check = async |options, scope: &Scope, expect: Duration| {
        let started = Instant::now();
        let error = egress.request(get(&server.origin()), options, scope).await.unwrap_err();
        assert!(matches!(error.code(), ErrorCode::HttpResponseTimeout), "{error:?}");
        assert_eq!(started.elapsed().as_secs(), expect.as_secs());
    };
    let asked = |seconds| {
        let first_byte_timeout = Some(Duration::from_secs(seconds));
        Some(RequestOptions { first_byte_timeout, ..RequestOptions::default() })
    };
    let own = HttpLimits::default().first_byte_timeout;
    check(None, &scope_without_end, own).await;
    check(asked(5), &scope_without_end, Duration::from_secs(5)).await;
    check(asked(600), &scope_without_end, own).await;

    let allow = Arc::new(AllowList::parse([server.origin()]).unwrap());
    let ends = egress.scope("web", allow, Some(Instant::now() + Duration::from_secs(7)));
    check(None, &ends, Duration::from_secs(7)).await;

    for _ in 0..4 {
        left.recv().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_server_has_its_time_from_the_end_of_the_request() {
    let server = Server::http(|request| async {
        Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    let egress = client(HttpLimits::default());
    let (chunks, body) = mpsc::channel(1);
    let request = Request::post(server.origin()).body(channel_body(body)).unwrap();
    let slow_guest = async move {
        for _ in 0..3 {
            tokio::time::sleep(10 * HttpLimits::default().first_byte_timeout).await;
            chunks.send(Bytes::from_static(b"slow ")).await.unwrap();
        }
    };
    let scope = scope(&egress, &[server.origin()]);
    let (response, ()) = tokio::join!(egress.request(request, None, &scope), slow_guest);
    assert_eq!(text(response.unwrap()).await.unwrap(), "slow slow slow ");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_coming_is_given_up_only_while_the_guest_waits() {
    let (gone, mut left) = mpsc::channel(1);
    let go_on = Arc::new(Notify::new());
    let more = Arc::clone(&go_on);
    let server = Server::raw(move |mut stream| {
        let (gone, more) = (gone.clone(), Arc::clone(&more));
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await.unwrap();
            more.notified().await;
            stream.write_all(b"hello").await.unwrap();
            read_to_the_end(&mut stream).await;
            let _ = gone.send(()).await;
        }
    })
    .await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    let mut body = egress.request(get(&server.origin()), None, &scope).await.unwrap().into_body();
    let between = HttpLimits::default().between_bytes_timeout;
    let a_guest_computes = || tokio::time::sleep(10 * between);

    a_guest_computes().await;
    assert!(body.frame().now_or_never().is_none());
    go_on.notify_one();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "hello");
    a_guest_computes().await;

    let waited = Instant::now();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::ConnectionReadTimeout), "{error:?}");
    assert_eq!(waited.elapsed().as_secs(), between.as_secs());
    left.recv().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_never_ends_is_given_up_and_keeps_its_place_until_it_ends() {
    #[derive(Debug)]
    struct Never(Arc<Notify>);
    #[async_trait]
    impl Resolve for Never {
        async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            self.0.notified().await;
            Ok(Vec::new())
        }
    }
    let answer = Arc::new(Notify::new());
    let limits = HttpLimits { lookups_max: 1, ..HttpLimits::default() };
    let never = Arc::new(Never(Arc::clone(&answer)));
    let egress = Egress::with_resolver(Handle::current(), limits, Roots::default(), never);
    let scope = scope(&egress, &["http://a.example"]);
    for _ in 0..2 {
        let error = fetch(&egress, &scope, "http://a.example/").await.unwrap_err();
        assert!(matches!(error.code(), ErrorCode::DnsTimeout), "{error:?}");
    }
    answer.notify_one();
    answer.notify_one();
    let error = fetch(&egress, &scope, "http://a.example/").await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::DnsTimeout | ErrorCode::DnsError(_)), "{error:?}");
}

#[tokio::test]
async fn dropping_the_request_closes_the_connection() {
    let (gone, mut left) = mpsc::channel(1);
    let (arrived, arrival) = oneshot::channel();
    let arrived = Arc::new(Mutex::new(Some(arrived)));
    let server = Server::raw(move |mut stream| {
        let (gone, arrived) = (gone.clone(), Arc::clone(&arrived));
        async move {
            read_head(&mut stream).await;
            arrived.lock().unwrap().take().unwrap().send(()).unwrap();
            read_to_the_end(&mut stream).await;
            let _ = gone.send(()).await;
        }
    })
    .await;
    let egress = client(HttpLimits { requests_per_invocation_max: 1, ..HttpLimits::default() });
    let scope = scope(&egress, &[server.origin()]);
    tokio::select! {
        _ = egress.request(get(&server.origin()), None, &scope) => panic!("nobody answers"),
        _ = arrival => {}
    }
    left.recv().await.expect("the server saw the connection close");
    assert_eq!(egress.open_connections(), 0);
}

#[tokio::test]
async fn dropping_the_body_closes_the_connection() {
    let (gone, mut left) = mpsc::channel(1);
    let server = Server::raw(move |mut stream| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
            read_to_the_end(&mut stream).await;
            let _ = gone.send(()).await;
        }
    })
    .await;
    let egress = client(HttpLimits::default());
    let response =
        egress.request(get(&server.origin()), None, &scope(&egress, &[server.origin()])).await.unwrap();
    drop(response);
    left.recv().await.expect("the server saw the connection close");
    assert_eq!((egress.open_connections(), egress.idle_connections()), (0, 0));
}
