//! Whole exchanges with a real server.

use std::pin::Pin;

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::*;

#[tokio::test]
async fn headers_about_the_connection_stay_behind_and_host_is_ours() {
    let (heads, mut seen) = mpsc::channel(1);
    let server = Server::raw(move |mut stream| {
        let heads = heads.clone();
        async move {
            heads.send(read_head(&mut stream).await).await.unwrap();
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let egress = client_with(&Answers::new(&[&["127.0.0.1"]]));
    let uri = format!("http://LocalHost.:{}?q=1", server.port());
    let mut request = get(&uri);
    for (name, value) in [
        ("host", "evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("keep-alive", "1"),
        ("proxy-authorization", "secret"),
        ("proxy-connection", "x"),
        ("http2-settings", "x"),
        ("x-kept", "one"),
        ("x-kept", "two"),
    ] {
        request.headers_mut().append(name, value.parse().unwrap());
    }
    let scope = scope(&egress, &[format!("http://localhost:{}", server.port())]);
    let response = egress.request(request, None, &scope).await.unwrap();
    assert_eq!(response.status(), StatusCode::NO_CONTENT);

    let head = seen.recv().await.unwrap();
    let mut lines: Vec<_> = head.trim_end().split("\r\n").collect();
    lines[1..].sort_unstable();
    let host = format!("host: localhost:{}", server.port());
    assert_eq!(lines, ["GET /?q=1 HTTP/1.1", &host, "x-kept: one", "x-kept: two"]);
}

#[tokio::test]
async fn what_is_not_a_response_is_an_error() {
    for (answer, expect) in [
        ("", "ConnectionTerminated"),
        ("SSH-2.0-server\r\n\r\n", "HttpProtocolError"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n", "HttpProtocolError"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "HttpUpgradeFailed",
        ),
    ] {
        let server = Server::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        })
        .await;
        let egress = client(HttpLimits::default());
        let error = fetch(&egress, &scope(&egress, &[server.origin()]), &server.origin()).await.unwrap_err();
        assert!(format!("{:?}", error.code()).contains(expect), "{answer:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_an_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let server = Server::raw(move |mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        })
        .await;
        let egress = client(HttpLimits::default());
        let scope = scope(&egress, &[server.origin()]);
        let response = egress.request(get(&server.origin()), None, &scope).await.unwrap();
        let error = text(response).await.unwrap_err();
        assert!(matches!(error, Error::HttpResponseIncomplete), "{error:?}");
    }
}

#[tokio::test]
async fn both_bodies_pass() {
    let server = Server::http(|request| async {
        Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    let egress = client(HttpLimits::default());
    let request = Request::put(server.origin()).body(full("echo")).unwrap();
    let response = egress.request(request, None, &scope(&egress, &[server.origin()])).await.unwrap();
    assert_eq!(text(response).await.unwrap(), "echo");
}

#[tokio::test]
async fn trailers_pass_and_end_the_exchange() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 42\r\n\r\n";
    let server = Server::raw(move |mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        read_to_the_end(&mut stream).await;
    })
    .await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    let mut body = egress.request(get(&server.origin()), None, &scope).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
    assert_eq!(body.frame().await.unwrap().unwrap().into_trailers().unwrap()["x-sum"], "42");
    assert_eq!(egress.idle_connections(), 1);
    assert!(body.frame().await.is_none());
}

/// The guest's runtime here has neither timers nor sockets: whatever needed them there would panic.
#[test]
fn everything_runs_on_the_io_runtime() {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let guests = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let server = io.block_on(Server::http(|request| async {
        Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
    }));
    let egress = Egress::new(io.handle().clone(), HttpLimits::default(), Roots::default());
    let scope = scope(&egress, &[server.origin()]);
    let echoed = guests.block_on(async {
        let request = Request::post(server.origin()).body(full(vec![b'x'; 1 << 20])).unwrap();
        let (response, rest) = Pin::from(egress.send(request, None, &scope)).await.unwrap();
        Pin::from(rest).await.unwrap();
        text(response).await.unwrap()
    });
    assert_eq!(echoed.len(), 1 << 20);
    assert_eq!(egress.idle_connections(), 1);
}

#[tokio::test]
async fn an_io_runtime_that_is_gone_is_an_error_not_a_hang() {
    let io = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let egress = Egress::new(io.handle().clone(), HttpLimits::default(), Roots::default());
    io.shutdown_background();
    let error = fetch(&egress, &scope(&egress, &["http://10.0.0.1"]), "http://10.0.0.1/").await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::InternalError(Some(_))), "{error:?}");
}
