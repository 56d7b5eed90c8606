//! A task that a producer is about to send.

use std::time::Duration;

use bytes::Bytes;

use crate::json::{self, Kind};
use crate::{Embed, Headers, Properties, TaskId, TaskMessage, TaskName, Timestamp, repr};

/// What a broker takes as `delivery-mode` for a message that must outlive it.
const PERSISTENT: u8 = 2;

/// A task to be sent: what Celery's `apply_async` takes. Only the task's name is required.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Registered task name.
    pub task: TaskName,
    /// Positional arguments: one JSON array. Default `[]`.
    pub args: Bytes,
    /// Keyword arguments: one JSON object. Default `{}`.
    pub kwargs: Bytes,
    /// Its id; `None`: a new one.
    pub id: Option<TaskId>,
    /// Not before; a countdown is this, reckoned from now.
    pub eta: Option<Timestamp>,
    /// Not after.
    pub expires: Option<Timestamp>,
    /// 0–9 on Redis and embedded, 0–255 on AMQP.
    pub priority: Option<u8>,
    /// Headers of the user's own, each value as JSON.
    pub headers: Vec<(String, Bytes)>,
    /// Hard time limit for this message.
    pub hard_time_limit: Option<Duration>,
    /// Soft time limit for this message.
    pub soft_time_limit: Option<Duration>,
    /// True: store no result; false: store it; `None`: as the task says.
    pub ignore_result: Option<bool>,
    /// Name to show instead of `task`.
    pub shadow: Option<String>,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Its place in the group.
    pub group_index: Option<u32>,
    /// First task of the workflow; `None`: this one.
    pub root_id: Option<TaskId>,
    /// The task that sends it.
    pub parent_id: Option<TaskId>,
    /// What follows it.
    pub embed: Embed,
    /// Producer: `gen<pid>@<host>`.
    pub origin: Option<String>,
    /// Queue of an rpc client.
    pub reply_to: Option<String>,
}

/// Arguments that are not what a task can be called with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidArguments {
    /// Not JSON.
    #[error("expected {part} to be {expected}: {why}")]
    Undecodable {
        /// `args`, `kwargs` or `a header`.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What the parser met, and where.
        why: json::Error,
    },
    /// JSON of another kind.
    #[error("expected {part} to be {expected}, got {found}")]
    Kind {
        /// `args` or `kwargs`.
        part: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: Kind,
    },
    /// A header of the user's own that would hide one of Celery's.
    #[error("expected a header name that is not one of the protocol's own, got `{name}`")]
    ReservedHeader {
        /// The header.
        name: String,
    },
}

impl NewTask {
    /// A task without arguments.
    pub fn new(task: TaskName) -> Self {
        Self {
            task,
            args: Bytes::from_static(b"[]"),
            kwargs: Bytes::from_static(b"{}"),
            id: None,
            eta: None,
            expires: None,
            priority: None,
            headers: Vec::new(),
            hard_time_limit: None,
            soft_time_limit: None,
            ignore_result: None,
            shadow: None,
            group: None,
            group_index: None,
            root_id: None,
            parent_id: None,
            embed: Embed::default(),
            origin: None,
            reply_to: None,
        }
    }

    /// The same with these positional arguments: one JSON array.
    #[must_use]
    pub fn args(mut self, args: impl Into<Bytes>) -> Self {
        self.args = args.into();
        self
    }

    /// The same with these keyword arguments: one JSON object.
    #[must_use]
    pub fn kwargs(mut self, kwargs: impl Into<Bytes>) -> Self {
        self.kwargs = kwargs.into();
        self
    }

    /// The message to be published. It is to be held back until its `headers.eta`, if it has one. `now` is what `expires`
    /// is reckoned from for brokers that drop messages by their age.
    ///
    /// # Errors
    /// When `args` is not one JSON array, `kwargs` not one JSON object, a header's value not JSON, or its name one of the
    /// protocol's own.
    pub fn build(self, now: Timestamp) -> Result<TaskMessage, InvalidArguments> {
        check("args", "a JSON array", Kind::Array, &self.args)?;
        check("kwargs", "a JSON object", Kind::Object, &self.kwargs)?;
        self.headers.iter().try_for_each(|(name, value)| check_header(name, value))?;
        let id = self.id.unwrap_or_else(TaskId::generate);
        let properties = Properties {
            correlation_id: Some(id.as_str().to_owned()),
            reply_to: self.reply_to,
            priority: self.priority,
            delivery_mode: Some(PERSISTENT),
            expiration: self.expires.map(|at| expiration(at, now)),
        };
        let headers = Headers {
            shadow: self.shadow,
            eta: self.eta,
            expires: self.expires,
            group: self.group,
            group_index: self.group_index,
            hard_time_limit: self.hard_time_limit,
            soft_time_limit: self.soft_time_limit,
            root_id: Some(self.root_id.unwrap_or_else(|| id.clone())),
            parent_id: self.parent_id,
            argsrepr: Some(repr::args(&self.args)),
            kwargsrepr: Some(repr::kwargs(&self.kwargs)),
            origin: self.origin,
            ignore_result: self.ignore_result,
            other: self.headers,
            ..Headers::new(self.task, id)
        };
        Ok(TaskMessage { headers, properties, args: self.args, kwargs: self.kwargs, embed: self.embed })
    }
}

/// The property `expiration`: whole milliseconds from now as text, never negative.
pub fn expiration(expires: Timestamp, now: Timestamp) -> String {
    expires.since(now).as_millis().to_string()
}

fn check_header(name: &str, value: &[u8]) -> Result<(), InvalidArguments> {
    if Headers::is_reserved(name) {
        return Err(InvalidArguments::ReservedHeader { name: name.to_owned() });
    }
    let part = "a header";
    json::check(value).map(drop).map_err(|why| InvalidArguments::Undecodable {
        part,
        expected: "one JSON value",
        why,
    })
}

fn check(
    part: &'static str,
    expected: &'static str,
    wanted: Kind,
    value: &[u8],
) -> Result<(), InvalidArguments> {
    match json::check(value) {
        Err(why) => Err(InvalidArguments::Undecodable { part, expected, why }),
        Ok(found) if found != wanted => Err(InvalidArguments::Kind { part, expected, found }),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeLimits, decode};

    fn add() -> NewTask {
        NewTask::new(TaskName::new("wapp.add").unwrap())
    }

    #[test]
    fn a_plain_call_is_what_celery_sends() {
        let now = Timestamp::from_millis(1_000);
        let task = NewTask { id: Some(TaskId::new("i").unwrap()), ..add().args("[2, 3]") };
        let message = task.build(now).unwrap().encode();
        assert_eq!(
            message.body,
            r#"[[2, 3], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#
        );
        assert_eq!(
            message.headers,
            r#"{"lang": "py", "task": "wapp.add", "id": "i", "shadow": null, "eta": null, "expires": null, "group": null, "group_index": null, "retries": 0, "timelimit": [null, null], "root_id": "i", "parent_id": null, "argsrepr": "(2, 3)", "kwargsrepr": "{}", "origin": null, "ignore_result": null, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}}"#
        );
        assert_eq!(message.properties.correlation_id.as_deref(), Some("i"));
        assert_eq!((message.properties.delivery_mode, message.properties.expiration), (Some(2), None));
    }

    #[test]
    fn options_reach_the_message() {
        let now = Timestamp::from_millis(1_000);
        let task = NewTask {
            eta: Some(Timestamp::from_millis(60_000)),
            expires: Some(Timestamp::from_millis(121_500)),
            priority: Some(5),
            headers: vec![("x-trace".to_owned(), json::string("abc"))],
            hard_time_limit: Some(Duration::from_secs(30)),
            ignore_result: Some(true),
            ..add().kwargs("{\"y\": 3}")
        };
        let message = task.build(now).unwrap();
        assert_eq!(message.properties.expiration.as_deref(), Some("120500"));
        assert_eq!(
            decode(&message.encode(), &DecodeLimits::default()).unwrap().headers.eta,
            message.headers.eta
        );
        assert_eq!(message.headers.kwargsrepr.as_deref(), Some("{'y': 3}"));
        assert_eq!(expiration(now, Timestamp::from_millis(5_000)), "0");
    }

    #[test]
    fn what_cannot_be_sent_is_named() {
        let error = |task: NewTask| task.build(Timestamp::default()).unwrap_err().to_string();
        assert_eq!(error(add().args("{}")), "expected args to be a JSON array, got an object");
        assert_eq!(error(add().kwargs("[]")), "expected kwargs to be a JSON object, got an array");
        assert!(error(add().args("[1,")).starts_with("expected args to be a JSON array: "));
        let header = |name: &str, value| NewTask {
            headers: vec![(name.to_owned(), Bytes::from_static(value))],
            ..add()
        };
        assert!(error(header("id", b"1")).contains("got `id`"));
        assert!(error(header("x", b"oops")).contains("a header to be one JSON value"));
    }
}
