//! `rwork:task/request`: what is known of the message. Headers are parsed when the first is asked for.

use std::collections::BTreeMap;

use jiter::{Jiter, JiterError};

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
        Ok(self.headers().get(&name).cloned())
    }

    fn header_names(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.headers().keys().cloned().collect())
    }
}

impl State {
    /// A document that is not one JSON object has no headers.
    fn headers(&mut self) -> &BTreeMap<String, String> {
        let text = &self.call.headers;
        self.header_index.get_or_insert_with(|| index(text).unwrap_or_default())
    }
}

/// Each header's value as the JSON that it came in, with `NaN` and `Infinity` where Python wrote them.
fn index(text: &[u8]) -> Result<BTreeMap<String, String>, JiterError> {
    let mut jiter = Jiter::new(text).with_allow_inf_nan();
    let mut index = BTreeMap::new();
    let mut key = jiter.next_object()?.map(str::to_owned);
    while let Some(name) = key {
        let start = jiter.current_index();
        jiter.next_skip()?;
        let value = String::from_utf8_lossy(jiter.slice_to_current(start).trim_ascii());
        index.insert(name, value.into_owned());
        key = jiter.next_key()?.map(str::to_owned);
    }
    jiter.finish()?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept_as_they_came() {
        let found = index(br#"{"a": NaN, "b": [1, -Infinity] , "c": "\u00fc", "a": 2}"#).unwrap();
        let expected = [("a", "2"), ("b", "[1, -Infinity]"), ("c", r#""\u00fc""#)];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert!(index(b"[1]").is_err() && index(b"{\"a\": 1} 2").is_err());
    }
}
