//! From the client library's and the server's errors to the one that both traits speak.
//!
//! Decides by error codes, never shows a password (the library's errors hold none), and never calls an error final that
//! the server may get over: what is final is blamed on the message or the record.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};
use rwork_net::{Failure, Words};
use rwork_protocol::service::{Error, RedactedUrl};

/// What Redis calls what TLS is about.
pub(crate) const WORDS: Words = Words {
    name: "Redis",
    plain: "redis://",
    tls_port: "the server's `tls-port`",
    no_client_certificates: "`tls-auth-clients no`",
};

/// What kind of trouble a server's error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Memory,
    Disk,
    Replica,
    Cluster,
    Login,
    Permission,
    Command,
    /// The message or record itself can't be taken.
    Content,
    /// It passes.
    Passing,
}

/// Codes that a script's error may carry inside its text: before Redis 7 all of them were `ERR Error running script…`.
const INSIDE_SCRIPTS: &[(&str, Trouble)] = &[
    ("OOM command not allowed", Trouble::Memory),
    ("MISCONF", Trouble::Disk),
    ("READONLY", Trouble::Replica),
    ("permission", Trouble::Permission),
    // 7.0 names neither a code nor the word.
    ("The user executing the script", Trouble::Permission),
];

impl Trouble {
    fn of(error: &ServerError) -> Self {
        let details = error.details().unwrap_or_default();
        match error.code() {
            "OOM" => Self::Memory,
            "MISCONF" => Self::Disk,
            "READONLY" | "MASTERDOWN" => Self::Replica,
            "MOVED" | "ASK" | "CROSSSLOT" => Self::Cluster,
            "WRONGPASS" | "NOAUTH" => Self::Login,
            "NOPERM" => Self::Permission,
            "WRONGTYPE" => Self::Content,
            _ if details.contains("script") => INSIDE_SCRIPTS
                .iter()
                .find(|(text, _)| details.contains(text))
                .map_or(Self::Passing, |(_, trouble)| *trouble),
            _ if details.starts_with("unknown command") => Self::Command,
            _ if details.contains("exceeds maximum allowed size") => Self::Content,
            _ => Self::Passing,
        }
    }
}

/// What became of an answer of which a part came.
const CUT_SHORT: &str = "the connection was closed within an answer";
/// The client's words for that, which has no kind for it.
const END_OF_INPUT: &str = "end of input";

/// In the words of the traits; `act` says what was being done, as in "failed to `act`".
pub(crate) fn explain(url: &RedactedUrl, act: &str, error: RedisError) -> Error {
    match server_error(&error) {
        Some(said) => explain_server(url, act, &said, error),
        // It has spoken Redis before: the connection ended within an answer.
        None if error.kind() == ErrorKind::Parse => Failure::unreachable(url, CUT_SHORT, "").into(),
        None if error.is_io_error() => Failure::unreachable(url, io_words(&error), "").into(),
        None => Error::Act { act: format!("{act} at {url}"), retryable: false, source: Box::new(error) },
    }
}

fn explain_server(url: &RedactedUrl, act: &str, said: &ServerError, error: RedisError) -> Error {
    let text = words(said);
    let refused = |hint: &str| Error::Refused { url: url.clone(), why: text.clone(), hint: hint.to_owned() };
    let full = |hint: &str| Error::Full { url: url.clone(), why: text.clone(), hint: hint.to_owned() };
    match Trouble::of(said) {
        Trouble::Memory => full(MEMORY_HINT),
        Trouble::Disk => full("free space on its disk or mend its persistence: its log says what failed"),
        Trouble::Replica => Failure::unreachable(url, text, REPLICA_HINT).into(),
        Trouble::Cluster => refused(CLUSTER_HINT),
        Trouble::Login => refused(LOGIN_HINT),
        Trouble::Permission => refused(PERMISSION_HINT),
        Trouble::Command => refused(COMMAND_HINT),
        trouble => Error::Act {
            act: format!("{act} at {url}"),
            retryable: trouble == Trouble::Passing,
            source: Box::new(error),
        },
    }
}

/// The refusal of a server whose memory is full, where a script was told so.
pub(crate) fn full(url: &RedactedUrl) -> Error {
    let why = "OOM its memory is full, and results have taken what they may beyond `maxmemory`".to_owned();
    Error::Full { url: url.clone(), why, hint: MEMORY_HINT.to_owned() }
}

const MEMORY_HINT: &str =
    "raise `maxmemory` of that server, or let workers drain the queues; `rwork purge` deletes messages";
pub(crate) const CLUSTER_HINT: &str = "rwork needs one Redis with all keys, not a cluster: take a server without `cluster-enabled`, with Sentinel if it must fail over";
pub(crate) const REPLICA_HINT: &str =
    "use the master's address, or `sentinel://` URLs so that rwork finds the master by itself";
const LOGIN_HINT: &str = "check user and password of the URL (special characters percent-encoded), and the server's `ACL LIST` or `requirepass`";
const PERMISSION_HINT: &str = "give that user the keys `*`, the channels `*` and the commands that rwork uses: `ACL SETUSER <user> ~* &* +@all -@admin -@dangerous +info`";
const COMMAND_HINT: &str = "rwork needs Redis 6.2 or newer with none of its commands renamed or disabled";

/// Why a server did not let us in, from its answer to `HELLO`, `SELECT` or anything else on the way.
pub(crate) fn unwelcome(url: &RedactedUrl, error: &RedisError) -> Failure {
    let Some(said) = server_error(error) else {
        return match error.kind() {
            ErrorKind::RESP3NotSupported => too_old(url, "one without RESP3"),
            ErrorKind::Parse if error.to_string().contains(END_OF_INPUT) => {
                Failure::unreachable(url, CUT_SHORT, "")
            }
            ErrorKind::Parse => not_redis(url),
            _ => Failure::unreachable(
                url,
                io_words(error),
                "if that is a TLS port, use `rediss://`; otherwise look whether it is Redis that listens there",
            ),
        };
    };
    let text = words(&said);
    match (said.code(), Trouble::of(&said)) {
        ("NOPROTO", _) => too_old(url, "one without RESP3"),
        ("DENIED", _) => Failure::refused(url, text, "set a password on that server, or `protected-mode no`"),
        (_, Trouble::Login) => Failure::refused(url, text, LOGIN_HINT),
        (_, Trouble::Permission) => Failure::refused(url, text, PERMISSION_HINT),
        (_, Trouble::Command) => too_old(url, "one without `HELLO`"),
        _ if text.contains("DB index") => Failure::refused(
            url,
            "it has no database of that number",
            "use a smaller number at the end of the URL, or raise `databases` of that server",
        ),
        _ if text.contains("max number of clients") => {
            Failure::unreachable(url, text, "raise `maxclients` of that server, or let other clients go")
        }
        _ => Failure::unreachable(url, text, ""),
    }
}

/// The refusal of a server from before Redis 6.2.
pub(crate) fn too_old(url: &RedactedUrl, version: &str) -> Failure {
    Failure::refused(
        url,
        format!("expected Redis 6.2 or newer, found {version}"),
        "upgrade that server; Debian 12 and newer, and every image since 2021, have it",
    )
}

/// The refusal of whatever speaks otherwise.
pub(crate) fn not_redis(url: &RedactedUrl) -> Failure {
    Failure::refused(url, "what listens there does not speak Redis", "check host and port of the URL")
}

/// Whether the server does not know the script (any more).
pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// Whether the connection can't be used on: it is lost, out of step, or leads to a replica.
pub(crate) fn breaks(error: &RedisError) -> bool {
    match server_error(error) {
        Some(said) => Trouble::of(&said) == Trouble::Replica,
        None => error.is_io_error() || error.kind() == ErrorKind::Parse,
    }
}

/// The error of a server that does not answer.
pub(crate) fn silent(patience: Duration) -> RedisError {
    let text = format!("no answer within {} s", patience.as_secs_f64());
    io::Error::new(io::ErrorKind::TimedOut, text).into()
}

/// The error of a connection that was lost before it was used.
pub(crate) fn lost() -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, CLOSED).into()
}

const CLOSED: &str = "the connection was closed";

/// Why bytes could not be moved.
fn io_words(error: &RedisError) -> String {
    match error.source() {
        Some(source) if !error.is_connection_dropped() => source.to_string(),
        _ => CLOSED.to_owned(),
    }
}

/// What the server said; of several errors in a pipeline the first that tells why.
fn server_error(error: &RedisError) -> Option<ServerError> {
    let all = error.clone().into_server_errors()?;
    let telling = all.iter().find(|(_, said)| said.code() != "EXECABORT").or_else(|| all.first());
    telling.map(|(_, said)| said.clone())
}

fn words(said: &ServerError) -> String {
    match said.details() {
        Some(details) => format!("{} {details}", said.code()),
        None => said.code().to_owned(),
    }
}
