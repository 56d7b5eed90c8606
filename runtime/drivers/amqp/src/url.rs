//! The URL forms of Celery and kombu (`celery-wire.md` §3.6), taken apart into servers.
//!
//! Passwords leave this module only as [`Secret`]. What is expected instead of a bad URL is said without repeating it.

#[cfg(test)]
mod tests;

use std::fmt;

use rwork_net::{CertReqs, Parts, Secret, TlsOptions, unknown_parameter};
use rwork_protocol::service::RedactedUrl;

const EXAMPLE: &str = "`amqp://user:password@host:5672/vhost`";
const PORT: u16 = 5672;
const TLS_PORT: u16 = 5671;
/// Whom every new RabbitMQ knows, on loopback only.
const GUEST: &str = "guest";
const VHOST: &str = "/";
const HEARTBEAT: &str = "heartbeat";
/// AMQP's short strings hold a length of one byte.
const VHOST_BYTES_MAX: usize = 255;

/// One server and how to enter it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Host name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) username: String,
    pub(crate) password: Secret,
    pub(crate) vhost: String,
    /// Seconds; none: as the options say.
    pub(crate) heartbeat_s: Option<u16>,
    pub(crate) tls: Option<TlsOptions>,
}

impl Endpoint {
    /// Takes a URL apart, or several separated by `;`; otherwise what was expected instead, to follow "expected ".
    pub(crate) fn parse(urls: &str) -> Result<Vec<Self>, String> {
        urls.split(';').map(|url| one(Parts::parse(url, EXAMPLE)?)).collect()
    }

    /// `amqp://***@host:5672/vhost`, for people.
    pub(crate) fn url(&self) -> RedactedUrl {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        let vhost = self.vhost.replace('%', "%25").replace('/', "%2F");
        let vhost = if self.vhost == VHOST { "" } else { vhost.as_str() };
        RedactedUrl::new(&format!("{scheme}://***@{}/{vhost}", Place(&self.host, self.port)))
    }
}

/// Host and port.
struct Place<'a>(&'a str, u16);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(host, port) = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

fn one(parts: Parts) -> Result<Endpoint, String> {
    let secure = match parts.scheme.as_str() {
        "amqp" | "pyamqp" | "librabbitmq" => false,
        "amqps" | "pyamqps" => true,
        _ => return Err("`amqp://` or `amqps://`".to_owned()),
    };
    let (host, port) = parts.tcp(if secure { TLS_PORT } else { PORT })?;
    let (tls, heartbeat_s) = parameters(&parts, secure)?;
    Ok(Endpoint {
        host,
        port,
        vhost: vhost(&parts)?,
        username: parts.username.unwrap_or_else(|| GUEST.to_owned()),
        password: parts.password.unwrap_or_else(|| Secret::new(GUEST)),
        heartbeat_s,
        tls,
    })
}

fn parameters(parts: &Parts, secure: bool) -> Result<(Option<TlsOptions>, Option<u16>), String> {
    // Whoever says `amqps` and no more is not handed to anybody who happens to answer.
    let mut tls = secure.then(|| TlsOptions::new(CertReqs::Required));
    let mut heartbeat_s = None;
    for (name, value) in &parts.query {
        match (name.as_str(), tls.as_mut()) {
            (HEARTBEAT, _) => {
                let expected = || format!("`{HEARTBEAT}` to be seconds of 0..=65535 (not `{value}`)");
                heartbeat_s = Some(value.parse().map_err(|_| expected())?);
            }
            ("ssl", _) if TlsOptions::truth(value) == Some(secure) => {}
            ("ssl", _) => return Err("`amqps://` where TLS is asked for".to_owned()),
            (name, Some(tls)) => {
                if !tls.set(name, value)? {
                    return Err(unknown(name));
                }
            }
            (name, None) if rwork_net::parameters().contains(&name) => {
                return Err("`amqps://` where there are TLS parameters".to_owned());
            }
            (name, None) => return Err(unknown(name)),
        }
    }
    Ok((tls, heartbeat_s))
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> =
        std::iter::once(HEARTBEAT).chain(rwork_net::parameters().iter().copied()).collect();
    unknown_parameter(name, &known)
}

/// Nothing and `/` mean the default virtual host `/`, as `%2F` does; one slash is the separator.
fn vhost(parts: &Parts) -> Result<String, String> {
    let name = parts.path.strip_prefix('/').unwrap_or(&parts.path);
    if name.len() > VHOST_BYTES_MAX {
        return Err(format!("a virtual host of at most {VHOST_BYTES_MAX} bytes (not {})", name.len()));
    }
    Ok(if name.is_empty() { VHOST.to_owned() } else { name.to_owned() })
}
