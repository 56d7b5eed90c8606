//! Every form of URL of `celery-wire.md` §2.11, bad ones first.

use super::*;

fn parse(url: &str) -> Result<Servers, String> {
    Servers::parse(url, Role::Broker)
}

fn one(url: &str) -> Endpoint {
    match parse(url) {
        Ok(Servers::Direct(endpoints)) if endpoints.len() == 1 => endpoints.into_iter().next().unwrap(),
        other => panic!("{url}: {other:?}"),
    }
}

#[test]
fn bad_urls_say_what_would_do() {
    for (url, text) in [
        ("", "`redis://host:6379/0`"),
        ("localhost:6379", "`redis://host:6379/0`"),
        ("http://host", "`redis://`, `rediss://`, `redis+socket://` or `sentinel://`"),
        ("redis://host/celery", "the database to be a number (not `celery`)"),
        ("redis://host/-1", "the database to be a number"),
        ("redis://host:port/0", "the port to be a number of 1..=65535 (not `port`)"),
        ("redis://host:0", "the port to be a number of 1..=65535 (not `0`)"),
        ("redis://host:65536", "the port to be a number of 1..=65535"),
        ("redis://::1", "an IPv6 address to be in brackets"),
        ("redis://[::1", "`]` after an IPv6 address"),
        ("redis://:50%@host", "two hexadecimal digits after each `%`"),
        ("redis://:%ff@host", "percent-encoded UTF-8"),
        ("redis://:a/b@host", "percent-encoded (`/` as `%2F`"),
        ("redis://host?visibility_timeout=5", "one of the parameters `ssl_ca_certs`"),
        ("redis://host?ssl_ca_certs=ca.pem", "`rediss://` where there are TLS parameters"),
        ("rediss://host?ssl_cert_req=none", "did you mean `ssl_cert_reqs`?"),
        ("rediss://host?ssl_cert_reqs=maybe", "`required`, `optional` or `none` (not `maybe`)"),
        ("rediss://host?ssl_check_hostname=perhaps", "`true` or `false` (not `perhaps`)"),
        ("rediss://host?ssl_cert_reqs", "`ssl_cert_reqs=VALUE`"),
        ("redis+socket://host/path", "the path of a Unix socket"),
        ("redis+socket://", "the path of a Unix socket"),
        ("redis+socket:///a?virtual_host=x", "the database to be a number (not `x`)"),
        ("redis+socket:///a?db_number=1", "the parameter `virtual_host`, not `db_number`"),
        ("redis://a;b", "`redis://host:6379/0`"),
        ("redis://a;", "`redis://host:6379/0`"),
        ("sentinel://a;redis://b", "all URLs of the list to be `sentinel://` or none"),
    ] {
        let said = parse(url).unwrap_err();
        assert!(said.contains(text), "{url}: {said}");
    }
}

#[test]
fn what_was_expected_shows_no_password() {
    for url in [
        "redis://:hunter2@host:port",
        "redis://:hunter2@host/x",
        "redis://:hunter2/@host",
        "redis://:hunter2#x@host:6379/0",
        "redis://:x?hunter2@host",
        "redis://:hunter2;@host",
        "amqp://me:hunter2@host",
        "redis+socket://:hunter2@host/a",
    ] {
        let said = parse(url).unwrap_err();
        assert!(!said.contains("hunter2"), "{said}");
    }
    let shown =
        format!("{:?} {}", one("redis://hunter1:hunter2@host"), one("redis://hunter1:hunter2@host").url());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn tcp_addresses_and_databases() {
    for (url, address, db) in [
        ("redis://", "localhost:6379", 0),
        ("redis:///3", "localhost:6379", 3),
        ("redis://host", "host:6379", 0),
        ("redis://host/", "host:6379", 0),
        ("redis://host:7/3", "host:7", 3),
        ("redis://host//3", "host:6379", 3),
        ("REDIS://host:/3", "host:6379", 3),
        ("redis://[::1]:7/1", "[::1]:7", 1),
        ("redis://[::1]", "[::1]:6379", 0),
        (" redis://host/1 ", "host:6379", 1),
    ] {
        let endpoint = one(url);
        assert_eq!(endpoint.address.to_string(), address, "{url}");
        assert_eq!((endpoint.login.db, endpoint.login.tls), (db, None), "{url}");
    }
}

#[test]
fn users_and_passwords_are_percent_decoded() {
    for (url, user, password) in [
        ("redis://host", None, None),
        ("redis://@host", None, None),
        ("redis://:@host", None, None),
        ("redis://:pw@host", None, Some("pw")),
        ("redis://me:pw@host", Some("me"), Some("pw")),
        ("redis://me@host", Some("me"), None),
        ("redis://m%40e:p%2Fw%3a%40%25%23@host", Some("m@e"), Some("p/w:@%#")),
        ("redis://:a@b@host", None, Some("a@b")),
        ("redis://me:a:b@host", Some("me"), Some("a:b")),
    ] {
        let login = one(url).login;
        assert_eq!(login.username.as_deref(), user, "{url}");
        assert_eq!(login.password.as_ref().map(Secret::reveal), password, "{url}");
    }
}

#[test]
fn unix_sockets() {
    for (url, path, db) in [
        ("redis+socket:///run/redis.sock?virtual_host=2", "/run/redis.sock", 2),
        ("socket:///run/redis.sock?virtual_host=/2", "/run/redis.sock", 2),
        ("redis+socket:///run/redis%20x.sock", "/run/redis x.sock", 0),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock", 1),
    ] {
        let endpoint = one(url);
        assert_eq!(endpoint.address, Address::Unix(PathBuf::from(path)), "{url}");
        assert_eq!(endpoint.login.db, db, "{url}");
    }
    assert_eq!(one("socket://:pw@/s?virtual_host=2").login.password, Some(Secret::new("pw")));
}

#[test]
fn tls_parameters() {
    let tls = |url: &str| one(url).login.tls.unwrap();
    assert_eq!(tls("rediss://host"), TlsOptions { is_default: true, ..TlsOptions::new(CertReqs::None) });
    for (word, reqs) in [
        ("none", CertReqs::None),
        ("CERT_NONE", CertReqs::None),
        ("optional", CertReqs::Required),
        ("required", CertReqs::Required),
        ("CERT_REQUIRED", CertReqs::Required),
    ] {
        assert_eq!(tls(&format!("rediss://host?ssl_cert_reqs={word}")), TlsOptions::new(reqs), "{word}");
    }
    let all = tls(
        "rediss://host/0?ssl_ca_certs=%2Fca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k.pem&ssl_check_hostname=False",
    );
    assert_eq!(all.cert_reqs, CertReqs::Required);
    assert_eq!(all.ca_certs, Some(PathBuf::from("/ca.pem")));
    assert_eq!(all.certfile, Some(PathBuf::from("/c.pem")));
    assert_eq!(all.keyfile, Some(PathBuf::from("/k.pem")));
    assert!(!all.check_hostname);
}

#[test]
fn a_result_backend_must_say_how_to_verify() {
    let backend = |url: &str| Servers::parse(url, Role::Backend);
    let said = backend("rediss://host?ssl_ca_certs=ca.pem").unwrap_err();
    assert!(said.contains("`ssl_cert_reqs=required`"), "{said}");
    assert!(backend("rediss://host").is_err());
    assert!(backend("rediss://host?ssl_cert_reqs=none").is_ok());
    assert!(backend("redis://host").is_ok());
}

#[test]
fn lists_and_sentinels() {
    let Ok(Servers::Direct(list)) = parse("redis://a/1;rediss://b:7/2;redis+socket:///s") else { panic!() };
    let addresses: Vec<_> = list.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["a:6379", "b:7", "/s"]);

    let Ok(Servers::Sentinel(sentinels, login)) = parse("sentinel://me:pw@a:7/2;sentinel://b") else {
        panic!()
    };
    let addresses: Vec<_> = sentinels.iter().map(Address::to_string).collect();
    assert_eq!(addresses, ["a:7", "b:26379"]);
    assert_eq!(login.db, 2);
    assert_eq!(login.username.as_deref(), Some("me"));
    assert_eq!(login.password, Some(Secret::new("pw")));

    let Ok(Servers::Sentinel(_, login)) = parse("sentinel://a?ssl_cert_reqs=required") else { panic!() };
    assert_eq!(login.tls, Some(TlsOptions::new(CertReqs::Required)));
}

#[test]
fn databases_of_one_server_are_told_from_others() {
    for (ours, theirs, expect) in [
        ("redis://h/0", "redis://h:6379/3", true),
        ("redis://u:p@h;redis://u:p@i", "redis://u:p@h/1;redis://u:p@i/1", true),
        ("sentinel://a;sentinel://b", "sentinel://a/2;sentinel://b/2", true),
        ("redis://h", "redis://u:p@h", false),
        ("redis://u:p@h", "redis://u:q@h", false),
        ("redis://h", "redis://h:6380", false),
        ("redis://h;redis://i", "redis://h", false),
        ("redis://h", "sentinel://h", false),
    ] {
        let [ours, theirs] = [ours, theirs].map(|url| Servers::parse(url, Role::Broker).unwrap());
        assert_eq!(ours.is_same(&theirs), expect, "{ours:?} {theirs:?}");
    }
}
