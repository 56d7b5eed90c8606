//! What an allow-list lets through, and what only looks like it.

use proptest::prelude::*;

use super::*;

fn check_refused(entry: &str, expected: &str, fix: &str) {
    let error = entry.parse::<HttpGrant>().unwrap_err();
    assert!(error.expected.contains(expected), "{entry}: {error}");
    assert!(error.hint().contains(fix), "{entry}: {}", error.hint());
}

#[test]
fn an_entry_that_cannot_be_meant_is_refused_with_its_fix() {
    for (entry, expected, fix) in [
        ("", "`http://` or `https://`", "https://api.example.com"),
        ("api.example.com", "`http://` or `https://`", "https://api.example.com"),
        ("*", "`http://` or `https://`", "https://*"),
        ("https:api.example.com", "`http://` or `https://`", "write"),
        ("ftp://a.example", "the scheme", "https://HOST"),
        (" https://a.example", "the scheme", "https://HOST"),
        ("https://", "`host`", "https://HOST"),
        ("https:// a.example", "`host`", "https://HOST"),
        ("https://a.example ", "`host`", "https://HOST"),
        ("https://a.ex\tample", "`host`", "https://HOST"),
        ("https://a.example\\b", "`host`", "https://HOST"),
        ("https://a%2eexample", "`host`", "https://HOST"),
        ("https://a.example/v1", "no path", "https://a.example`"),
        ("https://a.example?x", "no path", "https://a.example`"),
        ("https://a.example#x", "no path", "https://a.example`"),
        ("https://a.example//", "no path", "https://a.example`"),
        ("https://user@a.example", "no user name", "HOST"),
        ("https://user:pass@a.example", "no user name", "HOST"),
        ("https://a.example:0", "a port from 1", "HOST:PORT"),
        ("https://a.example:65536", "`host:port`", "HOST:PORT"),
        ("https://a.example:http", "`host:port`", "HOST:PORT"),
        ("https://a..example", "labels", "HOST"),
        ("https://.example", "labels", "HOST"),
        ("https://[::1", "`host`", "HOST"),
        ("https://::1", "`host`", "HOST"),
        ("https://[fe80::1%25eth0]", "`host`", "HOST"),
        ("http://[::ffff:10.0.0.1]", "no IPv4 address inside", "http://10.0.0.1:80"),
        ("https://*", "`*` only as the whole first label", "*.example.com"),
        ("https://*cdn.example", "`*` only as the whole first label", "*.example.com"),
        ("https://a.*.example", "`*` only as the whole first label", "*.example.com"),
        ("https://a*.example", "`*` only as the whole first label", "*.example.com"),
        ("https://*.*.example", "one `*`", "*.example.com"),
        ("https://*.", "`host`", "HOST"),
        ("https://*.com", "two labels", "*.example.com"),
        ("https://*.localhost", "two labels", "*.example.com"),
        ("https://*.10.0.0.1", "two labels", "*.example.com"),
        ("https://*.[::1]", "two labels", "*.example.com"),
    ] {
        check_refused(entry, expected, fix);
    }
}

#[test]
fn an_error_names_the_entry_without_its_control_characters() {
    let error = "https://a\u{1b}[31m".parse::<HttpGrant>().unwrap_err();
    assert_eq!(error.entry, "https://a\\u{1b}[31m");
    let many = vec!["https://a.example"; 257];
    assert!(AllowList::parse(many).unwrap_err().to_string().contains("at most 256 entries"));
}

#[test]
fn an_entry_is_shown_in_its_canonical_form() {
    for (entry, shown) in [
        ("https://api.example.com", "https://api.example.com"),
        ("HTTPS://API.Example.COM./", "https://api.example.com"),
        ("https://api.example.com:443", "https://api.example.com"),
        ("http://api.example.com:443", "http://api.example.com:443"),
        ("https://*.CDN.example", "https://*.cdn.example"),
        ("https://*.cdn.example:8443", "https://*.cdn.example:8443"),
        ("http://127.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://[0::1]:80", "http://[::1]"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://*.bücher.example", "https://*.xn--bcher-kva.example"),
    ] {
        assert_eq!(entry.parse::<HttpGrant>().unwrap().to_string(), shown, "{entry}");
    }
}

#[test]
fn a_destination_matches_by_scheme_host_and_port() {
    let list = AllowList::parse([
        "https://api.example.com",
        "https://*.cdn.example",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://localhost:8080",
    ])
    .unwrap();
    let check = |uri: &str, expect: bool| {
        let destination = Destination::of(&uri.parse().unwrap()).unwrap();
        assert_eq!(list.matches(&destination), expect, "{uri}");
    };
    for uri in [
        "http://api.example.com/",
        "https://api.example.com:8443/",
        "https://example.com/",
        "https://x.api.example.com/",
        "https://api.example.com.evil.example/",
        "https://cdn.example/",
        "https://evil-cdn.example/",
        "https://a.evil-cdn.example/",
        "https://a.b.cdn.example/",
        "https://a.cdn.example.evil.example/",
        "https://a.cdn.example:8443/",
        "http://a.cdn.example/",
        "http://127.0.0.1/",
        "http://127.0.0.2:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://a.localhost:8080/",
        "http://localhost/",
    ] {
        check(uri, false);
    }
    for uri in [
        "https://api.example.com/",
        "https://api.example.com:443/path?query",
        "https://API.EXAMPLE.COM/",
        "https://api.example.com./",
        "https://a.cdn.example/",
        "https://A.CDN.Example./",
        "http://127.0.0.1:8080/",
        "http://2130706433:8080/",
        "http://[::1]:8080/",
        "http://localhost:8080/",
        "http://LocalHost.:8080/",
    ] {
        check(uri, true);
    }
    assert!(!AllowList::default().matches(&Destination::of(&"https://a.example".parse().unwrap()).unwrap()));
}

#[test]
fn an_address_that_is_not_public_has_to_be_named() {
    let list = AllowList::parse([
        "http://localhost:80",
        "http://minio.internal:9000",
        "http://10.0.0.5:9000",
        "https://other.internal",
        "http://*.wild.internal:9000",
        "http://169.254.169.254",
    ])
    .unwrap();
    let check = |uri: &str, address: &str, expect: Option<AddressClass>| {
        let destination = Destination::of(&uri.parse().unwrap()).unwrap();
        assert_eq!(list.refuses(&destination, address.parse().unwrap()), expect, "{uri} at {address}");
    };
    check("http://localhost/", "10.0.0.5", Some(AddressClass::Private));
    check("http://minio.internal:9000/", "127.0.0.1", Some(AddressClass::Loopback));
    check("http://minio.internal:9000/", "10.0.0.6", Some(AddressClass::Private));
    check("http://minio.internal:9000/", "64:ff9b::10.0.0.5", Some(AddressClass::Private));
    check("https://other.internal/", "10.0.0.5", Some(AddressClass::Private));
    check("http://a.wild.internal:9000/", "10.0.0.5", Some(AddressClass::Private));
    check("http://10.0.0.5:9000/", "10.0.0.6", Some(AddressClass::Private));

    check("http://localhost/", "127.0.0.1", None);
    check("http://localhost/", "::1", None);
    check("http://minio.internal:9000/", "10.0.0.5", None);
    check("http://minio.internal:9000/", "::ffff:10.0.0.5", None);
    check("http://minio.internal:9000/", "93.184.216.34", None);
    check("http://a.wild.internal:9000/", "93.184.216.34", None);
    check("http://10.0.0.5:9000/", "10.0.0.5", None);
    check("http://169.254.169.254/", "169.254.169.254", None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(entry in "\\PC{0,40}") {
        let _ = entry.parse::<HttpGrant>();
    }

    #[test]
    fn what_is_accepted_reads_the_same_when_shown(
        scheme in "https?|HTTP",
        star in "(\\*\\.)?",
        host in "([a-zA-Z0-9_üßéжあ-]{1,8}\\.){0,3}[a-z0-9\u{130}xn-]{1,6}\\.?|\\[[0-9a-f:.]{2,20}\\]|[0-9x]{1,4}(\\.[0-9x]{1,4}){0,4}",
        port in "(:[0-9]{0,5})?",
        end in "/?",
    ) {
        let entry = format!("{scheme}://{star}{host}{port}{end}");
        if let Ok(grant) = entry.parse::<HttpGrant>() {
            let shown = grant.to_string();
            let again = shown.parse::<HttpGrant>();
            prop_assert_eq!(Ok(&grant), again.as_ref(), "{} shown as {}", entry, shown);
        }
    }

    #[test]
    fn an_exact_entry_matches_itself_and_no_other_host(
        host in "[a-z]{1,6}(\\.[a-z]{1,6}){1,3}", other in "[a-z]{1,6}(\\.[a-z]{1,6}){1,3}",
    ) {
        let list = AllowList::parse([format!("https://{host}")]).unwrap();
        let to = |host: &str| Destination::of(&format!("https://{host}/").parse().unwrap()).unwrap();
        prop_assert!(list.matches(&to(&host)));
        prop_assert_eq!(list.matches(&to(&other)), host == other);
    }
}
