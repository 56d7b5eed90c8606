//! Where a request goes: scheme, host and port in one canonical form.
//!
//! Grants and requests are read by the same function, and what is sent (look-up, TLS name, `Host` header) is written
//! from its result, so that no two parsers can disagree about the host.

use std::fmt;
use std::net::IpAddr;

use url::Url;

/// The longest host name, in bytes (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
/// The longest label of a host name, in bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// `http` or `https`; nothing else leaves the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The scheme of that name, in any case.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("http") {
            Some(Self::Http)
        } else if name.eq_ignore_ascii_case("https") {
            Some(Self::Https)
        } else {
            None
        }
    }

    /// The port that is left out when written.
    pub(super) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A host in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostName {
    /// ASCII, lower case, without a trailing dot; IDNA already applied.
    Name(String),
    /// An address literal, in any notation that the URL standard reads as one.
    Address(IpAddr),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// One place that a request can go to. Displays as an origin: `https://api.example.com`, `http://[::1]:8080`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Scheme.
    pub scheme: Scheme,
    /// Host.
    pub host: HostName,
    /// Port, 1 to 65535; the scheme's own when none was given.
    pub port: u16,
}

impl Destination {
    /// The destination of a request.
    ///
    /// # Errors
    /// A text that says what is wrong with the URI.
    pub(super) fn of(uri: &http::Uri) -> Result<Self, &'static str> {
        let scheme = uri.scheme_str().and_then(Scheme::from_name).ok_or("expected `http` or `https`")?;
        let authority = uri.authority().ok_or("expected a host")?;
        Self::parse(scheme, authority.as_str())
    }

    /// Reads `host` or `host:port`.
    ///
    /// # Errors
    /// A text that says what is wrong.
    pub(super) fn parse(scheme: Scheme, authority: &str) -> Result<Self, &'static str> {
        if authority.contains('@') {
            return Err("expected no user name or password before the host");
        }
        // The URL standard would take these as the end of the host, or silently remove or decode them.
        let foreign = |c: char| c.is_whitespace() || c.is_control() || "/\\?#%".contains(c);
        if authority.is_empty() || authority.contains(foreign) {
            return Err(HOST_EXPECTED);
        }
        let url = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| HOST_EXPECTED)?;
        let host = match url.host().ok_or(HOST_EXPECTED)? {
            url::Host::Domain(name) => HostName::Name(check_name(name)?),
            url::Host::Ipv4(address) => HostName::Address(address.into()),
            url::Host::Ipv6(address) => HostName::Address(address.into()),
        };
        match url.port().unwrap_or(scheme.default_port()) {
            0 => Err("expected a port from 1 to 65535"),
            port => Ok(Self { scheme, host, port }),
        }
    }

    /// What follows `scheme://`, and what the `Host` header says: the port only when it isn't the scheme's own.
    pub(super) fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

const HOST_EXPECTED: &str =
    "expected `host` or `host:port`, the host a name, an IPv4 address or an IPv6 address in brackets";

/// Takes one trailing dot off; `name` is ASCII and lower case already.
fn check_name(name: &str) -> Result<String, &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label_is_good = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    };
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(label_is_good) {
        Ok(name.to_owned())
    } else {
        Err("expected labels of 1 to 63 letters, digits, `-` or `_`, in all 253 bytes at most")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(uri: &str, expect: Result<&str, &str>) {
        let found = Destination::of(&uri.parse().unwrap());
        match (found, expect) {
            (Ok(found), Ok(expect)) => assert_eq!(found.to_string(), expect, "{uri}"),
            (Err(found), Err(expect)) => assert!(found.contains(expect), "{uri}: {found}"),
            (found, _) => panic!("{uri}: {found:?}"),
        }
    }

    #[test]
    fn a_uri_that_could_mislead_is_refused() {
        check("/path", Err("`http` or `https`"));
        check("ftp://a.example/", Err("`http` or `https`"));
        check("http://user@a.example/", Err("user name"));
        check("http://user:secret@a.example/", Err("user name"));
        check("http://good.example@127.0.0.1/", Err("user name"));
        check("http://a.example:0/", Err("port"));
        check("http://a.example:65536/", Err("host:port"));
        check("http://a..example/", Err("labels"));
        check("http://a.example../", Err("labels"));
        check("http://a*.example/", Err("labels"));
        check("http://256.256.256.256/", Err("host:port"));
        check("http://1.2.3.4.5/", Err("host:port"));
    }

    #[test]
    fn a_host_holds_nothing_that_the_url_standard_would_remove_decode_or_end_it_at() {
        for host in ["", "a b", "a\tb", "a\n", "a/b", "a\\b", "a?b", "a#b", "%61", "[fe80::1%25eth0]"] {
            assert!(Destination::parse(Scheme::Http, host).is_err(), "{host}");
        }
    }

    #[test]
    fn every_notation_of_a_host_becomes_one() {
        for (uri, expect) in [
            ("http://A.Example/", "http://a.example"),
            ("HTTPS://A.EXAMPLE:443/", "https://a.example"),
            ("http://a.example.:80/", "http://a.example"),
            ("https://a.example:80/", "https://a.example:80"),
            ("http://a.example:/", "http://a.example"),
            ("http://2130706433/", "http://127.0.0.1"),
            ("http://0x7f.1/", "http://127.0.0.1"),
            ("http://0177.0.0.1/", "http://127.0.0.1"),
            ("http://127.0.0.1./", "http://127.0.0.1"),
            ("http://[::FFFF:10.0.0.1]:8080/", "http://[::ffff:10.0.0.1]:8080"),
            ("http://[0:0:0:0:0:0:0:1]/", "http://[::1]"),
        ] {
            check(uri, Ok(expect));
        }
    }

    #[test]
    fn a_name_in_another_script_becomes_ascii() {
        let found = Destination::parse(Scheme::Https, "Bücher.example").unwrap();
        assert_eq!(found.to_string(), "https://xn--bcher-kva.example");
        // A full stop of another script separates labels just the same.
        let found = Destination::parse(Scheme::Https, "a。example").unwrap();
        assert_eq!(found.to_string(), "https://a.example");
    }
}
