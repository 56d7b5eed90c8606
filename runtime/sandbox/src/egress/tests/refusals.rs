//! What is refused before a byte is sent.

use http::{Method, StatusCode};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;

use super::*;

#[tokio::test]
async fn nothing_is_reached_that_is_not_granted() {
    let server = Server::hello().await;
    let port = server.port();
    let resolver = Answers::new(&[&["127.0.0.1"]]);
    let egress = client_with(&resolver);
    let check = async |entries: &[&str], uri: &str, expect: fn(&ErrorCode) -> bool| {
        let error = fetch(&egress, &scope(&egress, entries), uri).await.unwrap_err();
        assert!(expect(&error.code()), "{uri}: {error:?}");
    };
    let denied: fn(&ErrorCode) -> bool = |code| matches!(code, ErrorCode::HttpRequestDenied);
    let prohibited: fn(&ErrorCode) -> bool = |code| matches!(code, ErrorCode::DestinationIpProhibited);
    let invalid: fn(&ErrorCode) -> bool = |code| matches!(code, ErrorCode::HttpRequestUriInvalid);

    check(&[], &format!("http://127.0.0.1:{port}/"), denied).await;
    check(&["http://127.0.0.1:1"], &format!("http://127.0.0.1:{port}/"), denied).await;
    check(&["http://10.0.0.1"], "http://[::ffff:10.0.0.1]/", denied).await;
    check(&["http://localhost"], &format!("http://localhost:{port}/"), denied).await;
    check(&["https://api.example.com"], "https://api.example.com:444/", denied).await;
    check(&["https://*.cdn.example"], "https://cdn.example/", denied).await;
    check(&["https://*.cdn.example"], "https://evil-cdn.example/", denied).await;
    assert_eq!(resolver.asked(), 0, "what is not granted is not even looked up");

    check(&["http://a.example"], "http://user@a.example/", invalid).await;
    check(&["http://a.example"], "http://a.example:0/", invalid).await;
    check(&["http://a.example"], "ftp://a.example/", invalid).await;
    check(&["http://a.example"], "/relative", invalid).await;
    assert_eq!(resolver.asked(), 0);

    let name = format!("http://a.example:{port}");
    check(&[&name], &name, prohibited).await;
    let wildcard = format!("http://*.cdn.example:{port}");
    let literal = format!("http://127.0.0.1:{port}");
    check(&[&wildcard, &literal], &format!("http://a.cdn.example:{port}/"), prohibited).await;
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_hides_a_forbidden_address_is_refused() {
    for address in
        ["169.254.169.254", "fd00:ec2::254", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "0.0.0.0"]
    {
        let egress = client_with(&Answers::new(&[&[address]]));
        let error =
            fetch(&egress, &scope(&egress, &["http://a.example"]), "http://a.example/").await.unwrap_err();
        assert!(matches!(error, EgressError::AddressRefused { .. }), "{address}: {error:?}");
    }
}

#[tokio::test]
async fn every_notation_of_a_granted_destination_is_let_through() {
    let server = Server::hello().await;
    let port = server.port();
    let egress = client_with(&Answers::new(&[&["127.0.0.1"]]));
    let scope = scope(&egress, &[format!("http://localhost:{port}"), server.origin()]);
    for host in ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "2130706433", "0x7f.1", "127.0.0.1."] {
        let found = fetch(&egress, &scope, &format!("http://{host}:{port}/")).await;
        assert_eq!(found.unwrap(), "hello", "{host}");
    }
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_judged_anew_and_looked_up_once_per_request() {
    let server = Server::hello().await;
    let name = format!("http://rebind.example:{}", server.port());
    let resolver = Answers::new(&[&["127.0.0.1"], &["10.0.0.1"]]);
    let egress = client_with(&resolver);
    let scope = scope(&egress, &[name.clone(), server.origin()]);

    assert_eq!(fetch(&egress, &scope, &name).await.unwrap(), "hello");
    assert_eq!((resolver.asked(), server.accepted()), (1, 1));
    assert_eq!(egress.idle_connections(), 1);

    let error = fetch(&egress, &scope, &name).await.unwrap_err();
    assert!(
        matches!(error, EgressError::AddressRefused { address, .. } if address.to_string() == "10.0.0.1")
    );
    assert_eq!((resolver.asked(), server.accepted()), (2, 1));
}

#[tokio::test]
async fn of_several_addresses_only_the_permitted_ones_are_tried() {
    let server = Server::hello().await;
    let name = format!("http://many.example:{}", server.port());
    // Nobody listens at the first permitted address; the refused one in front must not be tried at all.
    let egress = client_with(&Answers::new(&[&["10.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.1"]]));
    let second = format!("http://127.0.0.2:{}", server.port());
    let scope = scope(&egress, &[name.clone(), server.origin(), second]);
    assert_eq!(fetch(&egress, &scope, &name).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_redirect_comes_back_as_it_is_and_its_target_is_judged_anew() {
    let server = Server::http(|_| async {
        let redirect =
            Response::builder().status(StatusCode::FOUND).header("location", "http://169.254.169.254/meta");
        redirect.body(empty()).unwrap()
    })
    .await;
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[server.origin()]);
    let response = egress.request(get(&server.origin()), None, &scope).await.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    let target = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(server.accepted(), 1);

    let error = fetch(&egress, &scope, &target).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpRequestDenied));
    let hint = error.hint("web").unwrap();
    assert_eq!(hint, "add \"http://169.254.169.254\" to `http` in [plugins.web.grants]");
}

#[tokio::test]
async fn a_failed_look_up_says_so() {
    let egress = client_with(&Answers::new(&[]));
    let error =
        fetch(&egress, &scope(&egress, &["http://a.example"]), "http://a.example/").await.unwrap_err();
    let ErrorCode::DnsError(payload) = error.code() else { panic!("{error:?}") };
    assert_eq!(payload.rcode.as_deref(), Some("no such name"));

    let egress = client_with(&Answers::new(&[&[]]));
    let error =
        fetch(&egress, &scope(&egress, &["http://a.example"]), "http://a.example/").await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::DnsError(_)), "{error:?}");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_refuses_the_connection() {
    let origin = Server::hello().await.origin();
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &[&origin]);
    // The server above is gone by now; its port stays unused for the moment of this test.
    let error = loop {
        if let Err(error) = fetch(&egress, &scope, &origin).await {
            break error;
        }
    };
    assert!(
        matches!(error.code(), ErrorCode::ConnectionRefused | ErrorCode::ConnectionTerminated),
        "{error:?}"
    );
}

#[tokio::test]
async fn connect_is_refused() {
    let server = Server::hello().await;
    let egress = client(HttpLimits::default());
    let mut request = get(&server.origin());
    *request.method_mut() = Method::CONNECT;
    let error = egress.request(request, None, &scope(&egress, &[server.origin()])).await.unwrap_err();
    assert!(matches!(error.code(), ErrorCode::HttpRequestMethodInvalid));
    assert_eq!(server.accepted(), 0);
}

/// Where the log lines of one test go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refusal_is_logged_with_what_would_allow_it_and_a_guest_that_insists_does_not_fill_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let egress = client(HttpLimits::default());
    let scope = scope(&egress, &["http://a.example"]);
    for _ in 0..20 {
        fetch(&egress, &scope, "https://b.example/secret?token=1").await.unwrap_err();
    }
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let refused: Vec<_> = text.lines().filter(|line| line.contains("http request refused")).collect();
    assert_eq!(refused.len(), 8, "{text}");
    assert!(refused[0].contains("WARN"), "{text}");
    assert!(refused[0].contains("plugin=\"web\""), "{text}");
    assert!(refused[0].contains("error=`https://b.example` is not granted"), "{text}");
    assert!(
        refused[0].contains("hint=add \"https://b.example\" to `http` in [plugins.web.grants]"),
        "{text}"
    );
    assert!(!text.contains("token"), "a path may hold secrets: {text}");
}
