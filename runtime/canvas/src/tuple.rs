//! Result tuples: how a record names the tasks that another one sent (`celery-wire.md` §4.6).
//!
//! ```text
//! task  := [[id, parent], null]
//! group := [[id, parent], [tuple, …]]
//! ```

use bytes::Bytes;
use rwork_protocol::{TaskId, json};

const NULL: Bytes = Bytes::from_static(b"null");

/// One task; `parent` is the tuple of the step before it in a chain.
pub(crate) fn task(id: &TaskId, parent: Option<&Bytes>) -> Bytes {
    json::array_of(&[head(id, parent), NULL])
}

/// A group and its members.
pub(crate) fn group(id: &TaskId, parent: Option<&Bytes>, members: &[Bytes]) -> Bytes {
    json::array_of(&[head(id, parent), json::array_of(members)])
}

fn head(id: &TaskId, parent: Option<&Bytes>) -> Bytes {
    json::array_of(&[json::string(id.as_str()), parent.cloned().unwrap_or(NULL)])
}
