//! From a message to a task message: protocol v2, v1, and the form between them.

mod body;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;

use crate::content::AcceptContent;
use crate::draft::{Draft, Field};
use crate::error::{DecodeError, Fault};
use crate::json::{self, Kind, Scanner};
use crate::{Certificates, Embed, Message, TaskMessage};

/// Largest body that is looked into unless configured otherwise: enough for any sane arguments, and little enough that a
/// thousand of them in flight fit in memory.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Largest header table that is looked into unless configured otherwise. Celery's own headers take about 3 KiB at most.
pub const HEADERS_BYTES_MAX: usize = 1 << 20;

/// Largest body after decompression, and after transcoding, unless configured otherwise: a sane body shrinks to an eighth.
pub const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// Which messages are read, and how large they may be. How deep they may nest is fixed: [`json::DEPTH_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Largest body as it comes, in bytes. Default: [`BODY_BYTES_MAX`].
    pub body_bytes_max: usize,
    /// Largest header table, in bytes. Default: [`HEADERS_BYTES_MAX`].
    pub headers_bytes_max: usize,
    /// Largest body after decompression, and largest JSON that msgpack or YAML becomes, in bytes. Default:
    /// [`DECOMPRESSED_BYTES_MAX`].
    pub decompressed_bytes_max: usize,
    /// Content types that are taken (Celery's `accept_content`). Default: JSON.
    pub accept: AcceptContent,
    /// Who may sign messages, where content type `auth` is taken. Default: nobody.
    pub signers: Option<Arc<Certificates>>,
    /// Types of typed values that producers have registered besides kombu's own; their values are handed on as they are.
    /// Default: none.
    pub typed_values: Vec<String>,
}

impl Default for DecodeLimits {
    fn default() -> Self {
        Self {
            body_bytes_max: BODY_BYTES_MAX,
            headers_bytes_max: HEADERS_BYTES_MAX,
            decompressed_bytes_max: DECOMPRESSED_BYTES_MAX,
            accept: AcceptContent::default(),
            signers: None,
            typed_values: Vec::new(),
        }
    }
}

/// Reads a message in any of Celery's forms (`celery-wire.md` §1.1, §1.7).
///
/// - v2: a header `task`, the body an array `[args, kwargs, embed]`; `embed` may be null or lack any part;
/// - v1: no header `task`, the body an object with `task` and the rest. Naive times count as UTC, whatever `utc` says;
/// - hybrid: a header `task`, the body an object with `args`; headers win over the body.
///
/// A body that is neither compressed nor of another format than JSON is not copied: arguments are slices of it. Half
/// characters (`"\ud800"`) are read as U+FFFD.
///
/// # Errors
/// When the message can't become a request. [`DecodeError::into_request`] tells the case in which the task is known, and
/// must fail rather than vanish.
pub fn decode(message: &Message, limits: &DecodeLimits) -> Result<TaskMessage, DecodeError> {
    check_size("headers", message.headers.len(), limits.headers_bytes_max)?;
    let mut draft = Draft::default();
    let headers = read_headers(&message.headers, &mut draft)?;
    check_size("a body", message.body.len(), limits.body_bytes_max).map_err(|fault| draft.error(fault))?;
    let body =
        body::to_json(message, draft.compression.as_deref(), limits).map_err(|fault| draft.error(fault))?;
    match read_body(&body, &headers, draft, message, limits) {
        Err(error) => read_repaired(&body, &headers, message, limits, error),
        read => read,
    }
}

/// Another try with the body mended, where that is what was wrong with it; else the error that there was.
#[cold]
fn read_repaired(
    body: &Bytes,
    headers: &Bytes,
    message: &Message,
    limits: &DecodeLimits,
    error: DecodeError,
) -> Result<TaskMessage, DecodeError> {
    if !matches!(error.fault, Fault::Undecodable { .. } | Fault::TypedValue(_)) {
        return Err(error);
    }
    let Some(repaired) = json::without_lone_surrogates(body) else { return Err(error) };
    let mut draft = Draft::default();
    let headers = read_headers(headers, &mut draft)?;
    read_body(&repaired, &headers, draft, message, limits)
}

/// Reads the header table, and returns it, mended if need be.
#[inline]
fn read_headers<'a>(headers: &'a Bytes, draft: &mut Draft) -> Result<Cow<'a, Bytes>, DecodeError> {
    let Err(error) = draft.read_headers(headers) else { return Ok(Cow::Borrowed(headers)) };
    let Some(repaired) = json::without_lone_surrogates(headers) else { return Err(error) };
    *draft = Draft::default();
    draft.read_headers(&repaired)?;
    Ok(Cow::Owned(repaired))
}

// Inlined for the draft's sake, which is large and would be moved.
#[inline(always)]
fn read_body(
    body: &Bytes,
    headers: &Bytes,
    draft: Draft,
    message: &Message,
    limits: &DecodeLimits,
) -> Result<TaskMessage, DecodeError> {
    json::check_typed(body, &limits.typed_values).map_err(|why| draft.error(Fault::TypedValue(why)))?;
    let mut scanner = Scanner::new(body).map_err(|why| draft.error(undecodable(why)))?;
    let kind = scanner.kind().map_err(|why| draft.error(undecodable(why)))?;
    let (draft, body) = match (kind, draft.task.is_some()) {
        (Kind::Array, true) => {
            let body = read_v2(&mut scanner).map_err(|fault| draft.error(fault))?;
            (draft, body)
        }
        (Kind::Object, true) => read_hybrid(&mut scanner, headers)?,
        (Kind::Object, false) => read_v1(&mut scanner, draft)?,
        (found, false) => {
            let found = format!("neither, the body being {found}");
            return Err(draft.error(Fault::UnknownMessage { found }));
        }
        (found, true) => return Err(draft.error(shape("the body", BODY, found.to_string()))),
    };
    body.into_task_message(draft, message)
}

const BODY: &str = "an array `[args, kwargs, embed]`";

fn check_size(part: &'static str, size: usize, limit: usize) -> Result<(), Fault> {
    if size > limit { Err(Fault::TooLarge { part, limit, size }) } else { Ok(()) }
}

fn undecodable(why: json::Error) -> Fault {
    Fault::Undecodable { part: "the body", expected: BODY, why }
}

fn shape(part: &'static str, expected: &'static str, found: impl Into<String>) -> Fault {
    Fault::Shape { part, expected, found: found.into() }
}

/// A body in pieces, nothing checked but that it is JSON.
#[derive(Default)]
struct Body {
    args: Option<Bytes>,
    kwargs: Option<Bytes>,
    embed: Embed,
}

impl Body {
    /// Display forms for a message whose form has none.
    fn describe(&self, draft: &mut Draft) {
        let args = self.args.as_deref().unwrap_or(b"[]");
        let kwargs = self.kwargs.as_deref().unwrap_or(b"{}");
        draft.set_reprs(args, kwargs);
    }

    fn into_task_message(self, draft: Draft, message: &Message) -> Result<TaskMessage, DecodeError> {
        check_embed(&self.embed).map_err(|fault| draft.error(fault))?;
        let (args, bad_args) = expect(self.args, Kind::Array, b"[]");
        let (kwargs, bad_kwargs) = expect(self.kwargs, Kind::Object, b"{}");
        let headers = draft.into_headers()?;
        let properties = message.properties.clone();
        let task_message = TaskMessage { headers, properties, args, kwargs, embed: self.embed };
        match (bad_args, bad_kwargs) {
            (None, None) => Ok(task_message),
            (Some(found), _) => Err(bad_arguments("args", "an array", found, task_message)),
            (None, Some(found)) => Err(bad_arguments("kwargs", "an object", found, task_message)),
        }
    }
}

/// The value when it is of the wanted kind or absent, else the empty one and what was found.
fn expect(value: Option<Bytes>, wanted: Kind, empty: &'static [u8]) -> (Bytes, Option<Kind>) {
    match value {
        None => (Bytes::from_static(empty), None),
        Some(value) => match Kind::of(&value) {
            Some(found) if found != wanted => (Bytes::from_static(empty), Some(found)),
            _ => (value, None),
        },
    }
}

fn bad_arguments(
    part: &'static str,
    expected: &'static str,
    found: Kind,
    message: TaskMessage,
) -> DecodeError {
    let (task, task_id) = (Some(message.headers.task.clone()), Some(message.headers.id.clone()));
    DecodeError {
        fault: Fault::Arguments { part, expected, found, message: Box::new(message) },
        task,
        task_id,
    }
}

fn check_embed(embed: &Embed) -> Result<(), Fault> {
    check_part("`callbacks`", "an array of signatures or null", &embed.callbacks, Kind::Array)?;
    check_part("`errbacks`", "an array of signatures or null", &embed.errbacks, Kind::Array)?;
    check_part("`chain`", "an array of signatures or null", &embed.chain, Kind::Array)?;
    check_part("`chord`", "a signature or null", &embed.chord, Kind::Object)
}

fn check_part(
    name: &'static str,
    expected: &'static str,
    part: &Option<Bytes>,
    wanted: Kind,
) -> Result<(), Fault> {
    match part.as_ref().and_then(|part| Kind::of(part)) {
        Some(found) if found != wanted => Err(shape(name, expected, found.to_string())),
        _ => Ok(()),
    }
}

/// Three values: arguments, keyword arguments, follow-ups.
fn read_v2(scanner: &mut Scanner<'_>) -> Result<Body, Fault> {
    let mut body = Body::default();
    let mut length = 0;
    let mut next = scanner.first_element().map_err(undecodable)?;
    while let Some(kind) = next {
        match length {
            0 => body.args = Some(scanner.raw().map_err(undecodable)?),
            1 => body.kwargs = Some(scanner.raw().map_err(undecodable)?),
            2 => body.embed = read_embed(kind, scanner)?,
            _ => scanner.skip().map_err(undecodable)?,
        }
        length += 1;
        next = scanner.next_element().map_err(undecodable)?;
    }
    scanner.finish().map_err(undecodable)?;
    if length == 3 { Ok(body) } else { Err(shape("the body", BODY, format!("{length} elements"))) }
}

fn read_embed(kind: Kind, scanner: &mut Scanner<'_>) -> Result<Embed, Fault> {
    let mut embed = Embed::default();
    match kind {
        Kind::Null => scanner.skip().map_err(undecodable)?,
        Kind::Object => {
            let mut key = scanner.first_key(Follow::of).map_err(undecodable)?;
            while let Some(follow) = key {
                read_follow(follow, &mut embed, scanner)?;
                key = scanner.next_key(Follow::of).map_err(undecodable)?;
            }
        }
        other => return Err(shape("`embed`", "an object or null", other.to_string())),
    }
    Ok(embed)
}

/// A part of `embed`.
#[derive(Clone, Copy)]
enum Follow {
    Callbacks,
    Errbacks,
    Chain,
    Chord,
    Unknown,
}

impl Follow {
    fn of(key: &str) -> Self {
        match key {
            "callbacks" => Self::Callbacks,
            "errbacks" => Self::Errbacks,
            "chain" => Self::Chain,
            "chord" => Self::Chord,
            _ => Self::Unknown,
        }
    }
}

fn read_follow(follow: Follow, embed: &mut Embed, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
    let raw = scanner.raw().map_err(undecodable)?;
    let value = (!json::is_null(&raw)).then_some(raw);
    match follow {
        Follow::Callbacks => embed.callbacks = value,
        Follow::Errbacks => embed.errbacks = value,
        Follow::Chain => embed.chain = value,
        Follow::Chord => embed.chord = value,
        Follow::Unknown => {}
    }
    Ok(())
}

/// A key of a v1 or hybrid body.
enum Key {
    Args,
    Kwargs,
    Taskset,
    Follow(Follow),
    Header(Field),
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "args" => Self::Args,
            "kwargs" => Self::Kwargs,
            "taskset" => Self::Taskset,
            "chain" => Self::Follow(Follow::Unknown),
            _ => match (Follow::of(key), Field::of(key)) {
                (Follow::Unknown, field) => Self::Header(field),
                (follow, _) => Self::Follow(follow),
            },
        }
    }
}

/// The task and everything about it in one object, message headers beside it.
fn read_v1(scanner: &mut Scanner<'_>, mut draft: Draft) -> Result<(Draft, Body), DecodeError> {
    let body = read_object(scanner, &mut draft).map_err(|fault| draft.error(fault))?;
    body.describe(&mut draft);
    if draft.task.is_none() {
        let found = "an object without `task`".to_owned();
        return Err(draft.error(Fault::UnknownMessage { found }));
    }
    Ok((draft, body))
}

/// The body first, then the headers over it.
fn read_hybrid(scanner: &mut Scanner<'_>, headers: &Bytes) -> Result<(Draft, Body), DecodeError> {
    let mut draft = Draft::default();
    let body = read_object(scanner, &mut draft).map_err(|fault| draft.error(fault))?;
    draft.read_headers(headers)?;
    body.describe(&mut draft);
    if body.args.is_none() {
        return Err(draft.error(shape("the body", BODY, "an object without `args`")));
    }
    Ok((draft, body))
}

fn read_object(scanner: &mut Scanner<'_>, draft: &mut Draft) -> Result<Body, Fault> {
    let mut body = Body::default();
    let mut taskset = None;
    let mut key = scanner.first_key(Key::of).map_err(undecodable)?;
    while let Some(known) = key {
        match known {
            Key::Args => body.args = Some(scanner.raw().map_err(undecodable)?),
            Key::Kwargs => body.kwargs = Some(scanner.raw().map_err(undecodable)?),
            Key::Taskset => taskset = draft.read_taskset(scanner)?,
            Key::Follow(follow) => read_follow(follow, &mut body.embed, scanner)?,
            // Only the header table carries headers of the user's own; here they are `utc` and strangers.
            Key::Header(Field::Other(_)) => scanner.skip().map_err(undecodable)?,
            Key::Header(field) => draft.read(field, scanner)?,
        }
        key = scanner.next_key(Key::of).map_err(undecodable)?;
    }
    scanner.finish().map_err(undecodable)?;
    if let Some(group) = taskset.filter(|group| !group.is_empty()) {
        draft.set_group(group);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
