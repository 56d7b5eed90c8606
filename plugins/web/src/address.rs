//! The parts of an `http` or `https` address that a request needs.

use std::fmt;

use rwork::TaskError;

/// An absolute address, without its fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) secure: bool,
    /// Host and port, as written.
    pub(crate) authority: String,
    /// Begins with `/`.
    pub(crate) path: String,
    /// Without `?`.
    pub(crate) query: Option<String>,
}

impl Address {
    /// Takes an address apart.
    ///
    /// # Errors
    ///
    /// `ValueError` when it is not `http://…` or `https://…`, or carries a user name.
    pub(crate) fn parse(url: &str) -> Result<Self, TaskError> {
        let wrong = || {
            TaskError::new("ValueError", format!("expected an http or https address, got `{url}`"))
                .not_retryable()
        };
        let (scheme, rest) = url.trim().split_once("://").ok_or_else(wrong)?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        // `user:password@host` is how a look-alike hides the real host; credentials belong into a header.
        let plain = |character: char| character.is_ascii_graphic() && !"@\\<>\"".contains(character);
        if authority.is_empty() || !authority.chars().all(plain) {
            return Err(wrong());
        }
        let (path, query) = split_target(target);
        Ok(Self { secure, authority: authority.to_owned(), path: rooted(path), query })
    }

    /// The address that a reference on this page leads to (RFC 3986, 5.2).
    ///
    /// # Errors
    ///
    /// As [`Address::parse`].
    pub(crate) fn join(&self, reference: &str) -> Result<Self, TaskError> {
        let reference = reference.trim();
        if let Some(rest) = reference.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme()));
        }
        if has_scheme(reference) {
            return Self::parse(reference);
        }
        let (path, query) = split_target(reference);
        let (path, query) = match path {
            "" => (self.path.clone(), query.or_else(|| self.query.clone())),
            absolute if absolute.starts_with('/') => (without_dots(absolute), query),
            relative => {
                let folder = self.path.rfind('/').and_then(|slash| self.path.get(..=slash)).unwrap_or("/");
                (without_dots(&format!("{folder}{relative}")), query)
            }
        };
        Ok(Self { path, query, ..self.clone() })
    }

    /// `http` or `https`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// What a request asks for: the path with its query.
    pub(crate) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.authority, self.target())
    }
}

/// Path and query; the fragment is the reader's own affair.
fn split_target(target: &str) -> (&str, Option<String>) {
    let sent = target.split('#').next().unwrap_or_default();
    match sent.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (sent, None),
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn has_scheme(reference: &str) -> bool {
    reference.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character))
    })
}

fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                // `/a/.` is the folder `/a/`.
                if segments.peek().is_none() {
                    kept.push("");
                }
            }
            other => kept.push(other),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        for (url, wanted) in [
            ("example.com", None),
            ("ftp://example.com/", None),
            ("http://", None),
            ("http:///path", None),
            ("http://user@example.com/", None),
            ("http://exa mple.com/", None),
            ("javascript:alert(1)", None),
            ("http://example.com", Some("http://example.com/")),
            ("HTTPS://example.com:8443?q#f", Some("https://example.com:8443/?q")),
            ("http://[::1]:80/a/b?c=d/e#f", Some("http://[::1]:80/a/b?c=d/e")),
        ] {
            assert_eq!(
                Address::parse(url).ok().map(|address| address.to_string()).as_deref(),
                wanted,
                "{url}"
            );
        }
    }

    #[test]
    fn references_are_resolved() {
        let base = Address::parse("http://a.example/b/c/d?q").unwrap();
        // From the examples of RFC 3986, 5.4.
        for (reference, wanted) in [
            ("g", "http://a.example/b/c/g"),
            ("./g", "http://a.example/b/c/g"),
            ("g/", "http://a.example/b/c/g/"),
            ("/g", "http://a.example/g"),
            ("//g", "http://g/"),
            ("?y", "http://a.example/b/c/d?y"),
            ("#s", "http://a.example/b/c/d?q"),
            ("", "http://a.example/b/c/d?q"),
            (".", "http://a.example/b/c/"),
            ("..", "http://a.example/b/"),
            ("../g", "http://a.example/b/g"),
            ("../../../g", "http://a.example/g"),
            ("/./g", "http://a.example/g"),
            ("https://b.example", "https://b.example/"),
        ] {
            assert_eq!(base.join(reference).unwrap().to_string(), wanted, "{reference}");
        }
        assert!(base.join("mailto:a@b.example").is_err());
    }
}
