//! From a host to a stream that may be encrypted, by a deadline.

use rwork_protocol::service::RedactedUrl;

use crate::{Deadline, Failure, TlsOptions, Transport, Words, dial, secure};

/// Dials and, if wanted, speaks TLS.
///
/// # Errors
/// Each step fails with words of its own.
///
/// # Cancel safety
/// Cancel safe: an opened connection is closed.
pub async fn open(
    host: &str,
    port: u16,
    tls: Option<&TlsOptions>,
    url: &RedactedUrl,
    words: Words,
    deadline: Deadline,
) -> Result<Box<dyn Transport>, Failure> {
    let unreached = |seconds| {
        let hint = "a firewall or a wrong address drops our packets, or that machine is down";
        Failure::unreachable(url, format!("no connection within {seconds} s"), hint)
    };
    let stream = deadline.bound(dial(host, port, url), unreached).await??;
    let Some(options) = tls else { return Ok(Box::new(stream)) };
    let unsecured = |seconds| {
        let what = format!("it takes connections, but has not answered our TLS handshake within {seconds} s");
        let hint = format!("use `{}` if that port is a plain one; otherwise that server hangs", words.plain);
        Failure::unreachable(url, what, hint)
    };
    let secured = secure(stream, host, options, url, words);
    Ok(Box::new(deadline.bound(secured, unsecured).await??))
}

/// The failure of a server that was reached and kept silent for so many seconds.
pub fn unanswered(url: &RedactedUrl, words: Words, seconds: f64) -> Failure {
    Failure::unreachable(
        url,
        format!("it takes connections, but has not answered within {seconds} s"),
        format!("that server hangs, is paused, or is not {}: look at its log and its load", words.name),
    )
}
