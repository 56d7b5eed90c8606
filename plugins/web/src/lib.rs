//! Fetches web pages from granted origins.
//!
//! ```text
//! rwork call web.fetch https://example.com/ --wait
//! ```
//!
//! A plugin reaches no origin but those that the operator grants it in `rwork.toml`; anything else, a redirect to it
//! included, is a `PermissionError`:
//!
//! ```toml
//! [plugins.web.grants]
//! http = ["https://example.com", "https://*.example.org"]
//! ```
//!
//! A task that waits for an answer holds no CPU slot of the worker, so thousands can wait at once. Its soft time limit ends
//! the waiting.

mod address;
#[cfg_attr(target_family = "wasm", path = "exchange/guest.rs")]
#[cfg_attr(not(target_family = "wasm"), path = "exchange/native.rs")]
mod exchange;
mod page;

use rwork::{Context, TaskError};
use serde::Serialize;

use address::Address;

/// Redirects that are followed before a page is given up; what browsers and libraries stop at is 5 to 20.
const REDIRECTS_MAX: usize = 5;

/// Bytes of a body that are read when the caller names no number: 1 MiB.
const BODY_BYTES: usize = 1 << 20;

/// The most bytes of a body that a caller may ask for, so that the result stays within the worker's limit: 8 MiB.
const BODY_BYTES_MAX: usize = 8 << 20;

/// An answer of a server, as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The server sent more than was read.
    truncated: bool,
}

/// A page.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// The address that it came from, after redirects.
    url: String,
    status: u16,
    /// Names in lower case, in the order sent.
    headers: Vec<(String, String)>,
    /// The body's text; bytes that are no UTF-8 are replaced.
    body: String,
    /// Whether the server had more than was read.
    truncated: bool,
    /// What is between `<title>` and `</title>`.
    title: Option<String>,
}

/// Fetches a page with GET, following redirects.
#[rwork::task(soft_time_limit = "30s", time_limit = "60s", autoretry_for = [ConnectionError, ConnectionRefusedError, TimeoutError], retry_backoff)]
pub fn fetch(ctx: &Context, url: &str, max_bytes: Option<usize>) -> Result<Page, TaskError> {
    let max_bytes = max_bytes.unwrap_or(BODY_BYTES);
    if max_bytes > BODY_BYTES_MAX {
        return Err(TaskError::new(
            "ValueError",
            format!("expected `max_bytes` to be at most {BODY_BYTES_MAX}"),
        ));
    }
    follow(url, |address| exchange::get(ctx, address, max_bytes))
}

/// Asks for a page, and for the page that it refers to, until one is the last.
fn follow(url: &str, mut get: impl FnMut(&Address) -> Result<Answer, TaskError>) -> Result<Page, TaskError> {
    let mut address = Address::parse(url)?;
    for _ in 0..=REDIRECTS_MAX {
        let answer = get(&address)?;
        match redirect(&answer) {
            Some(location) => address = address.join(location)?,
            None => return Ok(page(&address, answer)),
        }
    }
    Err(TaskError::new("TooManyRedirects", format!("more than {REDIRECTS_MAX} redirects from {url}"))
        .not_retryable())
}

fn redirect(answer: &Answer) -> Option<&str> {
    let redirects = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
    let location = answer.headers.iter().find(|(name, _)| name == "location");
    location.filter(|_| redirects).map(|(_, location)| location.as_str())
}

fn page(address: &Address, answer: Answer) -> Page {
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Page {
        url: address.to_string(),
        status: answer.status,
        title: page::title(&body),
        headers: answer.headers,
        body,
        truncated: answer.truncated,
    }
}

rwork::plugin!(fetch);

#[cfg(test)]
mod tests {
    use rwork::testing::{TestContext, run};

    use super::*;

    fn answer(status: u16, location: Option<&str>, body: &str) -> Answer {
        let headers =
            location.map(|location| ("location".to_owned(), location.to_owned())).into_iter().collect();
        Answer { status, headers, body: body.as_bytes().to_vec(), truncated: false }
    }

    #[test]
    fn redirects_are_followed_and_counted() {
        let page = follow("http://a.example/x/y", |address| {
            Ok(match address.to_string().as_str() {
                "http://a.example/x/y" => answer(302, Some("../z?q=1"), ""),
                "http://a.example/z?q=1" => answer(301, Some("//b.example/"), ""),
                "http://b.example/" => answer(200, Some("/ignored"), "<title>B</title>"),
                other => panic!("{other}"),
            })
        });
        let page = page.unwrap();
        assert_eq!(
            (page.url.as_str(), page.status, page.title.as_deref()),
            ("http://b.example/", 200, Some("B"))
        );
        let mut asked = 0;
        let error = follow("http://a.example/", |_| {
            asked += 1;
            Ok(answer(302, Some("/"), ""))
        });
        assert_eq!(error.unwrap_err().exc_type(), Some("TooManyRedirects"));
        assert_eq!(asked, REDIRECTS_MAX + 1);
    }

    #[test]
    fn a_redirect_to_another_scheme_is_refused() {
        let error = follow("http://a.example/", |_| Ok(answer(302, Some("file:///etc/passwd"), "")));
        assert_eq!(error.unwrap_err().exc_type(), Some("ValueError"));
    }

    #[test]
    fn errors_of_the_server_are_pages_too() {
        let page = follow("http://a.example", |_| Ok(answer(404, None, "\u{e9}"))).unwrap();
        assert_eq!((page.status, page.body.as_str(), page.title), (404, "\u{e9}", None));
    }

    #[test]
    fn bad_arguments_are_refused_before_anything_is_sent() {
        for args in ["[\"ftp://a.example/\"]", "[\"http://a.example/\", 100000000]"] {
            let error = run(&PLUGIN, &TestContext::new("web.fetch"), args, "{}").unwrap_err();
            assert_eq!(error.exc_type(), Some("ValueError"), "{args}");
        }
    }
}
