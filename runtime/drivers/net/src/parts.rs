//! One URL in its parts, percent-decoded. Not the `url` crate: Celery's forms allow an empty host, and it does not.

use crate::Secret;

/// Where no host is named.
const HOST: &str = "localhost";

/// A URL's parts.
#[derive(Debug)]
pub struct Parts {
    /// Before `://`, in small letters.
    pub scheme: String,
    /// None when empty.
    pub username: Option<String>,
    /// None when empty.
    pub password: Option<Secret>,
    /// Still with its port.
    pub host: String,
    /// With its first slash.
    pub path: String,
    /// Parameters, in their order.
    pub query: Vec<(String, String)>,
}

impl Parts {
    /// Takes a URL apart; `example` is what a good one looks like.
    ///
    /// # Errors
    /// What was expected instead, to follow "expected ".
    pub fn parse(url: &str, example: &str) -> Result<Self, String> {
        let (scheme, rest) = url.trim().split_once("://").ok_or(example)?;
        let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, after) = rest.split_at(authority_end);
        // One of these in a password would end the host early, and the password would be taken for something else and shown.
        if !authority.contains('@') && after.split('=').next().is_some_and(|before| before.contains('@')) {
            return Err("a password with its special characters percent-encoded (`/` as `%2F`, `?` as `%3F`, `#` as `%23`)"
                .to_owned());
        }
        let after = after.split('#').next().unwrap_or_default();
        let (path, query) = after.split_once('?').unwrap_or((after, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (username, password) =
            user.split_once(':').map_or((user, None), |(name, word)| (name, Some(word)));
        let present = |text: &str| if text.is_empty() { Ok(None) } else { decode(text).map(Some) };
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            username: present(username)?,
            password: present(password.unwrap_or_default())?.as_deref().map(Secret::new),
            host: decode(host)?,
            path: decode(path)?,
            query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect::<Result<_, _>>()?,
        })
    }

    /// Host (without brackets) and port; either may be missing.
    ///
    /// # Errors
    /// What was expected instead, to follow "expected ".
    pub fn tcp(&self, default_port: u16) -> Result<(String, u16), String> {
        let (host, port) = match self.host.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("`]` after an IPv6 address")?;
                (host, after.strip_prefix(':'))
            }
            None => match self.host.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (self.host.as_str(), None),
            },
        };
        if host.contains(':') && !self.host.starts_with('[') {
            return Err("an IPv6 address to be in brackets".to_owned());
        }
        let port = match port.filter(|port| !port.is_empty()) {
            None => default_port,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("the port to be a number of 1..=65535 (not `{text}`)"))?,
        };
        let host = if host.is_empty() { HOST } else { host };
        Ok((host.to_owned(), port))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}=VALUE`"))?;
    Ok((decode(name)?, decode(value)?))
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(), digit());
        // Two hexadecimal digits always fit a byte.
        let decoded = high.zip(low).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        out.push(decoded.ok_or("two hexadecimal digits after each `%` (a `%` itself is `%25`)")?);
    }
    String::from_utf8(out).map_err(|_| "percent-encoded UTF-8".to_owned())
}
