//! When a connection is used again, and when it is not.

use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, mpsc};

use super::*;

#[tokio::test]
async fn a_connection_is_used_again_across_plugins() {
    let server = Server::hello().await;
    let egress = client(HttpLimits::default());
    for _ in 0..3 {
        let scope = scope(&egress, &[server.origin()]);
        assert_eq!(fetch(&egress, &scope, &server.origin()).await.unwrap(), "hello");
    }
    assert_eq!((server.accepted(), egress.open_connections(), egress.idle_connections()), (1, 1, 1));
}

#[tokio::test]
async fn a_connection_belongs_to_one_host_even_at_the_same_address() {
    let server = Server::hello().await;
    let port = server.port();
    let egress = client_with(&Answers::new(&[&["127.0.0.1"]]));
    let scope = scope(&egress, &[format!("http://localhost:{port}"), server.origin()]);
    fetch(&egress, &scope, &server.origin()).await.unwrap();
    fetch(&egress, &scope, &format!("http://localhost:{port}")).await.unwrap();
    assert_eq!((server.accepted(), egress.idle_connections()), (2, 2));
}

#[tokio::test]
async fn a_connection_belongs_to_one_address_of_its_host() {
    let server = Server::hello().await;
    let name = format!("http://moves.example:{}", server.port());
    let elsewhere = format!("http://127.0.0.2:{}", server.port());
    let egress = client_with(&Answers::new(&[&["127.0.0.1"], &["127.0.0.2"], &["127.0.0.1"]]));
    let scope = scope(&egress, &[name.clone(), server.origin(), elsewhere]);
    assert_eq!(fetch(&egress, &scope, &name).await.unwrap(), "hello");
    // Nobody listens at the second address, and the idle connection to the first is none to it.
    let error = fetch(&egress, &scope, &name).await.unwrap_err();
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
    assert_eq!(fetch(&egress, &scope, &name).await.unwrap(), "hello");
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn a_connection_that_carries_a_login_is_not_used_again() {
    let server = Server::hello().await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    for (login, kept) in [("NTLM abc", 0), ("negotiate abc", 0), ("Basic abc", 1)] {
        let mut request = get(&server.origin());
        request.headers_mut().insert("authorization", login.parse().unwrap());
        text(egress.request(request, None, &scope).await.unwrap()).await.unwrap();
        assert_eq!(egress.idle_connections(), kept, "{login}");
    }
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let closed = Arc::new(Notify::new());
    let close = Arc::clone(&closed);
    let server = Server::raw(move |mut stream| {
        let close = Arc::clone(&close);
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
            close.notified().await;
        }
    })
    .await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    assert_eq!(fetch(&egress, &scope, &server.origin()).await.unwrap(), "hello");
    assert_eq!(egress.idle_connections(), 1);
    closed.notify_one();
    while egress.open_connections() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetch(&egress, &scope, &server.origin()).await.unwrap(), "hello");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn idle_connections_are_bounded_per_host_and_in_all() {
    let servers = [Server::hello().await, Server::hello().await];
    let egress = client(HttpLimits { idle_per_host_max: 2, idle_max: 3, ..HttpLimits::default() });
    let scope = scope(&egress, &[servers[0].origin(), servers[1].origin()]);
    for (server, kept) in servers.iter().zip([2, 3]) {
        let mut open = Vec::new();
        for _ in 0..4 {
            open.push(egress.request(get(&server.origin()), None, &scope).await.unwrap());
        }
        for response in open {
            text(response).await.unwrap();
        }
        assert_eq!(egress.idle_connections(), kept);
    }
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed_in_time() {
    let server = Server::hello().await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    for _ in 0..2 {
        fetch(&egress, &scope, &server.origin()).await.unwrap();
        assert_eq!(egress.idle_connections(), 1);
        tokio::time::sleep(2 * egress.limits().idle_timeout).await;
        assert_eq!(egress.idle_connections(), 0);
        while egress.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_another_host() {
    let (first, second) = (Server::hello().await, Server::hello().await);
    let egress = client(HttpLimits { connections_max: 1, ..HttpLimits::default() });
    let scope = scope(&egress, &[first.origin(), second.origin()]);
    for server in [&first, &second, &first] {
        assert_eq!(fetch(&egress, &scope, &server.origin()).await.unwrap(), "hello");
        assert_eq!(egress.open_connections(), 1);
    }
}

#[tokio::test]
async fn a_request_waits_for_a_busy_worker_and_takes_the_next_free_place() {
    let (first, second) = (Server::hello().await, Server::hello().await);
    let egress = client(HttpLimits { connections_max: 1, ..HttpLimits::default() });
    let scope = scope(&egress, &[first.origin(), second.origin()]);
    let held = egress.request(get(&first.origin()), None, &scope).await.unwrap();
    let (egress_too, scope_too, origin) = (egress.clone(), scope.clone(), second.origin());
    let waiting = tokio::spawn(async move { fetch(&egress_too, &scope_too, &origin).await });
    // The one that is read to its end now must be closed rather than kept, since another waits.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(held).await.unwrap(), "hello");
    assert_eq!(waiting.await.unwrap().unwrap(), "hello");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stays_busy_refuses_in_time() {
    let server = Server::hello().await;
    let egress = client(HttpLimits { connections_max: 1, ..HttpLimits::default() });
    let scope = scope(&egress, &[server.origin()]);
    let held = egress.request(get(&server.origin()), None, &scope).await.unwrap();
    let error = fetch(&egress, &scope, &server.origin()).await.unwrap_err();
    assert!(matches!(error, EgressError::TooManyConnections { max: 1 }), "{error:?}");
    assert_eq!(text(held).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_does_not_leave_a_reusable_connection() {
    let (gone, mut left) = mpsc::channel(1);
    let server = Server::raw(move |mut stream| {
        let gone = gone.clone();
        async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").await.unwrap();
            read_to_the_end(&mut stream).await;
            let _ = gone.send(()).await;
        }
    })
    .await;
    let egress = client(HttpLimits::default());
    let endless = http_body_util::StreamBody::new(futures_util::stream::pending()).boxed_unsync();
    let request = Request::post(server.origin()).body(endless).unwrap();
    let response = egress.request(request, None, &scope(&egress, &[server.origin()])).await.unwrap();
    assert_eq!(response.status(), 413);
    assert_eq!(text(response).await.unwrap(), "no");
    assert_eq!(egress.idle_connections(), 0);
    left.recv().await.expect("the server saw the connection close");
}
