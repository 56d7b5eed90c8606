//! Where an exchange sends a message: kombu's binding tables (`celery-wire.md` §2.3).

use std::collections::{BTreeSet, HashMap};

use regex::Regex;
use rwork_protocol::service::Error;

use crate::handle::Inner;
use crate::reply;

/// The tables of some exchanges, as they are now.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    tables: HashMap<String, Vec<Binding>>,
}

#[derive(Debug)]
struct Binding {
    routing_key: String,
    /// Of a topic exchange. One that can't be read matches nothing.
    pattern: Option<Option<Regex>>,
    queue: String,
}

impl Bindings {
    /// Reads the tables of these exchanges. The default exchange has none.
    pub(crate) async fn read<'a>(
        inner: &Inner,
        exchanges: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let exchanges: BTreeSet<&str> = exchanges.filter(|exchange| !exchange.is_empty()).collect();
        if exchanges.is_empty() {
            return Ok(Self::default());
        }
        let mut pipe = redis::pipe();
        for exchange in &exchanges {
            pipe.cmd("SMEMBERS").arg(inner.broker.keys.bindings(exchange));
        }
        let found = inner.commands.pipeline("read bindings", &pipe).await?;
        let tables = exchanges.into_iter().zip(found).map(|(exchange, members)| {
            let bindings =
                reply::texts(members).iter().filter_map(|member| Binding::read(inner, member)).collect();
            (exchange.to_owned(), bindings)
        });
        Ok(Self { tables: tables.collect() })
    }

    /// The queues of a message, each once. Without a match: the configured one of last resort, or none.
    pub(crate) fn route(&self, inner: &Inner, exchange: &str, routing_key: &str) -> Vec<String> {
        if exchange.is_empty() && !routing_key.is_empty() {
            return vec![routing_key.to_owned()];
        }
        let bindings = self.tables.get(exchange).map(Vec::as_slice).unwrap_or_default();
        let queues: BTreeSet<&String> = bindings
            .iter()
            .filter(|binding| binding.matches(routing_key))
            .map(|binding| &binding.queue)
            .collect();
        if queues.is_empty() {
            return inner.options.transport.deadletter_queue.iter().cloned().collect();
        }
        queues.into_iter().cloned().collect()
    }
}

impl Binding {
    fn read(inner: &Inner, member: &str) -> Option<Self> {
        let (routing_key, pattern, queue) = inner.broker.keys.split_binding(member)?;
        let pattern = (!pattern.is_empty()).then(|| {
            // Python's `match` looks from the start.
            Regex::new(&format!("^(?:{pattern})"))
                .inspect_err(
                    |error| tracing::warn!(%error, pattern, queue, "a binding's pattern can't be read"),
                )
                .ok()
        });
        let queue = (!queue.is_empty()).then(|| queue.to_owned())?;
        Some(Self { routing_key: routing_key.to_owned(), pattern, queue })
    }

    fn matches(&self, routing_key: &str) -> bool {
        match &self.pattern {
            None => self.routing_key == routing_key,
            Some(pattern) => pattern.as_ref().is_some_and(|pattern| pattern.is_match(routing_key)),
        }
    }
}
