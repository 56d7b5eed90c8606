//! The record's text, keys and order as Celery writes them (`celery/backends/base.py: _get_result_meta`).

use bytes::Bytes;

use super::extended::{stamp_names, write_entries, write_text};
use super::{Exception, Extended, Record, State};
use crate::json::{self, Kind, Scanner, write_string};
use crate::{CompressionError, TaskId, Timestamp, decompress_stored};

/// Not a record.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Not even a JSON object.
    #[error("expected {what} to be one JSON object: {why}")]
    Undecodable {
        /// `a result record` or `an encoded exception`.
        what: &'static str,
        /// What the parser met, and where.
        why: json::Error,
    },
    /// It can't be decompressed.
    #[error("expected a result record that can be decompressed: {0}")]
    Compression(CompressionError),
    /// A key is missing or has a value that can't be used.
    #[error("expected `{key}` of {what} to be {expected}, found {found}")]
    Shape {
        /// `a result record` or `an encoded exception`.
        what: &'static str,
        /// The key.
        key: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

const RECORD: &str = "a result record";
const EXCEPTION: &str = "an encoded exception";

impl Record {
    /// The record as stores keep it, and as waiting clients are told it.
    pub fn encode(&self) -> Bytes {
        let traceback = self.traceback.as_ref().map_or(0, String::len);
        let children = self.children.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(self.result.len() + traceback + children + 320);
        out.extend_from_slice(b"{\"status\": ");
        write_string(&mut out, self.status.as_str());
        out.extend_from_slice(b", \"result\": ");
        out.extend_from_slice(&self.result);
        write_text(&mut out, ", \"traceback\": ", self.traceback.as_deref());
        out.extend_from_slice(b", \"children\": ");
        out.extend_from_slice(self.children.as_deref().unwrap_or(b"null"));
        write_text(&mut out, ", \"date_done\": ", self.date_done.map(Timestamp::to_iso).as_deref());
        for (key, value) in [(", \"group_id\": ", &self.group_id), (", \"parent_id\": ", &self.parent_id)] {
            if value.is_some() {
                write_text(&mut out, key, value.as_deref());
            }
        }
        if let Some(extended) = &self.extended {
            extended.write(&mut out);
        }
        if self.component.is_some() {
            write_text(&mut out, ", \"component\": ", self.component.as_deref());
        }
        write_entries(&mut out, &self.other);
        write_text(&mut out, ", \"task_id\": ", Some(self.task_id.as_str()));
        out.push(b'}');
        out.into()
    }

    /// Reads a record that any Celery worker may have written. `status` and `task_id` must be there; what only people read
    /// is taken as absent when it is of the wrong kind; unknown keys are kept. Half characters (`"\\ud800"`) are read as
    /// U+FFFD.
    ///
    /// # Errors
    /// When it is not such a record.
    pub fn decode(record: &Bytes) -> Result<Self, RecordError> {
        match read(record) {
            Err(error @ RecordError::Undecodable { .. }) => match json::without_lone_surrogates(record) {
                Some(repaired) => read(&repaired),
                None => Err(error),
            },
            decoded => decoded,
        }
    }

    /// Reads what a store holds: a record as [`Record::decode`] does, which Celery may have compressed
    /// (`result_compression`); at most `bytes_max` bytes come out of one that is.
    ///
    /// # Errors
    /// When it can't be decompressed, or is not a record.
    pub fn decode_stored(stored: &Bytes, bytes_max: usize) -> Result<Self, RecordError> {
        let record = decompress_stored(stored, bytes_max).map_err(RecordError::Compression)?;
        Self::decode(&record)
    }
}

fn read(record: &Bytes) -> Result<Record, RecordError> {
    let undecodable = |why| RecordError::Undecodable { what: RECORD, why };
    let mut scanner = Scanner::new(record).map_err(undecodable)?;
    let mut parts = Parts::default();
    let mut key = scanner.first_key(Key::of).map_err(undecodable)?;
    while let Some(known) = key {
        let value = scanner.raw().map_err(undecodable)?;
        parts.put(known, value);
        key = scanner.next_key(Key::of).map_err(undecodable)?;
    }
    scanner.finish().map_err(undecodable)?;
    parts.into_record()
}

enum Key {
    Status,
    Result,
    Traceback,
    Children,
    DateDone,
    GroupId,
    ParentId,
    Component,
    TaskId,
    Called(Called),
    Other(String),
}

/// A key of extended results.
enum Called {
    Name,
    Args,
    Kwargs,
    Worker,
    Retries,
    Queue,
    StampedHeaders,
}

impl Key {
    fn of(key: &str) -> Self {
        match key {
            "status" => Self::Status,
            "result" => Self::Result,
            "traceback" => Self::Traceback,
            "children" => Self::Children,
            "date_done" => Self::DateDone,
            "group_id" => Self::GroupId,
            "parent_id" => Self::ParentId,
            "component" => Self::Component,
            "task_id" => Self::TaskId,
            "name" => Self::Called(Called::Name),
            "args" => Self::Called(Called::Args),
            "kwargs" => Self::Called(Called::Kwargs),
            "worker" => Self::Called(Called::Worker),
            "retries" => Self::Called(Called::Retries),
            "queue" => Self::Called(Called::Queue),
            "stamped_headers" => Self::Called(Called::StampedHeaders),
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Whether a key has a meaning in every record.
pub(super) fn is_own_key(key: &str) -> bool {
    !matches!(Key::of(key), Key::Other(_))
}

#[derive(Default)]
struct Parts {
    status: Option<Bytes>,
    result: Option<Bytes>,
    traceback: Option<String>,
    children: Option<Bytes>,
    date_done: Option<Timestamp>,
    group_id: Option<String>,
    parent_id: Option<String>,
    component: Option<String>,
    task_id: Option<Bytes>,
    extended: Option<Box<Extended>>,
    other: Vec<(String, Bytes)>,
}

impl Parts {
    fn put(&mut self, key: Key, value: Bytes) {
        match key {
            Key::Status => self.status = Some(value),
            Key::Result => self.result = Some(value),
            Key::Traceback => self.traceback = json::text(&value).ok(),
            Key::Children => self.children = (Kind::of(&value) == Some(Kind::Array)).then_some(value),
            Key::DateDone => {
                self.date_done = json::text(&value).ok().and_then(|text| Timestamp::parse_iso(&text))
            }
            Key::GroupId => self.group_id = json::text(&value).ok(),
            Key::ParentId => self.parent_id = json::text(&value).ok(),
            Key::Component => self.component = json::text(&value).ok(),
            Key::TaskId => self.task_id = Some(value),
            Key::Called(key) => put_called(self.extended.get_or_insert_default(), key, value),
            Key::Other(key) => self.other.push((key, value)),
        }
    }

    fn into_record(mut self) -> Result<Record, RecordError> {
        json::keep_last(&mut self.other);
        if let Some(extended) = &mut self.extended {
            let named = extended.stamped_headers.as_ref().map(stamp_names).unwrap_or_default();
            extended.stamps = self.other.extract_if(.., |(key, _)| named.contains(key)).collect();
        }
        let status = required(RECORD, "status", "a state", self.status.as_ref())?;
        let task_id = required(RECORD, "task_id", "a task id", self.task_id.as_ref())?;
        let task_id = TaskId::new(&task_id).map_err(|error| RecordError::Shape {
            what: RECORD,
            key: "task_id",
            expected: "a task id",
            found: error.to_string(),
        })?;
        Ok(Record {
            task_id,
            status: State::parse(&status),
            result: self.result.unwrap_or(Bytes::from_static(b"null")),
            traceback: self.traceback,
            children: self.children,
            date_done: self.date_done,
            group_id: self.group_id,
            parent_id: self.parent_id,
            component: self.component,
            extended: self.extended,
            other: self.other,
        })
    }
}

fn put_called(extended: &mut Extended, key: Called, value: Bytes) {
    let of_kind = |wanted| (Kind::of(&value) == Some(wanted)).then(|| value.clone());
    match key {
        Called::Name => extended.name = json::text(&value).ok(),
        Called::Args => extended.args = of_kind(Kind::Array),
        Called::Kwargs => extended.kwargs = of_kind(Kind::Object),
        Called::Worker => extended.worker = json::text(&value).ok(),
        Called::Retries => extended.retries = std::str::from_utf8(&value).ok().and_then(|n| n.parse().ok()),
        Called::Queue => extended.queue = json::text(&value).ok(),
        Called::StampedHeaders => extended.stamped_headers = of_kind(Kind::Array),
    }
}

fn required(
    what: &'static str,
    key: &'static str,
    expected: &'static str,
    value: Option<&Bytes>,
) -> Result<String, RecordError> {
    let error = |found: String| RecordError::Shape { what, key, expected, found };
    let value = value.ok_or_else(|| error("none".to_owned()))?;
    json::text(value)
        .map_err(|_| error(Kind::of(value).map_or("nothing".to_owned(), |kind| kind.to_string())))
}

impl Exception {
    /// `{"exc_type": …, "exc_message": […], "exc_module": …}`
    pub fn encode(&self) -> Bytes {
        json::object_of(&[
            ("exc_type", json::string(&self.exc_type)),
            ("exc_message", self.exc_message.clone()),
            ("exc_module", json::string(&self.exc_module)),
        ])
    }

    /// Reads an encoded exception. Arguments that are not an array become its only element, as Celery's client does; no
    /// module becomes the empty one.
    ///
    /// # Errors
    /// When it is not an object with a textual `exc_type`.
    pub fn decode(exception: &Bytes) -> Result<Self, RecordError> {
        let entries =
            json::entries(exception).map_err(|why| RecordError::Undecodable { what: EXCEPTION, why })?;
        let value = |key: &str| entries.iter().find(|(known, _)| known == key).map(|(_, value)| value);
        let exc_type = required(EXCEPTION, "exc_type", "a class name", value("exc_type"))?;
        let exc_message = match value("exc_message") {
            None => Bytes::from_static(b"[]"),
            Some(arguments) if Kind::of(arguments) == Some(Kind::Array) => arguments.clone(),
            Some(argument) => json::array_of(&[argument]),
        };
        let exc_module = value("exc_module").and_then(|module| json::text(module).ok()).unwrap_or_default();
        Ok(Self { exc_type, exc_message, exc_module })
    }
}
