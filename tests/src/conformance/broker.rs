//! What every broker must do.

mod dead;
mod delayed;
mod leases;
mod sending;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use rwork_broker::{Broker, Consume, Consumer, Delivery, Disposition, Publish, Reason, Route, Settled};
use rwork_protocol::{Message, Properties, QueueName, Timestamp};

use super::{Place, case};

/// Long enough to be no part of a case.
const LONG: Duration = Duration::from_secs(10);

/// Runs every case; `connect` gives a connection to a place that was empty when the suite began.
///
/// # Errors
/// The first case that failed, by name.
pub async fn suite(connect: impl AsyncFn(Place) -> Result<Arc<dyn Broker>>) -> Result<()> {
    let connect = |place| -> LocalBoxFuture<'_, _> { Box::pin(connect(place)) };
    let site = &Site { connect: &connect };
    macro_rules! cases {
        ($($module:ident::$name:ident),* $(,)?) => {
            $( case(stringify!($name), $module::$name(site)).await?; )*
        };
    }
    cases![
        sending::messages_come_in_order_and_whole,
        sending::priorities_come_in_their_order,
        sending::several_queues_are_all_served,
        sending::large_messages_pass_and_larger_are_refused,
        sending::what_cannot_be_routed_is_refused,
        sending::queues_are_counted_and_purged,
        sending::a_waiting_consumer_is_woken,
        settling::acked_messages_are_gone,
        settling::settling_twice_is_harmless,
        settling::released_messages_come_first_and_uncounted,
        settling::requeued_messages_are_counted,
        settling::a_batch_is_answered_in_order,
        settling::a_closed_consumer_gives_back,
        settling::no_more_is_held_than_agreed,
        settling::a_cancelled_receive_loses_nothing,
        settling::two_consumers_share_without_duplicates,
        delayed::delayed_messages_wait_for_their_time,
        delayed::many_delayed_messages_come_by_their_time,
        dead::dead_letters_are_kept_whole,
        dead::dead_letters_are_paged_and_picked,
        dead::retried_dead_letters_are_new,
        leases::a_dead_consumers_messages_come_back,
        leases::renewed_leases_last,
        leases::a_lost_lease_is_told,
    ];
    Ok(())
}

/// Where the broker under test can be reached.
struct Site<'a> {
    connect: &'a dyn Fn(Place) -> LocalBoxFuture<'a, Result<Arc<dyn Broker>>>,
}

impl Site<'_> {
    /// A connection for a case that takes no interest in leases.
    async fn connect(&self, name: &'static str) -> Result<Arc<dyn Broker>> {
        self.leased(name, LONG).await
    }

    async fn leased(&self, name: &'static str, lease: Duration) -> Result<Arc<dyn Broker>> {
        (self.connect)(Place { name, lease }).await
    }
}

fn queue(name: &str) -> Result<QueueName> {
    Ok(QueueName::new(name)?)
}

/// A message like Celery's, told apart by its number.
fn message(number: usize) -> Message {
    Message {
        headers: Bytes::from(format!(r#"{{"id":"{number}","task":"t","retries":0}}"#)),
        properties: Properties {
            correlation_id: Some(number.to_string()),
            delivery_mode: Some(2),
            ..Properties::default()
        },
        content_type: "application/json".to_owned(),
        content_encoding: "utf-8".to_owned(),
        body: Bytes::from(format!("[[{number}],{{}},null]")),
    }
}

fn to(queue: &QueueName, message: Message) -> Publish {
    Publish { route: Route::queue(queue), message, not_before: None }
}

fn numbered(queue: &QueueName, numbers: std::ops::Range<usize>) -> Vec<Publish> {
    numbers.map(|number| to(queue, message(number))).collect()
}

async fn consumer(broker: &Arc<dyn Broker>, queues: &[&QueueName]) -> Result<Box<dyn Consumer>> {
    let queues = queues.iter().map(|queue| (*queue).clone()).collect();
    Ok(broker.consume(Consume { queues, name: "suite@host".to_owned(), unsettled_max: 1000 }).await?)
}

/// Receives until there are `count`.
async fn receive(consumer: &dyn Consumer, count: usize) -> Result<Vec<Delivery>> {
    let mut all = Vec::new();
    while all.len() < count {
        let batch = consumer.receive(count - all.len()).await?;
        ensure!(!batch.is_empty(), "`receive` returned with nothing");
        ensure!(batch.len() <= count - all.len(), "`receive` returned more than it was asked for");
        all.extend(batch);
    }
    Ok(all)
}

/// The numbers of messages, in the order in which they came.
fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    let number = |delivery: &Delivery| delivery.message.properties.correlation_id.as_deref()?.parse().ok();
    deliveries.iter().filter_map(number).collect()
}

/// Settles all alike; every one must have been ours.
async fn settle(consumer: &dyn Consumer, deliveries: Vec<Delivery>, how: &Disposition) -> Result<()> {
    let count = deliveries.len();
    let batch = deliveries.into_iter().map(|delivery| delivery.settle(how.clone())).collect();
    let settled = consumer.settle(batch).await?;
    ensure!(settled == vec![Settled::Done; count], "expected all to be settled, got {settled:?}");
    Ok(())
}

fn reason(detail: &str) -> Reason {
    Reason {
        kind: "rejected".to_owned(),
        detail: detail.to_owned(),
        worker: "suite@host".to_owned(),
        at: Timestamp::from_millis(1_795_000_000_123),
    }
}

/// Nothing else is there: the next thing to come is a marker that is sent now, to the end of the queue.
async fn nothing_but_a_marker(
    broker: &Arc<dyn Broker>,
    consumer: &dyn Consumer,
    queue: &QueueName,
) -> Result<()> {
    const MARKER: usize = 999_999;
    broker.publish(vec![to(queue, message(MARKER))]).await?;
    let came = receive(consumer, 1).await?;
    ensure!(numbers(&came) == [MARKER], "expected nothing but the marker, got {:?}", numbers(&came));
    settle(consumer, came, &Disposition::Ack).await
}
