//! `rwork:task/request`: what is known of the message. Headers are parsed when the first is asked for.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::bindings::rwork::task::request::{Host, Info};
use crate::state::State;

impl Host for State {
    fn get(&mut self) -> wasmtime::Result<Info> {
        let info = &self.call.info;
        Ok(Info {
            root_id: info.root_id.clone(),
            parent_id: info.parent_id.clone(),
            group_id: info.group_id.clone(),
            group_index: info.group_index,
            retries: info.retries,
            delivery_count: info.delivery_count,
            redelivered: info.redelivered,
            queue: info.queue.clone(),
            priority: info.priority,
            hostname: info.hostname.clone(),
            origin: info.origin.clone(),
            correlation_id: info.correlation_id.clone(),
            reply_to: info.reply_to.clone(),
            eta_unix_ms: info.eta_unix_ms,
            expires_unix_ms: info.expires_unix_ms,
        })
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        Ok(self.headers().get(&name).map(|value| value.get().to_owned()))
    }

    fn header_names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.headers().keys().cloned().collect())
    }
}

impl State {
    /// A document that is not one JSON object has no headers.
    fn headers(&mut self) -> &BTreeMap<String, Box<RawValue>> {
        let text = &self.call.headers;
        self.header_index.get_or_insert_with(|| serde_json::from_slice(text).unwrap_or_default())
    }
}
