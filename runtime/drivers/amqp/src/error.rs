//! From the client library's and the server's errors to the one that both traits speak.
//!
//! Decides by reply codes, never shows a password (the library's errors hold none), and never calls an error final that the
//! server may get over: what is final is blamed on the message or the setting.

use lapin::ErrorKind;
use lapin::protocol::AMQPErrorKind;
pub(crate) use rwork_net::chain;
use rwork_net::{Failure, Words};
use rwork_protocol::service::{Error, Hinted, RedactedUrl};

/// What RabbitMQ calls what TLS is about.
pub(crate) const WORDS: Words = Words {
    name: "RabbitMQ",
    plain: "amqp://",
    tls_port: "the server's `listeners.ssl` port",
    no_client_certificates: "`ssl_options.fail_if_no_peer_cert = false`",
};

/// Reply codes of AMQP 0-9-1 that are told apart.
pub(crate) mod reply {
    pub(crate) const CONTENT_TOO_LARGE: u16 = 311;
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
    pub(crate) const NOT_IMPLEMENTED: u16 = 540;
}

/// Code and text of a server's refusal; `None`: the server has said nothing, the connection is lost.
pub(crate) fn reply_code(error: &lapin::Error) -> Option<(u16, String)> {
    match error.kind() {
        ErrorKind::ProtocolError(said) => Some((said.get_id(), said.get_message().to_string())),
        _ => None,
    }
}

/// In the words of the traits; `act` says what was being done, as in "failed to `act`".
pub(crate) fn explain(url: &RedactedUrl, act: &str, error: lapin::Error) -> Error {
    let retry =
        |retryable, error| Error::Act { act: format!("{act} at {url}"), retryable, source: Box::new(error) };
    let said = match error.kind() {
        ErrorKind::ProtocolError(said) => said,
        ErrorKind::SerialisationError(_) | ErrorKind::FutureCompleted => return retry(false, error),
        ErrorKind::ChannelsLimitReached => return retry(true, error),
        _ => return lost(url, &error),
    };
    let (code, text) = (said.get_id(), said.get_message().to_string());
    let refused = |hint: &str| Error::Refused { url: url.clone(), why: text.clone(), hint: hint.to_owned() };
    match code {
        reply::ACCESS_REFUSED => refused(PERMISSION_HINT),
        reply::NOT_ALLOWED => refused(
            "check the virtual host and the user's permissions for it: `rabbitmqctl list_permissions`",
        ),
        reply::NOT_IMPLEMENTED => refused("that server can't do it: rwork needs RabbitMQ 3.8 or newer"),
        // `home node 'a' of durable queue 'q' is down or inaccessible`: of a cluster, one node restarts.
        reply::NOT_FOUND => retry(text.contains("is down"), error),
        reply::RESOURCE_LOCKED => retry(true, error),
        reply::CONTENT_TOO_LARGE | reply::PRECONDITION_FAILED => retry(false, error),
        _ => match said.kind() {
            // The whole connection went: the server restarts, or an administrator closed it.
            AMQPErrorKind::Hard(_) => unreachable(url, &text),
            AMQPErrorKind::Soft(_) => retry(true, error),
        },
    }
}

const PERMISSION_HINT: &str = "give that user the rights to configure, write and read: `rabbitmqctl set_permissions -p <vhost> <user> '.*' '.*' '.*'`";

/// The connection is gone, for whatever reason.
fn lost(url: &RedactedUrl, error: &lapin::Error) -> Error {
    unreachable(url, &lost_words(error))
}

fn unreachable(url: &RedactedUrl, what: &str) -> Error {
    Error::Unreachable {
        url: url.clone(),
        source: Box::new(Hinted { what: what.to_owned(), hint: String::new() }),
    }
}

/// Why a connection that stood is gone.
pub(crate) fn lost_words(error: &lapin::Error) -> String {
    match error.kind() {
        ErrorKind::IOError(io) => io.to_string(),
        ErrorKind::MissingHeartbeatError => "no heartbeat came for too long".to_owned(),
        ErrorKind::ProtocolError(said) => said.get_message().to_string(),
        _ => "the connection was closed".to_owned(),
    }
}

/// What the first bytes of whatever listens there tell, when it did not come to an AMQP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stranger {
    /// It closed without a word.
    Mute,
    /// A TLS alert, as a TLS port answers to plain bytes.
    Tls,
    /// An AMQP header: it speaks another version.
    OtherAmqp,
    /// Something else.
    Other,
    /// It began as RabbitMQ does.
    Rabbit,
}

/// TLS records of the types alert (21) and handshake (22) begin so, with a version of 3.x.
const TLS_RECORDS: [[u8; 2]; 2] = [[21, 3], [22, 3]];

impl Stranger {
    pub(crate) fn of(first: &[u8]) -> Self {
        match first {
            [] => Self::Mute,
            [kind, version, ..] if TLS_RECORDS.contains(&[*kind, *version]) => Self::Tls,
            [b'A', b'M', b'Q', b'P', ..] => Self::OtherAmqp,
            // A method frame on channel 0.
            [1, 0, 0, ..] => Self::Rabbit,
            _ => Self::Other,
        }
    }
}

/// Why a server did not let us into this virtual host. `first`: the first bytes that it sent.
pub(crate) fn unwelcome(url: &RedactedUrl, error: &lapin::Error, first: &[u8], vhost: &str) -> Failure {
    if let Some((code, text)) = reply_code(error) {
        return refusal(url, code, &text, vhost);
    }
    match Stranger::of(first) {
        Stranger::Tls => Failure::refused(
            url,
            "that port speaks TLS",
            "use `amqps://`, or the server's plain port (5672 unless `listeners.tcp` says otherwise)",
        ),
        Stranger::OtherAmqp => Failure::refused(
            url,
            "it speaks another version of AMQP",
            "rwork needs AMQP 0-9-1: RabbitMQ, not an AMQP 1.0 server",
        ),
        Stranger::Other => Failure::refused(
            url,
            "what listens there does not speak AMQP",
            "check host and port of the URL (15672 is RabbitMQ's management page, not its AMQP port)",
        ),
        Stranger::Mute => Failure::unreachable(
            url,
            "it closed the connection without a word",
            "if that is a TLS port, use `amqps://`; otherwise look whether it is RabbitMQ that listens there",
        ),
        Stranger::Rabbit => Failure::unreachable(
            url,
            format!("it broke off while letting us in: {}", lost_words(error)),
            "that server is going down, or was overloaded: look at its log",
        ),
    }
}

fn refusal(url: &RedactedUrl, code: u16, text: &str, vhost: &str) -> Failure {
    match code {
        reply::ACCESS_REFUSED => Failure::refused(
            url,
            "it does not know this user with this password",
            "check user and password of the URL (special characters percent-encoded) by `rabbitmqctl authenticate_user`; `guest` may enter from the server's own machine only",
        ),
        reply::NOT_ALLOWED if text.contains("not found") => Failure::refused(
            url,
            format!("it has no virtual host `{vhost}`"),
            format!(
                "create it by `rabbitmqctl add_vhost {vhost}`, or name another one at the end of the URL"
            ),
        ),
        reply::NOT_ALLOWED if text.contains("limit") => Failure::unreachable(
            url,
            text.to_owned(),
            "let other connections go, or raise the limit of that user or virtual host",
        ),
        reply::NOT_ALLOWED => Failure::refused(
            url,
            format!("this user may not enter the virtual host `{vhost}`"),
            format!("allow it by `rabbitmqctl set_permissions -p {vhost} <user> '.*' '.*' '.*'`"),
        ),
        _ => Failure::unreachable(url, text.to_owned(), ""),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::AMQPError;
    use lapin::{ConnectionState, Error as LapinError};

    use super::*;

    fn url() -> RedactedUrl {
        RedactedUrl::new("amqp://me:hunter2@h:1/v")
    }

    fn said(code: u16, text: &str) -> LapinError {
        ErrorKind::ProtocolError(AMQPError::from_id(code, text.into()).unwrap()).into()
    }

    fn io(text: &str) -> LapinError {
        std::io::Error::other(text.to_owned()).into()
    }

    #[test]
    fn what_may_pass_is_told_from_what_must_be_mended() {
        for (error, kind, is_retryable) in [
            (said(403, "ACCESS_REFUSED - no rights"), "refused", false),
            (said(530, "NOT_ALLOWED - vhost"), "refused", false),
            (said(540, "NOT_IMPLEMENTED - quorum"), "refused", false),
            (said(404, "NOT_FOUND - no exchange 'e' in vhost '/'"), "act", false),
            (said(404, "NOT_FOUND - home node 'a' of durable queue 'q' is down"), "act", true),
            (said(405, "RESOURCE_LOCKED - exclusive"), "act", true),
            (said(406, "PRECONDITION_FAILED - inequivalent arg"), "act", false),
            (said(311, "CONTENT_TOO_LARGE"), "act", false),
            (said(313, "NO_CONSUMERS"), "act", true),
            (said(320, "CONNECTION_FORCED - shutdown"), "unreachable", true),
            (said(541, "INTERNAL_ERROR"), "unreachable", true),
            (io("reset"), "unreachable", true),
            (ErrorKind::MissingHeartbeatError.into(), "unreachable", true),
            (ErrorKind::InvalidConnectionState(ConnectionState::Closed).into(), "unreachable", true),
            (ErrorKind::ChannelsLimitReached.into(), "act", true),
        ] {
            let shown = error.to_string();
            let error = explain(&url(), "publish", error);
            let found = match &error {
                Error::Refused { .. } => "refused",
                Error::Act { .. } => "act",
                Error::Unreachable { .. } => "unreachable",
                _ => "other",
            };
            assert_eq!((found, error.is_retryable()), (kind, is_retryable), "{shown}");
            assert!(!error.to_string().contains("hunter2"));
            assert_eq!(kind == "refused", error.hint().is_some(), "{shown}");
        }
    }

    #[test]
    fn first_bytes_tell_whom_we_have_reached() {
        for (first, expect) in [
            (&b""[..], Stranger::Mute),
            (b"\x15\x03\x03\x00\x02", Stranger::Tls),
            (b"\x16\x03\x01", Stranger::Tls),
            (b"AMQP\x00\x01\x00\x00", Stranger::OtherAmqp),
            (b"HTTP/1.1 400", Stranger::Other),
            (b"\x01\x00\x00\x00\x00\x01\xff", Stranger::Rabbit),
        ] {
            assert_eq!(Stranger::of(first), expect, "{}", first.escape_ascii());
        }
    }

    #[test]
    fn a_limit_of_connections_passes() {
        let text = "NOT_ALLOWED - access to vhost 'v' refused for user 'me': connection limit (1) is reached";
        let failure = unwelcome(&url(), &said(530, text), b"", "v");
        assert!(matches!(failure, Failure::Unreachable { .. }), "{failure:?}");
    }
}
