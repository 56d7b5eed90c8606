//! What a record holds besides when results are extended (Celery's `result_extended`): how the task was called.

use bytes::Bytes;

use super::codec::is_own_key;
use crate::TaskMessage;
use crate::json::{self, write_string};

/// How a task was called, as a record tells it. Celery writes all six fields, `null` where it does not know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// Registered task name.
    pub name: Option<String>,
    /// Positional arguments: one JSON array.
    pub args: Option<Bytes>,
    /// Keyword arguments: one JSON object.
    pub kwargs: Option<Bytes>,
    /// Node that ran it: `celery@host`.
    pub worker: Option<String>,
    /// Attempts before this one that ended in a retry.
    pub retries: Option<u32>,
    /// Routing key that it came by: its queue.
    pub queue: Option<String>,
    /// Names of stamps: one JSON array. Only in records of stamped tasks.
    pub stamped_headers: Option<Bytes>,
    /// Stamps by name, each value as JSON. Every one is a key of the record's own.
    pub stamps: Vec<(String, Bytes)>,
}

impl Extended {
    /// What a message says of its call; `worker` is the node that ran it, `queue` where it came from.
    pub fn of(message: &TaskMessage, worker: &str, queue: &str) -> Self {
        let headers = &message.headers;
        let (stamped_headers, stamps) = stamps(headers.stamped_headers.as_ref(), headers.stamps.as_ref());
        Self {
            name: Some(headers.task.as_str().to_owned()),
            args: Some(message.args.clone()),
            kwargs: Some(message.kwargs.clone()),
            worker: Some(worker.to_owned()),
            retries: Some(headers.retries),
            queue: Some(queue.to_owned()),
            stamped_headers,
            stamps,
        }
    }

    /// Appends `, "name": …` and the rest, in Celery's order.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_text(out, ", \"name\": ", self.name.as_deref());
        write_raw(out, ", \"args\": ", self.args.as_ref());
        write_raw(out, ", \"kwargs\": ", self.kwargs.as_ref());
        write_text(out, ", \"worker\": ", self.worker.as_deref());
        let retries = self.retries.map(|retries| Bytes::from(retries.to_string()));
        write_raw(out, ", \"retries\": ", retries.as_ref());
        write_text(out, ", \"queue\": ", self.queue.as_deref());
        if self.stamped_headers.is_some() {
            write_raw(out, ", \"stamped_headers\": ", self.stamped_headers.as_ref());
        }
        write_entries(out, &self.stamps);
    }
}

/// Celery stores stamps only when there are any, and of them those that are named.
fn stamps(names: Option<&Bytes>, stamps: Option<&Bytes>) -> (Option<Bytes>, Vec<(String, Bytes)>) {
    let stamps = stamps.and_then(|stamps| json::entries(stamps).ok()).unwrap_or_default();
    if stamps.is_empty() {
        return (None, Vec::new());
    }
    let named = names.map(stamp_names).unwrap_or_default();
    let stamps = stamps.into_iter().filter(|(name, _)| named.contains(name)).collect();
    (Some(names.cloned().unwrap_or(Bytes::from_static(b"null"))), stamps)
}

/// The texts in an array; what is not text is passed over.
pub(super) fn stamp_names(names: &Bytes) -> Vec<String> {
    let names = json::elements(names).unwrap_or_default();
    names.iter().filter_map(|name| json::text(name).ok()).collect()
}

/// Appends `, "key": value` for each entry. A key that a record has of its own can't be hidden so: Celery lets a stamp
/// named `status` replace the status.
pub(super) fn write_entries(out: &mut Vec<u8>, entries: &[(String, Bytes)]) {
    for (key, value) in entries.iter().filter(|(key, _)| !is_own_key(key)) {
        out.extend_from_slice(b", ");
        write_string(out, key);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
    }
}

pub(super) fn write_text(out: &mut Vec<u8>, key: &str, text: Option<&str>) {
    out.extend_from_slice(key.as_bytes());
    match text {
        Some(text) => write_string(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_raw(out: &mut Vec<u8>, key: &str, value: Option<&Bytes>) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(value.map_or(b"null", |value| value));
}
