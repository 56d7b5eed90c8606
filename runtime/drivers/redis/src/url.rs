//! The URL forms of Celery and kombu (`celery-wire.md` §2.11), taken apart into servers.
//!
//! Passwords leave this module only as [`Secret`]. What is expected instead of a bad URL is said without repeating it.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

use rwork_net::{CertReqs, Parts, Secret, TlsOptions, unknown_parameter};
use rwork_protocol::service::RedactedUrl;

use crate::options::{Role, Transport};

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const EXAMPLE: &str = "`redis://host:6379/0`";

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// Host name or address, without brackets, and port.
    Tcp(String, u16),
    /// A Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Who we are to a server, and what we want there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    /// Database number.
    pub(crate) db: u32,
    pub(crate) tls: Option<TlsOptions>,
}

/// One server and how to enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) address: Address,
    pub(crate) login: Login,
}

impl Endpoint {
    /// `redis://***@host:6379/0`, for people.
    pub(crate) fn url(&self) -> RedactedUrl {
        let Login { username, password, db, tls } = &self.login;
        let user = if username.is_some() || password.is_some() { "***@" } else { "" };
        let address = &self.address;
        RedactedUrl::new(&match address {
            Address::Unix(_) => format!("redis+socket://{user}{address}?virtual_host={db}"),
            Address::Tcp(..) if tls.is_some() => format!("rediss://{user}{address}/{db}"),
            Address::Tcp(..) => format!("redis://{user}{address}/{db}"),
        })
    }
}

/// Whom a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// One server, or several of which any will do.
    Direct(Vec<Endpoint>),
    /// Sentinels that know the master, and how to enter the master.
    Sentinel(Vec<Address>, Login),
}

impl Servers {
    /// Takes a URL apart, or several separated by `;`; otherwise what was expected instead, to follow "expected ".
    pub(crate) fn parse(urls: &str, role: Role) -> Result<Self, String> {
        let parts = urls.split(';').map(|url| Parts::parse(url, EXAMPLE)).collect::<Result<Vec<_>, _>>()?;
        let sentinels = parts.iter().filter(|parts| parts.scheme == "sentinel").count();
        if sentinels == 0 {
            return Ok(Self::Direct(
                parts.into_iter().map(|parts| direct(parts, role)).collect::<Result<_, _>>()?,
            ));
        }
        if sentinels < parts.len() {
            return Err("all URLs of the list to be `sentinel://` or none".to_owned());
        }
        let addresses = parts.iter().map(|parts| tcp(parts, SENTINEL_PORT)).collect::<Result<_, _>>()?;
        // As in kombu, the first entry speaks for the master.
        let first = parts.into_iter().next().ok_or("a URL")?;
        Ok(Self::Sentinel(addresses, login(first, false, role)?))
    }

    /// Whether the other names the same servers and enters them as the same user.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let is_same_login = |ours: &Login, theirs: &Login| {
            (&ours.username, &ours.password) == (&theirs.username, &theirs.password)
        };
        match (self, other) {
            (Self::Direct(ours), Self::Direct(theirs)) => {
                let is_same = |(ours, theirs): (&Endpoint, &Endpoint)| {
                    ours.address == theirs.address && is_same_login(&ours.login, &theirs.login)
                };
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(is_same)
            }
            (Self::Sentinel(ours, login), Self::Sentinel(theirs, other)) => {
                ours == theirs && is_same_login(login, other)
            }
            _ => false,
        }
    }
}

/// Transport options among a URL's parameters, or those of several.
pub(crate) fn parameters(urls: &str) -> impl Iterator<Item = (String, String)> {
    let parts = urls.split(';').filter_map(|url| Parts::parse(url, EXAMPLE).ok());
    parts.flat_map(|parts| parts.query).filter(|(name, _)| Transport::is_url_parameter(name))
}

fn direct(parts: Parts, role: Role) -> Result<Endpoint, String> {
    match parts.scheme.as_str() {
        "redis" => Ok(Endpoint { address: tcp(&parts, PORT)?, login: login(parts, false, role)? }),
        "rediss" => Ok(Endpoint { address: tcp(&parts, PORT)?, login: login(parts, true, role)? }),
        "redis+socket" | "socket" | "unix" => unix(parts),
        _ => Err("`redis://`, `rediss://`, `redis+socket://` or `sentinel://`".to_owned()),
    }
}

fn tcp(parts: &Parts, default_port: u16) -> Result<Address, String> {
    parts.tcp(default_port).map(|(host, port)| Address::Tcp(host, port))
}

/// Credentials, database and TLS of a TCP server.
fn login(parts: Parts, secure: bool, role: Role) -> Result<Login, String> {
    let mut tls: Option<TlsOptions> = None;
    let mut has_cert_reqs = false;
    for (name, value) in parts.query.iter().filter(|(name, _)| !Transport::is_url_parameter(name)) {
        let options = tls.get_or_insert_with(|| TlsOptions::new(CertReqs::Required));
        if !options.set(name, value)? {
            return Err(unknown_parameter(name, rwork_net::parameters()));
        }
        has_cert_reqs |= name == "ssl_cert_reqs";
    }
    if tls.is_some() && !secure && parts.scheme == "redis" {
        return Err("`rediss://` where there are TLS parameters".to_owned());
    }
    if secure && role == Role::Backend && !has_cert_reqs {
        return Err(
            "`ssl_cert_reqs=required`, `optional` or `none` as a parameter of a `rediss://` result backend"
                .to_owned(),
        );
    }
    if secure && tls.is_none() {
        // Celery's broker does so too; connecting warns.
        tls = Some(TlsOptions::unverified_by_default());
    }
    let db = database(&parts.path)?;
    Ok(Login { username: parts.username, password: parts.password, db, tls })
}

fn unix(parts: Parts) -> Result<Endpoint, String> {
    let mut login = Login { username: parts.username, password: parts.password, ..Login::default() };
    for (name, value) in &parts.query {
        match name.as_str() {
            "virtual_host" | "db" => login.db = database(value)?,
            name if Transport::is_url_parameter(name) => {}
            _ => return Err(format!("the parameter `virtual_host`, not `{name}`")),
        }
    }
    if parts.path.is_empty() || parts.path == "/" || !parts.host.is_empty() {
        return Err("the path of a Unix socket after `redis+socket://`".to_owned());
    }
    Ok(Endpoint { address: Address::Unix(PathBuf::from(parts.path)), login })
}

/// `/3` and `//3` both mean 3; nothing means 0.
fn database(path: &str) -> Result<u32, String> {
    let number = path.trim_start_matches('/');
    if number.is_empty() {
        return Ok(0);
    }
    number.parse().map_err(|_| format!("the database to be a number (not `{number}`)"))
}
