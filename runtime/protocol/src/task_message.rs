//! A task message taken apart as far as a worker needs: headers read, arguments and follow-ups still bytes.

use bytes::Bytes;

use crate::content::{JSON, UTF_8};
use crate::{Headers, Message, Properties, json};

/// A task message. `args`, `kwargs` and the parts of `embed` are slices of the message's body, never parsed here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMessage {
    /// What the headers say.
    pub headers: Headers,
    /// The message's properties, as they came.
    pub properties: Properties,
    /// Positional arguments: one JSON array.
    pub args: Bytes,
    /// Keyword arguments: one JSON object.
    pub kwargs: Bytes,
    /// What follows this task.
    pub embed: Embed,
}

impl TaskMessage {
    /// The message in protocol v2, its body in JSON.
    pub fn encode(&self) -> Message {
        Message {
            headers: self.headers.encode(),
            properties: self.properties.clone(),
            content_type: JSON.to_owned(),
            content_encoding: UTF_8.to_owned(),
            body: self.encode_body(),
        }
    }

    /// `[args, kwargs, {"callbacks": …, "errbacks": …, "chain": …, "chord": …}]`
    fn encode_body(&self) -> Bytes {
        let embed = &self.embed;
        let part = |part: &Option<Bytes>| part.as_ref().map_or(4, Bytes::len);
        let parts = part(&embed.callbacks) + part(&embed.errbacks) + part(&embed.chain) + part(&embed.chord);
        let mut out = Vec::with_capacity(self.args.len() + self.kwargs.len() + parts + 64);
        out.push(b'[');
        out.extend_from_slice(&self.args);
        out.extend_from_slice(b", ");
        out.extend_from_slice(&self.kwargs);
        for (key, part) in [
            (", {\"callbacks\": ", &embed.callbacks),
            (", \"errbacks\": ", &embed.errbacks),
            (", \"chain\": ", &embed.chain),
            (", \"chord\": ", &embed.chord),
        ] {
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(part.as_deref().unwrap_or(b"null"));
        }
        out.extend_from_slice(b"}]");
        out.into()
    }
}

/// What follows a task, as encoded signatures; canvas reads them when their time comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Embed {
    /// Sent after success: one JSON array of signatures.
    pub callbacks: Option<Bytes>,
    /// Sent after failure: one JSON array of signatures.
    pub errbacks: Option<Bytes>,
    /// The rest of the chain, **last step first**: one JSON array of signatures. `[]` after the last but one.
    pub chain: Option<Bytes>,
    /// Body of the chord whose header this task belongs to: one encoded signature.
    pub chord: Option<Bytes>,
}

impl Embed {
    /// Whether nothing follows: all absent or empty.
    pub fn is_empty(&self) -> bool {
        [&self.callbacks, &self.errbacks, &self.chain, &self.chord]
            .into_iter()
            .all(|part| part.as_ref().is_none_or(|part| json::is_empty(part)))
    }
}
