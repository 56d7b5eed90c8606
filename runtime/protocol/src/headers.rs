//! The headers of a task message, protocol v2 (`celery/app/amqp.py: as_task_v2`).

use std::io::Write as _;
use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem::Finder;

use crate::draft::{Draft, Field, is_infrastructure};
use crate::error::DecodeError;
use crate::json::{self, write_seconds, write_string};
use crate::{TaskId, TaskName, Timestamp};

/// Celery's headers by their meaning; whatever else a message carries is kept as it came.
///
/// Absent and `null` are the same, as they are to Celery. Values that only people read (`argsrepr`, `origin`, …) are taken
/// as absent when they are of the wrong type; a wrong type in a value that decides something is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Registered task name.
    pub task: TaskName,
    /// Task id: the same for every attempt and delivery.
    pub id: TaskId,
    /// Name to show instead of `task`; never used for look-up.
    pub shadow: Option<String>,
    /// Not to be started before.
    pub eta: Option<Timestamp>,
    /// Not to be started after.
    pub expires: Option<Timestamp>,
    /// The group it belongs to.
    pub group: Option<String>,
    /// Its place in the group.
    pub group_index: Option<u32>,
    /// Attempts before this one that ended in a retry.
    pub retries: u32,
    /// Hard time limit of this message; `None` (0 or null on the wire): the task's own.
    pub hard_time_limit: Option<Duration>,
    /// Soft time limit of this message; `None` (0 or null on the wire): the task's own.
    pub soft_time_limit: Option<Duration>,
    /// First task of the workflow; absent: this one.
    pub root_id: Option<TaskId>,
    /// The task that sent this one.
    pub parent_id: Option<TaskId>,
    /// Arguments for display.
    pub argsrepr: Option<String>,
    /// Keyword arguments for display.
    pub kwargsrepr: Option<String>,
    /// Producer: `gen<pid>@<host>`.
    pub origin: Option<String>,
    /// True: store no result; false: store it; absent: as the task says.
    pub ignore_result: Option<bool>,
    /// How many times `replace` has led to this message.
    pub replaced_task_nesting: u32,
    /// Names of stamps: one JSON array.
    pub stamped_headers: Option<Bytes>,
    /// Stamps by name: one JSON object.
    pub stamps: Option<Bytes>,
    /// Every other header in order, its value as JSON. Without what brokers and kombu add about one delivery or one body:
    /// `compression`, `redelivered`, `x-death` and the like.
    pub other: Vec<(String, Bytes)>,
}

impl Headers {
    /// Headers of a first attempt, everything optional absent.
    pub fn new(task: TaskName, id: TaskId) -> Self {
        Self {
            task,
            id,
            shadow: None,
            eta: None,
            expires: None,
            group: None,
            group_index: None,
            retries: 0,
            hard_time_limit: None,
            soft_time_limit: None,
            root_id: None,
            parent_id: None,
            argsrepr: None,
            kwargsrepr: None,
            origin: None,
            ignore_result: None,
            replaced_task_nesting: 0,
            stamped_headers: None,
            stamps: None,
            other: Vec::new(),
        }
    }

    /// Reads the headers of a v2 message: one JSON object with at least `task` and `id`.
    ///
    /// # Errors
    /// When it is not JSON, a required header is missing, or one that decides something can't be understood.
    pub fn parse(headers: &Bytes) -> Result<Self, DecodeError> {
        let mut draft = Draft::default();
        draft.read_headers(headers)?;
        draft.into_headers()
    }

    /// Whether a header is one of the protocol's own, which no user's header may hide.
    pub fn is_reserved(name: &str) -> bool {
        !matches!(Field::of(name), Field::Other(_))
    }

    /// The first task of the workflow: this one when none is named.
    pub fn root(&self) -> &TaskId {
        self.root_id.as_ref().unwrap_or(&self.id)
    }

    /// The name to show: `shadow`, else `task`.
    pub fn display_name(&self) -> &str {
        self.shadow.as_deref().unwrap_or_else(|| self.task.as_str())
    }

    /// A header that is not Celery's own, as JSON.
    pub fn other(&self, name: &str) -> Option<&Bytes> {
        self.other.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Celery's 19 headers in its order, then the others.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(640);
        let mut writer = Writer { out: &mut out };
        writer.open("lang").text(Some("py"));
        writer.key("task").text(Some(self.task.as_str()));
        writer.key("id").text(Some(self.id.as_str()));
        writer.key("shadow").text(self.shadow.as_deref());
        writer.key("eta").time(self.eta);
        writer.key("expires").time(self.expires);
        writer.key("group").text(self.group.as_deref());
        writer.key("group_index").number(self.group_index);
        writer.key("retries").number(Some(self.retries));
        writer.key("timelimit").limits(self.hard_time_limit, self.soft_time_limit);
        writer.key("root_id").text(self.root_id.as_ref().map(TaskId::as_str));
        writer.key("parent_id").text(self.parent_id.as_ref().map(TaskId::as_str));
        writer.key("argsrepr").text(Some(self.argsrepr.as_deref().unwrap_or_default()));
        writer.key("kwargsrepr").text(Some(self.kwargsrepr.as_deref().unwrap_or_default()));
        writer.key("origin").text(self.origin.as_deref());
        writer.key("ignore_result").raw(match self.ignore_result {
            None => b"null",
            Some(true) => b"true",
            Some(false) => b"false",
        });
        writer.key("replaced_task_nesting").number(Some(self.replaced_task_nesting));
        writer.key("stamped_headers").raw(self.stamped_headers.as_deref().unwrap_or(b"null"));
        writer.key("stamps").raw(self.stamps.as_deref().unwrap_or(b"{}"));
        for (name, value) in &self.other {
            writer.key(name).raw(value);
        }
        out.push(b'}');
        out.into()
    }
}

/// What there is to do for [`guest_headers`] shows by one of these, which are cheap to look for and nearly never there.
static SIGNS: LazyLock<[Finder<'static>; 6]> = LazyLock::new(|| {
    ["-death", "\"redelivered\"", "\"compression\"", "delivery", "\"x-acquired", "\\ud"].map(Finder::new)
});

/// The headers of a message as its task may see them: without those that brokers and kombu add about one delivery, and with
/// U+FFFD for half characters. The very bytes when there is nothing to leave out.
pub fn guest_headers(wire: &Bytes) -> Bytes {
    if SIGNS.iter().all(|sign| sign.find(wire).is_none()) {
        return wire.clone();
    }
    let mended = json::without_lone_surrogates(wire);
    let wire = mended.as_ref().unwrap_or(wire);
    match json::entries(wire) {
        Ok(mut entries) => {
            entries.retain(|(name, _)| !is_infrastructure(name));
            json::object_of(&entries)
        }
        Err(_) => wire.clone(),
    }
}

/// Writes one object, key by key.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl Writer<'_> {
    fn open(&mut self, name: &str) -> &mut Self {
        self.out.push(b'{');
        self.name(name)
    }

    fn key(&mut self, name: &str) -> &mut Self {
        self.out.extend_from_slice(b", ");
        self.name(name)
    }

    fn name(&mut self, name: &str) -> &mut Self {
        write_string(self.out, name);
        self.out.extend_from_slice(b": ");
        self
    }

    fn raw(&mut self, value: &[u8]) {
        self.out.extend_from_slice(value);
    }

    fn text(&mut self, value: Option<&str>) {
        match value {
            Some(text) => write_string(self.out, text),
            None => self.raw(b"null"),
        }
    }

    fn time(&mut self, value: Option<Timestamp>) {
        self.text(value.map(Timestamp::to_iso).as_deref());
    }

    fn number(&mut self, value: Option<u32>) {
        match value {
            // Writing into a vector never fails.
            Some(number) => drop(write!(self.out, "{number}")),
            None => self.raw(b"null"),
        }
    }

    fn limits(&mut self, hard: Option<Duration>, soft: Option<Duration>) {
        self.raw(b"[");
        self.seconds(hard);
        self.raw(b", ");
        self.seconds(soft);
        self.raw(b"]");
    }

    fn seconds(&mut self, value: Option<Duration>) {
        match value {
            Some(duration) => write_seconds(self.out, duration),
            None => self.raw(b"null"),
        }
    }
}
