//! Message options by Celery's names, as signatures and retries carry them (`celery-wire.md` §5.1).

use std::time::Duration;

use bytes::Bytes;
use rwork_protocol::json::{self, Kind, Value};
use rwork_protocol::{Headers, InvalidName, QueueName, TaskId, TaskMessage, Timestamp};

use crate::Error;

/// How much of a bad value an error shows, in characters.
const SHOWN_MAX: usize = 64;

/// The options of one message. Null is the same as absent. What is not sent (`add_to_parent`, `max_retries`, …) and what
/// this worker decides (`serializer`, `compression`, `retry_policy`, …) is passed over.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) task_id: Option<TaskId>,
    pub(crate) group_id: Option<String>,
    pub(crate) group_index: Option<u32>,
    pub(crate) root_id: Option<TaskId>,
    pub(crate) parent_id: Option<TaskId>,
    pub(crate) chord: Option<Bytes>,
    pub(crate) chain: Option<Bytes>,
    pub(crate) link: Option<Bytes>,
    pub(crate) link_error: Option<Bytes>,
    /// `countdown`, reckoned from now, or `eta`.
    pub(crate) eta: Option<Timestamp>,
    pub(crate) retries: Option<u32>,
    pub(crate) replaced_task_nesting: Option<u32>,
    pub(crate) stamped_headers: Option<Bytes>,
    pub(crate) stamps: Option<Bytes>,
    pub(crate) queue: Option<QueueName>,
    reply_to: Option<String>,
    expires: Option<Timestamp>,
    priority: Option<u8>,
    delivery_mode: Option<u8>,
    headers: Vec<(String, Bytes)>,
    shadow: Option<String>,
    hard_time_limit: Option<Duration>,
    soft_time_limit: Option<Duration>,
    ignore_result: Option<bool>,
}

impl Options {
    pub(crate) fn read(entries: &[(String, Bytes)], now: Timestamp) -> Result<Self, Error> {
        let mut options = Self::default();
        let mut route = Route::default();
        let mut countdown = None;
        for (name, raw) in entries.iter().filter(|(_, raw)| !json::is_null(raw)) {
            let option = Given { name, raw };
            match name.as_str() {
                "task_id" => options.task_id = Some(option.name_of("task_id", TaskId::new)?),
                "group_id" => options.group_id = Some(option.text()?),
                "group_index" => options.group_index = Some(option.whole()?),
                "root_id" => options.root_id = Some(option.name_of("root_id", TaskId::new)?),
                "parent_id" => options.parent_id = Some(option.name_of("parent_id", TaskId::new)?),
                "chord" => options.chord = Some(raw.clone()),
                "chain" => options.chain = Some(option.part(Kind::Array)?),
                "link" => options.link = Some(list(raw)),
                "link_error" => options.link_error = Some(list(raw)),
                "countdown" => countdown = Some(later(now, option.seconds()?)),
                "eta" => options.eta = Some(option.time()?),
                "expires" => options.expires = Some(option.time_or_seconds(now)?),
                "retries" => options.retries = Some(option.whole()?),
                "replaced_task_nesting" => options.replaced_task_nesting = Some(option.whole()?),
                "stamped_headers" => options.stamped_headers = Some(option.part(Kind::Array)?),
                "queue" => route.queue = Some(option.name_of("queue", QueueName::new)?),
                "routing_key" => route.key = Some(option.name_of("routing_key", QueueName::new)?),
                "exchange" => route.exchange = Some(option.text()?),
                "reply_to" => options.reply_to = Some(option.text()?),
                "priority" => options.priority = Some(option.small()?),
                "delivery_mode" => options.delivery_mode = Some(option.small()?),
                "headers" => options.headers = option.headers()?,
                "shadow" => options.shadow = Some(option.text()?),
                "time_limit" => options.hard_time_limit = Some(option.limit()?),
                "soft_time_limit" => options.soft_time_limit = Some(option.limit()?),
                "ignore_result" => options.ignore_result = Some(option.truth()?),
                _ => {}
            }
        }
        options.eta = countdown.or(options.eta);
        options.queue = route.queue()?;
        options.stamps = stamps(entries, options.stamped_headers.as_ref())?;
        Ok(options)
    }

    /// From one JSON object; nothing at all is no options.
    pub(crate) fn parse(object: &[u8], now: Timestamp) -> Result<Self, Error> {
        if object.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        let entries = json::entries(&Bytes::copy_from_slice(object))
            .map_err(|source| Error::Json { what: "message options", source })?;
        Self::read(&entries, now)
    }

    /// Puts what describes the message itself over what it says.
    pub(crate) fn override_features(self, message: &mut TaskMessage) {
        let headers = &mut message.headers;
        replace(&mut headers.expires, self.expires);
        replace(&mut headers.shadow, self.shadow);
        replace(&mut headers.hard_time_limit, self.hard_time_limit);
        replace(&mut headers.soft_time_limit, self.soft_time_limit);
        replace(&mut headers.ignore_result, self.ignore_result);
        for (name, value) in self.headers {
            match headers.other.iter_mut().find(|(known, _)| *known == name) {
                Some((_, old)) => *old = value,
                None => headers.other.push((name, value)),
            }
        }
        let properties = &mut message.properties;
        replace(&mut properties.reply_to, self.reply_to);
        replace(&mut properties.priority, self.priority);
        replace(&mut properties.delivery_mode, self.delivery_mode);
    }
}

fn replace<T>(old: &mut Option<T>, new: Option<T>) {
    if new.is_some() {
        *old = new;
    }
}

/// A single signature is a list of one.
pub(crate) fn list(signatures: &Bytes) -> Bytes {
    if Kind::of(signatures) == Some(Kind::Array) { signatures.clone() } else { json::array_of(&[signatures]) }
}

/// Where to, as far as options say.
#[derive(Default)]
struct Route {
    queue: Option<QueueName>,
    key: Option<QueueName>,
    exchange: Option<String>,
}

impl Route {
    /// On the default exchange a routing key is a queue's name.
    fn queue(self) -> Result<Option<QueueName>, Error> {
        match (self.queue, self.exchange.as_deref()) {
            (Some(queue), _) => Ok(Some(queue)),
            (None, None | Some("")) => Ok(self.key),
            (None, Some(exchange)) => Err(Error::Unsupported {
                expected: "option `queue`, or `routing_key` on the default exchange",
                found: format!("exchange `{exchange}`"),
            }),
        }
    }
}

/// The stamps that `stamped_headers` names, out of the options beside it.
fn stamps(entries: &[(String, Bytes)], names: Option<&Bytes>) -> Result<Option<Bytes>, Error> {
    let Some(names) = names else { return Ok(None) };
    let json_error = |source| Error::Json { what: "option `stamped_headers`", source };
    let mut stamps = Vec::new();
    for name in json::elements(names).map_err(json_error)? {
        let name = json::text(&name).map_err(json_error)?;
        stamps.extend(entries.iter().find(|(known, _)| *known == name));
    }
    let stamps: Vec<(&str, &Bytes)> =
        stamps.into_iter().map(|(name, value)| (name.as_str(), value)).collect();
    Ok(Some(json::object_of(&stamps)))
}

fn later(now: Timestamp, seconds: f64) -> Timestamp {
    Duration::try_from_secs_f64(seconds).map_or(now, |delay| now.plus(delay))
}

/// One option that is not null.
struct Given<'a> {
    name: &'a str,
    raw: &'a Bytes,
}

impl Given<'_> {
    fn wrong(&self, expected: &'static str) -> Error {
        let found = String::from_utf8_lossy(self.raw).chars().take(SHOWN_MAX).collect();
        Error::Option { name: self.name.to_owned(), expected, found }
    }

    fn text(&self) -> Result<String, Error> {
        json::text(self.raw).map_err(|_| self.wrong("a string"))
    }

    fn name_of<T>(
        &self,
        name: &'static str,
        make: impl FnOnce(String) -> Result<T, InvalidName>,
    ) -> Result<T, Error> {
        make(self.text()?).map_err(|source| Error::Name { name, source })
    }

    fn part(&self, wanted: Kind) -> Result<Bytes, Error> {
        if Kind::of(self.raw) == Some(wanted) { Ok(self.raw.clone()) } else { Err(self.wrong("an array")) }
    }

    fn truth(&self) -> Result<bool, Error> {
        match Value::parse(self.raw) {
            Ok(Value::Bool(truth)) => Ok(truth),
            _ => Err(self.wrong("a boolean")),
        }
    }

    fn seconds(&self) -> Result<f64, Error> {
        match Value::parse(self.raw) {
            Ok(Value::Int(seconds)) => Ok(seconds as f64),
            Ok(Value::Float(seconds)) if seconds.is_finite() => Ok(seconds),
            _ => Err(self.wrong("a number of seconds")),
        }
    }

    fn limit(&self) -> Result<Duration, Error> {
        Duration::try_from_secs_f64(self.seconds()?).map_err(|_| self.wrong("a number of seconds, 0 or more"))
    }

    fn whole(&self) -> Result<u32, Error> {
        match Value::parse(self.raw) {
            Ok(Value::Int(number)) => u32::try_from(number).map_err(|_| self.wrong("a whole number")),
            _ => Err(self.wrong("a whole number")),
        }
    }

    fn small(&self) -> Result<u8, Error> {
        u8::try_from(self.whole()?).map_err(|_| self.wrong("a whole number from 0 to 255"))
    }

    fn time(&self) -> Result<Timestamp, Error> {
        json::text(self.raw)
            .ok()
            .and_then(|text| Timestamp::parse_iso(&text))
            .ok_or_else(|| self.wrong("an ISO 8601 time"))
    }

    fn time_or_seconds(&self, now: Timestamp) -> Result<Timestamp, Error> {
        match Kind::of(self.raw) {
            Some(Kind::Number) => Ok(later(now, self.seconds()?)),
            _ => self.time(),
        }
    }

    fn headers(&self) -> Result<Vec<(String, Bytes)>, Error> {
        let headers = json::entries(self.raw).map_err(|_| self.wrong("an object"))?;
        if headers.iter().any(|(name, _)| Headers::is_reserved(name)) {
            return Err(self.wrong("an object without the protocol's own headers"));
        }
        Ok(headers)
    }
}
