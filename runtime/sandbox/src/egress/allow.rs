//! The operator's allow-list: which destinations a plugin may reach, and which addresses it names.
//!
//! Entries are read once, when the plugin's grants are read. Nothing here looks anything up.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::address::{AddressClass, class_of};
use super::destination::{Destination, HostName, Scheme};

/// Entries of one plugin; each request walks them.
const ENTRIES_MAX: usize = 256;

/// The destinations that one plugin may reach. Empty: none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList(Vec<HttpGrant>);

impl AllowList {
    /// Reads the operator's entries.
    ///
    /// # Errors
    /// The first entry that can't be read, or too many of them.
    pub fn parse<I>(entries: I) -> Result<Self, HttpGrantError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut grants = Vec::new();
        for entry in entries {
            let entry = entry.as_ref();
            if grants.len() == ENTRIES_MAX {
                return Err(error(entry, format!("at most {ENTRIES_MAX} entries"), "use a wildcard entry"));
            }
            grants.push(entry.parse()?);
        }
        Ok(Self(grants))
    }

    /// Whether nothing at all is granted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, in the operator's order.
    pub fn entries(&self) -> impl Iterator<Item = &HttpGrant> {
        self.0.iter()
    }

    /// Whether an entry names this destination. Addresses are judged later, by [`AllowList::refuses`].
    pub fn matches(&self, destination: &Destination) -> bool {
        self.0.iter().any(|grant| grant.matches(destination))
    }

    /// Why a resolved address of a granted destination may not be connected to; none when it may.
    ///
    /// A public address always may. Any other has to be named: by an entry of that very address, which the request
    /// itself uses or which stands beside an entry for the exact host (same scheme and port), or, for loopback, by an
    /// entry for `localhost` that the request uses. A wildcard names no address.
    pub fn refuses(&self, destination: &Destination, address: IpAddr) -> Option<AddressClass> {
        let class = class_of(address)?;
        if self.names(destination, address, class) { None } else { Some(class) }
    }

    fn names(&self, destination: &Destination, address: IpAddr, class: AddressClass) -> bool {
        let exact = |host: &HostName| {
            let wanted = HostPattern::Exact(host.clone());
            let same =
                |grant: &&HttpGrant| grant.scheme == destination.scheme && grant.port == destination.port;
            self.0.iter().filter(same).any(|grant| grant.host == wanted)
        };
        match &destination.host {
            HostName::Address(literal) => *literal == address && exact(&destination.host),
            HostName::Name(name) => {
                let loopback = name == "localhost" && class == AddressClass::Loopback;
                exact(&destination.host) && (loopback || exact(&HostName::Address(address.to_canonical())))
            }
        }
    }
}

/// One entry: scheme, host or wildcard, port. Displays as an entry that reads as the same one again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGrant {
    scheme: Scheme,
    host: HostPattern,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostPattern {
    Exact(HostName),
    /// `*.NAME`: any one label before this name.
    Below(String),
}

impl HttpGrant {
    fn matches(&self, destination: &Destination) -> bool {
        self.scheme == destination.scheme
            && self.port == destination.port
            && match (&self.host, &destination.host) {
                (HostPattern::Exact(granted), host) => granted == host,
                (HostPattern::Below(base), HostName::Name(name)) => is_one_label_below(name, base),
                (HostPattern::Below(_), HostName::Address(_)) => false,
            }
    }
}

fn is_one_label_below(name: &str, base: &str) -> bool {
    name.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == base)
}

/// An entry of `http` grants that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} in the http grant `{entry}`")]
pub struct HttpGrantError {
    /// The entry, made printable.
    pub entry: String,
    /// What should have been there.
    pub expected: String,
    fix: String,
}

impl HttpGrantError {
    /// What to write instead.
    pub fn hint(&self) -> &str {
        &self.fix
    }
}

fn error(entry: &str, expected: impl Into<String>, fix: impl Into<String>) -> HttpGrantError {
    let entry = entry.chars().take(200).flat_map(char::escape_debug).collect();
    HttpGrantError { entry, expected: expected.into(), fix: fix.into() }
}

impl FromStr for HttpGrant {
    type Err = HttpGrantError;

    fn from_str(entry: &str) -> Result<Self, HttpGrantError> {
        let (scheme, rest) = entry.split_once("://").ok_or_else(|| {
            error(
                entry,
                "`http://` or `https://` in front",
                format!("write `https://{}`", example_host(entry)),
            )
        })?;
        let scheme = Scheme::from_name(scheme).ok_or_else(|| {
            error(entry, "the scheme `http` or `https`", "only HTTP is granted here; write `https://HOST`")
        })?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
            let fix = format!("grants are for whole origins: write `{scheme}://{}`", example_host(host));
            return Err(error(entry, "no path, query or fragment", fix));
        }
        match authority.strip_prefix("*.") {
            Some(base) => wildcard(entry, scheme, base),
            None => exact(entry, scheme, authority),
        }
    }
}

fn exact(entry: &str, scheme: Scheme, authority: &str) -> Result<HttpGrant, HttpGrantError> {
    if authority.contains('*') {
        let fix = format!("write `{scheme}://*.example.com`, or list the hosts one by one");
        return Err(error(entry, "`*` only as the whole first label", fix));
    }
    let Destination { scheme, host, port } = destination(entry, scheme, authority)?;
    if let HostName::Address(address) = host
        && address != address.to_canonical()
    {
        let fix = format!("write the IPv4 address itself: `{scheme}://{}:{port}`", address.to_canonical());
        return Err(error(entry, "no IPv4 address inside an IPv6 one", fix));
    }
    Ok(HttpGrant { scheme, host: HostPattern::Exact(host), port })
}

fn wildcard(entry: &str, scheme: Scheme, base: &str) -> Result<HttpGrant, HttpGrantError> {
    if base.contains('*') {
        return Err(error(entry, "one `*`", format!("write `{scheme}://*.example.com`")));
    }
    let Destination { scheme, host, port } = destination(entry, scheme, base)?;
    match host {
        HostName::Name(base) if base.contains('.') => {
            Ok(HttpGrant { scheme, host: HostPattern::Below(base), port })
        }
        _ => {
            let fix = format!("name the domain, as in `{scheme}://*.example.com`");
            Err(error(entry, "a domain of two labels or more after `*.`", fix))
        }
    }
}

fn destination(entry: &str, scheme: Scheme, authority: &str) -> Result<Destination, HttpGrantError> {
    Destination::parse(scheme, authority).map_err(|fault| {
        let expected = fault.strip_prefix("expected ").unwrap_or(fault);
        error(entry, expected, format!("write `{scheme}://HOST` or `{scheme}://HOST:PORT`"))
    })
}

/// The entry's own text when it looks like a host, else an example.
fn example_host(text: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:*".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { "api.example.com" }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exact(host) => write!(f, "{}://{host}", self.scheme)?,
            HostPattern::Below(base) => write!(f, "{}://*.{base}", self.scheme)?,
        }
        if self.port == self.scheme.default_port() { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}
