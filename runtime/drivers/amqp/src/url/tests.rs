//! Every form of URL of `celery-wire.md` §3.6, bad ones first.

use std::path::PathBuf;

use super::*;

fn one(url: &str) -> Endpoint {
    match Endpoint::parse(url) {
        Ok(endpoints) if endpoints.len() == 1 => endpoints.into_iter().next().unwrap(),
        other => panic!("{url}: {other:?}"),
    }
}

#[test]
fn bad_urls_say_what_would_do() {
    let long = format!("amqp://h/{}", "v".repeat(256));
    for (url, text) in [
        ("", "`amqp://user:password@host:5672/vhost`"),
        ("localhost:5672", "`amqp://user:password@host:5672/vhost`"),
        ("redis://h", "`amqp://` or `amqps://`"),
        ("amqp://h;redis://g", "`amqp://` or `amqps://`"),
        ("amqp://h:port/", "a number of 1..=65535 (not `port`)"),
        ("amqp://h:0/", "a number of 1..=65535"),
        ("amqp://::1/", "in brackets"),
        ("amqp://u:a/b@h/", "percent-encoded (`/` as `%2F`"),
        ("amqp://u:%zz@h/", "two hexadecimal digits"),
        ("amqp://h?heartbeat=often", "`heartbeat` to be seconds of 0..=65535 (not `often`)"),
        ("amqp://h?heartbeat=65536", "(not `65536`)"),
        ("amqp://h?hartbeat=1", "did you mean `heartbeat`?"),
        ("amqp://h?ssl_ca_certs=/c", "`amqps://` where there are TLS parameters"),
        ("amqp://h?ssl=true", "`amqps://` where TLS is asked for"),
        ("amqps://h?ssl_cert_reqs=maybe", "`required`, `optional` or `none`"),
        ("amqps://h?colour=red", "one of the parameters `heartbeat`, `ssl_ca_certs`"),
        (long.as_str(), "at most 255 bytes (not 256)"),
    ] {
        let error = Endpoint::parse(url).unwrap_err();
        assert!(error.contains(text), "{url}: {error}");
    }
}

#[test]
fn every_part_has_its_default() {
    let guest = Endpoint {
        host: "localhost".to_owned(),
        port: 5672,
        username: "guest".to_owned(),
        password: Secret::new("guest"),
        vhost: "/".to_owned(),
        heartbeat_s: None,
        tls: None,
    };
    for url in
        ["amqp://", "amqp:///", "pyamqp://localhost//", "librabbitmq://guest:guest@:5672/%2F", "AMQP://"]
    {
        assert_eq!(one(url), guest, "{url}");
    }
    let expect = Endpoint {
        host: "::1".to_owned(),
        port: 1,
        username: "m\u{e9}".to_owned(),
        password: Secret::new("p@:/;"),
        vhost: "a/b".to_owned(),
        heartbeat_s: Some(10),
        tls: None,
    };
    assert_eq!(one("amqp://m%C3%A9:p%40%3A%2F%3B@[::1]:1/a%2Fb?heartbeat=10"), expect);
    assert_eq!(one("amqp://h/a/b").vhost, "a/b");
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let endpoint = one("amqps://h");
    assert_eq!((endpoint.port, endpoint.tls), (5671, Some(TlsOptions::new(CertReqs::Required))));
    let url =
        "amqps://h:1/?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=no";
    let expect = TlsOptions {
        ca_certs: Some(PathBuf::from("/ca.pem")),
        certfile: Some(PathBuf::from("/c.pem")),
        keyfile: Some(PathBuf::from("/k.pem")),
        check_hostname: false,
        ..TlsOptions::new(CertReqs::Required)
    };
    assert_eq!(one(url).tls, Some(expect));
    assert_eq!(one("amqps://h?ssl=1&ssl_cert_reqs=none").tls, Some(TlsOptions::new(CertReqs::None)));
}

#[test]
fn a_list_keeps_its_order() {
    let hosts: Vec<String> = Endpoint::parse("amqp://b;amqps://a:1/v;pyamqp://c")
        .unwrap()
        .iter()
        .map(|e| e.url().to_string())
        .collect();
    assert_eq!(hosts, ["amqp://***@b:5672/", "amqps://***@a:1/v", "amqp://***@c:5672/"]);
}

#[test]
fn passwords_are_not_displayed() {
    let endpoint = one("amqp://me:s3cret@h/a%2Fb");
    assert_eq!(endpoint.url().to_string(), "amqp://***@h:5672/a%2Fb");
    assert!(!format!("{endpoint:?}").contains("s3cret"));
}
