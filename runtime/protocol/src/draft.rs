//! Headers while they are being read: from the header table, from a v1 body, or from both.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use jiter::{NumberAny, NumberInt};

use crate::error::{DecodeError, Fault};
use crate::json::{self, Kind, Scanner};
use crate::{Headers, TaskId, TaskName, Timestamp};

/// How much of a bad value an error shows, in bytes.
const SHOWN_MAX: usize = 64;

/// What has been read so far; `task` and `id` may come later or never.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) task: Option<TaskName>,
    pub(crate) id: Option<TaskId>,
    /// Name of a body compression that the message claims.
    pub(crate) compression: Option<String>,
    shadow: Option<String>,
    eta: Option<Timestamp>,
    expires: Option<Timestamp>,
    group: Option<String>,
    group_index: Option<u32>,
    retries: u32,
    hard_time_limit: Option<Duration>,
    soft_time_limit: Option<Duration>,
    root_id: Option<TaskId>,
    parent_id: Option<TaskId>,
    argsrepr: Option<String>,
    kwargsrepr: Option<String>,
    origin: Option<String>,
    ignore_result: Option<bool>,
    replaced_task_nesting: u32,
    stamped_headers: Option<Bytes>,
    stamps: Option<Bytes>,
    other: Vec<(String, Bytes)>,
}

/// Which header a key names.
pub(crate) enum Field {
    Lang,
    Task,
    Id,
    Shadow,
    Eta,
    Expires,
    Group,
    GroupIndex,
    Retries,
    Timelimit,
    RootId,
    ParentId,
    Argsrepr,
    Kwargsrepr,
    Origin,
    IgnoreResult,
    Nesting,
    StampedHeaders,
    Stamps,
    Compression,
    /// Put there by brokers, about one delivery.
    Infrastructure,
    Other(String),
}

impl Field {
    pub(crate) fn of(key: &str) -> Self {
        match key {
            "lang" => Self::Lang,
            "task" => Self::Task,
            "id" => Self::Id,
            "shadow" => Self::Shadow,
            "eta" => Self::Eta,
            "expires" => Self::Expires,
            "group" => Self::Group,
            "group_index" => Self::GroupIndex,
            "retries" => Self::Retries,
            "timelimit" => Self::Timelimit,
            "root_id" => Self::RootId,
            "parent_id" => Self::ParentId,
            "argsrepr" => Self::Argsrepr,
            "kwargsrepr" => Self::Kwargsrepr,
            "origin" => Self::Origin,
            "ignore_result" => Self::IgnoreResult,
            "replaced_task_nesting" => Self::Nesting,
            "stamped_headers" => Self::StampedHeaders,
            "stamps" => Self::Stamps,
            "compression" => Self::Compression,
            _ if is_infrastructure(key) => Self::Infrastructure,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Whether a header is put there by a broker or by kombu, about one delivery: it is no business of the task, nor part of
/// the next attempt. RabbitMQ takes a message that carries its own `x-death` for a loop.
pub(crate) fn is_infrastructure(name: &str) -> bool {
    matches!(
        name,
        "compression"
            | "redelivered"
            | "delivery_count"
            | "x-delivery-count"
            | "x-acquired-count"
            | "x-death"
    ) || name
        .strip_prefix("x-first-death-")
        .or_else(|| name.strip_prefix("x-last-death-"))
        .is_some_and(|what| matches!(what, "exchange" | "queue" | "reason"))
}

impl Draft {
    /// Reads a header table: one JSON object, or nothing at all.
    pub(crate) fn read_headers(&mut self, headers: &Bytes) -> Result<(), DecodeError> {
        if headers.is_empty() {
            return Ok(());
        }
        self.read_table(headers).map_err(|fault| self.error(fault))
    }

    fn read_table(&mut self, headers: &Bytes) -> Result<(), Fault> {
        let mut scanner = Scanner::new(headers).map_err(undecodable)?;
        let mut key = scanner.first_key(Field::of).map_err(undecodable)?;
        while let Some(field) = key {
            self.read(field, &mut scanner)?;
            key = scanner.next_key(Field::of).map_err(undecodable)?;
        }
        scanner.finish().map_err(undecodable)?;
        json::keep_last(&mut self.other);
        Ok(())
    }

    /// Reads the value of one header.
    pub(crate) fn read(&mut self, field: Field, scanner: &mut Scanner<'_>) -> Result<(), Fault> {
        match field {
            Field::Lang | Field::Infrastructure => scanner.skip().map_err(undecodable)?,
            Field::Task => self.task = name("task", scanner)?,
            Field::Id => self.id = name("id", scanner)?,
            Field::Shadow => self.shadow = shown(scanner)?.filter(|text| !text.is_empty()),
            Field::Eta => self.eta = time("eta", scanner)?,
            Field::Expires => self.expires = time("expires", scanner)?,
            Field::Group => self.group = text("group", scanner)?.filter(|text| !text.is_empty()),
            Field::GroupIndex => self.group_index = count("group_index", scanner)?,
            Field::Retries => self.retries = count("retries", scanner)?.unwrap_or(0),
            Field::Timelimit => (self.hard_time_limit, self.soft_time_limit) = limits(scanner)?,
            Field::RootId => self.root_id = name("root_id", scanner)?,
            Field::ParentId => self.parent_id = name("parent_id", scanner)?,
            Field::Argsrepr => self.argsrepr = shown(scanner)?,
            Field::Kwargsrepr => self.kwargsrepr = shown(scanner)?,
            Field::Origin => self.origin = shown(scanner)?,
            Field::IgnoreResult => self.ignore_result = truth("ignore_result", scanner)?,
            Field::Nesting => {
                self.replaced_task_nesting = count("replaced_task_nesting", scanner)?.unwrap_or(0)
            }
            Field::StampedHeaders => self.stamped_headers = part("stamped_headers", Kind::Array, scanner)?,
            Field::Stamps => self.stamps = part("stamps", Kind::Object, scanner)?,
            Field::Compression => self.compression = text("compression", scanner)?,
            Field::Other(name) => self.other.push((name, scanner.raw().map_err(undecodable)?)),
        }
        Ok(())
    }

    /// The group that a v1 body names `taskset`, which wins over `group`.
    pub(crate) fn read_taskset(&mut self, scanner: &mut Scanner<'_>) -> Result<Option<String>, Fault> {
        text("taskset", scanner)
    }

    pub(crate) fn set_group(&mut self, group: String) {
        self.group = Some(group);
    }

    /// Display forms are the worker's to make for messages that came without.
    pub(crate) fn set_reprs(&mut self, args: &[u8], kwargs: &[u8]) {
        self.argsrepr.get_or_insert_with(|| crate::repr::args(args));
        self.kwargsrepr.get_or_insert_with(|| crate::repr::kwargs(kwargs));
    }

    /// An error about this message, naming the task as far as it is known.
    pub(crate) fn error(&self, fault: Fault) -> DecodeError {
        DecodeError { fault, task: self.task.clone(), task_id: self.id.clone() }
    }

    pub(crate) fn into_headers(self) -> Result<Headers, DecodeError> {
        let error = |name| self.error(Fault::MissingHeader { name });
        let task = self.task.clone().ok_or_else(|| error("task"))?;
        let id = self.id.clone().ok_or_else(|| error("id"))?;
        Ok(Headers {
            task,
            id,
            shadow: self.shadow,
            eta: self.eta,
            expires: self.expires,
            group: self.group,
            group_index: self.group_index,
            retries: self.retries,
            hard_time_limit: self.hard_time_limit,
            soft_time_limit: self.soft_time_limit,
            root_id: self.root_id,
            parent_id: self.parent_id,
            argsrepr: self.argsrepr,
            kwargsrepr: self.kwargsrepr,
            origin: self.origin,
            ignore_result: self.ignore_result,
            replaced_task_nesting: self.replaced_task_nesting,
            stamped_headers: self.stamped_headers,
            stamps: self.stamps,
            other: self.other,
        })
    }
}

fn undecodable(why: json::Error) -> Fault {
    Fault::Undecodable { part: "headers", expected: "one JSON object", why }
}

fn invalid(name: &'static str, expected: &'static str, value: &[u8]) -> Fault {
    let shown = value.get(..SHOWN_MAX).unwrap_or(value);
    Fault::InvalidHeader { name, expected, found: String::from_utf8_lossy(shown).into_owned() }
}

/// A value that must be text or null.
fn text(name: &'static str, scanner: &mut Scanner<'_>) -> Result<Option<String>, Fault> {
    match scanner.kind().map_err(undecodable)? {
        Kind::String => scanner.text(|text| Some(text.to_owned())).map_err(undecodable),
        kind => none_or_invalid(name, "a string", kind, scanner),
    }
}

/// A value for people: anything but text is as good as absent.
fn shown(scanner: &mut Scanner<'_>) -> Result<Option<String>, Fault> {
    match scanner.kind().map_err(undecodable)? {
        Kind::String => scanner.text(|text| Some(text.to_owned())).map_err(undecodable),
        _ => scanner.skip().map(|()| None).map_err(undecodable),
    }
}

/// A checked name; empty is absent.
fn name<T: FromStr>(name: &'static str, scanner: &mut Scanner<'_>) -> Result<Option<T>, Fault> {
    const EXPECTED: &str = "a string of at most 255 bytes without control characters";
    match scanner.kind().map_err(undecodable)? {
        Kind::String => scanner
            .text(|text| match text {
                "" => Ok(None),
                text => text.parse().map(Some).map_err(|_| invalid(name, EXPECTED, text.as_bytes())),
            })
            .map_err(undecodable)?,
        kind => none_or_invalid(name, EXPECTED, kind, scanner),
    }
}

fn time(name: &'static str, scanner: &mut Scanner<'_>) -> Result<Option<Timestamp>, Fault> {
    const EXPECTED: &str = "an ISO 8601 time between the years 1 and 9999 or null";
    match scanner.kind().map_err(undecodable)? {
        Kind::String => scanner
            .text(|text| {
                Timestamp::parse_iso(text).map(Some).ok_or_else(|| invalid(name, EXPECTED, text.as_bytes()))
            })
            .map_err(undecodable)?,
        kind => none_or_invalid(name, EXPECTED, kind, scanner),
    }
}

fn truth(name: &'static str, scanner: &mut Scanner<'_>) -> Result<Option<bool>, Fault> {
    match scanner.kind().map_err(undecodable)? {
        Kind::Bool => scanner.boolean().map(Some).map_err(undecodable),
        kind => none_or_invalid(name, "a boolean or null", kind, scanner),
    }
}

/// A whole number from 0 to 2³²−1; some producers write it as a float.
fn count(name: &'static str, scanner: &mut Scanner<'_>) -> Result<Option<u32>, Fault> {
    const EXPECTED: &str = "a whole number from 0 to 4294967295 or null";
    let kind = scanner.kind().map_err(undecodable)?;
    if kind != Kind::Number {
        return none_or_invalid(name, EXPECTED, kind, scanner);
    }
    let raw = scanner.raw().map_err(undecodable)?;
    let number = match NumberAny::from_bytes(&raw, true) {
        Ok(NumberAny::Int(NumberInt::Int(number))) => u32::try_from(number).ok(),
        Ok(NumberAny::Float(number)) => whole(number),
        _ => None,
    };
    number.map(Some).ok_or_else(|| invalid(name, EXPECTED, &raw))
}

fn whole(number: f64) -> Option<u32> {
    let fits = (0.0..=f64::from(u32::MAX)).contains(&number) && number.fract() == 0.0;
    // Exact: the range and the fraction were checked just now.
    fits.then_some(number as u32)
}

/// `[hard, soft]`, each a number of seconds; null, 0 and what is less mean none.
fn limits(scanner: &mut Scanner<'_>) -> Result<(Option<Duration>, Option<Duration>), Fault> {
    const EXPECTED: &str = "`[hard, soft]` in seconds";
    let kind = scanner.kind().map_err(undecodable)?;
    let raw = scanner.raw().map_err(undecodable)?;
    if kind == Kind::Null {
        return Ok((None, None));
    }
    let bad = || invalid("timelimit", EXPECTED, &raw);
    let elements = json::elements(&raw).map_err(|_| bad())?;
    let limit = |place: usize| match elements.get(place) {
        None => Ok(None),
        Some(value) if json::is_null(value) => Ok(None),
        Some(value) => seconds(value).ok_or_else(bad),
    };
    if elements.len() > 2 {
        return Err(bad());
    }
    Ok((limit(0)?, limit(1)?))
}

fn seconds(value: &[u8]) -> Option<Option<Duration>> {
    let seconds: f64 = match NumberAny::from_bytes(value, true).ok()? {
        NumberAny::Int(number) => number.into(),
        NumberAny::Float(number) => number,
    };
    // What is too long to be told as a duration is as good as no limit.
    Some(Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero()))
}

/// A raw part of one kind.
fn part(name: &'static str, wanted: Kind, scanner: &mut Scanner<'_>) -> Result<Option<Bytes>, Fault> {
    let kind = scanner.kind().map_err(undecodable)?;
    if kind == wanted {
        return scanner.raw().map(Some).map_err(undecodable);
    }
    none_or_invalid(
        name,
        if wanted == Kind::Array { "an array or null" } else { "an object or null" },
        kind,
        scanner,
    )
}

fn none_or_invalid<T>(
    name: &'static str,
    expected: &'static str,
    kind: Kind,
    scanner: &mut Scanner<'_>,
) -> Result<Option<T>, Fault> {
    let raw = scanner.raw().map_err(undecodable)?;
    if kind == Kind::Null { Ok(None) } else { Err(invalid(name, expected, &raw)) }
}
