//! What is in a virtual host, as the server itself sees it at this moment.

use serde::Deserialize;
use serde_json::Value;

use super::RabbitServer;

/// The server tells nobody when a count changes: in [`RabbitServer::until`] it answers so many milliseconds later.
const LOOK_EVERY_MS: u32 = 10;

/// A quorum queue that was made this moment does not run yet: it does within so many looks.
const LOOKS_MAX: u32 = 100;

/// A queue.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `classic` or `quorum`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// Arguments of its declaration; an empty list where there are none.
    pub arguments: Value,
    /// Waiting messages.
    #[serde(rename = "messages_ready")]
    pub ready: u64,
    /// Messages in consumers' hands.
    #[serde(rename = "messages_unacknowledged")]
    pub unsettled: u64,
    /// How many consumers it has.
    pub consumers: u64,
}

impl Queue {
    /// Whether nothing waits in it and nothing of it is held.
    pub fn is_empty(&self) -> bool {
        self.ready + self.unsettled == 0
    }
}

/// An exchange.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Exchange {
    /// Its name; empty for the default one.
    pub name: String,
    /// `direct`, `topic`, `fanout`, `headers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it outlives a restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
}

/// A binding.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub struct Binding {
    /// The exchange; empty for the default one.
    pub source_name: String,
    /// Queue or exchange.
    pub destination_name: String,
    /// `queue` or `exchange`.
    pub destination_kind: String,
    /// Its key.
    pub routing_key: String,
}

impl RabbitServer {
    /// Every queue of a virtual host.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn queues(&self, vhost: &str) -> anyhow::Result<Vec<Queue>> {
        Ok(serde_json::from_value(self.eval(&all_queues(vhost)).await?)?)
    }

    /// One of them, if it is there.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn queue(&self, vhost: &str, name: &str) -> anyhow::Result<Option<Queue>> {
        Ok(self.queues(vhost).await?.into_iter().find(|queue| queue.name == name))
    }

    /// Every exchange of a virtual host but those that the server makes itself.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn exchanges(&self, vhost: &str) -> anyhow::Result<Vec<Exchange>> {
        let expression =
            format!("rabbit_exchange:info_all({}, [name, type, durable, auto_delete])", name(vhost));
        let mut all: Vec<Exchange> = serde_json::from_value(self.eval(&expression).await?)?;
        all.retain(|exchange| !exchange.name.is_empty() && !exchange.name.starts_with("amq."));
        Ok(all)
    }

    /// Every binding of a virtual host but those of the default exchange.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn bindings(&self, vhost: &str) -> anyhow::Result<Vec<Binding>> {
        let expression = format!("rabbit_binding:info_all({})", name(vhost));
        let mut all: Vec<Binding> = serde_json::from_value(self.eval(&expression).await?)?;
        all.retain(|binding| !binding.source_name.is_empty());
        Ok(all)
    }

    /// Every channel of a virtual host: `prefetch_count`, `global_prefetch_count`, `messages_unacknowledged`,
    /// `consumer_count`, `confirm`.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn channels(&self, vhost: &str) -> anyhow::Result<Vec<Value>> {
        let expression = format!(
            "[Info || Info <- rabbit_channel:info_all([vhost, prefetch_count, global_prefetch_count, \
             messages_unacknowledged, consumer_count, confirm]), proplists:get_value(vhost, Info) =:= {}]",
            name(vhost)
        );
        Ok(serde_json::from_value(self.eval(&expression).await?)?)
    }

    /// Every consumer of a virtual host: `queue_name`, `prefetch_count`, `ack_required`, `consumer_tag`.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn consumers(&self, vhost: &str) -> anyhow::Result<Vec<Value>> {
        let expression = format!("rabbit_amqqueue:consumers_all({})", name(vhost));
        Ok(serde_json::from_value(self.eval(&expression).await?)?)
    }

    /// Waits until this holds of a virtual host's queues.
    ///
    /// # Errors
    /// When the server does not run.
    pub async fn until(&self, vhost: &str, holds: impl Fn(&[Queue]) -> bool) -> anyhow::Result<()> {
        let look = format!("timer:sleep({LOOK_EVERY_MS}), {}", all_queues(vhost));
        while !holds(&serde_json::from_value::<Vec<Queue>>(self.eval(&look).await?)?) {}
        Ok(())
    }
}

/// What the server shows of a quorum queue's messages is seconds old; the queue itself is asked. One that was not used since
/// a restart is still in the form of an older version: what is shown of it is right.
fn all_queues(vhost: &str) -> String {
    format!(
        "Items = [name, type, durable, auto_delete, arguments, messages_ready, messages_unacknowledged, consumers], \
         Now = fun Now(Pid, Tries) -> case ra:local_query(Pid, fun rabbit_fifo:overview/1, 1000) of \
         {{ok, {{_, Is}}, _}} when is_map(Is) -> [{{messages_ready, maps:get(num_ready_messages, Is)}}, \
         {{messages_unacknowledged, maps:get(num_checked_out, Is)}}]; \
         {{error, {{badrecord, _}}}} -> []; \
         _ when Tries > 0 -> timer:sleep({LOOK_EVERY_MS}), Now(Pid, Tries - 1) end end, \
         [begin Info = rabbit_amqqueue:info(Q, Items), case proplists:get_value(type, Info) of \
         quorum -> Fresh = Now(amqqueue:get_pid(Q), {LOOKS_MAX}), \
         Fresh ++ [Pair || {{Item, _}} = Pair <- Info, not lists:keymember(Item, 1, Fresh)]; \
         _ -> Info end end || Q <- rabbit_amqqueue:list({})]",
        name(vhost)
    )
}

fn name(vhost: &str) -> String {
    format!("<<{}/utf8>>", Value::from(vhost))
}
