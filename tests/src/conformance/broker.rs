//! What every broker must do.

mod closing;
mod commits;
mod consuming;
mod counting;
mod cuts;
mod dead;
mod delayed;
mod endings;
mod lines;
mod lives;
mod records;
mod sending;

use std::sync::Arc;

use anyhow::{Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use rwork_backend::ResultBackend;
use rwork_broker::{
    Broker, Commit, Committed, Consume, Consumer, Delivery, Disposition, Ending, Ownership, Publish, Reason,
    Receipt, Resumed, Room, Route,
};
use rwork_protocol::{Message, Properties, QueueName, Timestamp};

use super::{Place, case};
use consuming::Consuming;

/// Where the broker under test can be reached, and what can be done to it there.
#[async_trait]
pub trait Ground: Send + Sync {
    /// A connection to a place that was empty when the suite began.
    async fn connect(&self, place: Place) -> Result<Arc<dyn Broker>>;

    /// The place's results, where commits carry records.
    async fn results(&self, _place: Place) -> Result<Option<Arc<dyn ResultBackend>>> {
        Ok(None)
    }

    /// Port of the server, for a proxy before it. `None`: the broker has no server.
    fn server(&self) -> Option<u16> {
        None
    }

    /// Deletes all that the place holds, as a server without persistence does. False: nobody can.
    async fn lose_all(&self, _place: Place) -> Result<bool> {
        Ok(false)
    }
}

/// Runs every case.
///
/// # Errors
/// The first case that failed, by name.
pub async fn suite(ground: &dyn Ground) -> Result<()> {
    let site = &Site { ground };
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
        sending::one_refused_message_stops_no_other,
        sending::queues_are_counted_and_purged,
        sending::a_waiting_consumer_is_woken,
        endings::acked_messages_are_gone,
        endings::ending_twice_is_harmless,
        endings::released_messages_come_first_and_unmarked,
        endings::requeued_messages_are_marked_and_counted,
        endings::a_delayed_delivery_comes_at_its_time_as_new,
        endings::a_batch_is_answered_in_order,
        endings::no_more_is_held_than_agreed,
        endings::no_more_bytes_are_taken_than_there_is_room_for,
        endings::a_cancelled_receive_loses_nothing,
        endings::two_consumers_share_without_duplicates,
        closing::a_closed_consumer_gives_back_unmarked,
        closing::what_had_started_is_marked_at_the_close,
        commits::a_repeated_number_changes_nothing,
        commits::a_lower_number_is_refused,
        commits::each_commit_answers_for_itself,
        commits::a_lost_delivery_publishes_nothing,
        commits::held_deliveries_publish_and_stay,
        commits::unfenced_commits_are_applied_once,
        records::records_are_stored_with_the_commit,
        records::a_lost_delivery_records_only_a_success,
        counting::starts_are_counted_and_deliveries_are_not,
        counting::what_was_interrupted_is_marked_and_not_counted,
        counting::a_repeated_start_is_counted_once,
        delayed::delayed_messages_wait_for_their_time,
        delayed::many_delayed_messages_come_by_their_time,
        dead::dead_letters_are_kept_whole,
        dead::dead_letters_are_paged_and_picked,
        dead::retried_dead_letters_are_new,
        lives::a_dead_consumers_messages_come_back_uncounted,
        lives::a_living_consumer_keeps_what_it_holds,
        lives::a_consumer_is_told_that_it_is_dead,
        lines::a_consumer_outlives_its_line,
        lines::a_server_out_of_reach_kills_nobody,
        lines::a_store_that_lost_all_says_so,
        cuts::any_cut_loses_and_doubles_nothing,
    ];
    Ok(())
}

/// The ground, as cases see it.
struct Site<'a> {
    ground: &'a dyn Ground,
}

impl Site<'_> {
    /// A connection for a case that takes no interest in leases.
    async fn connect(&self, name: &'static str) -> Result<Arc<dyn Broker>> {
        self.ground.connect(Place::new(name)).await
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

/// A message that no broker can route.
fn unroutable(number: usize) -> Publish {
    let route = Route { exchange: "no-such-exchange".to_owned(), routing_key: "celery".to_owned() };
    Publish { route, message: message(number), not_before: None }
}

fn numbered(queue: &QueueName, numbers: std::ops::Range<usize>) -> Vec<Publish> {
    numbers.map(|number| to(queue, message(number))).collect()
}

/// The numbers of messages, in the order in which they came.
fn numbers(deliveries: &[Delivery]) -> Vec<usize> {
    let number = |delivery: &Delivery| delivery.message.properties.correlation_id.as_deref()?.parse().ok();
    deliveries.iter().filter_map(number).collect()
}

/// The numbers of messages, smallest first.
fn sorted(deliveries: &[Delivery]) -> Vec<usize> {
    let mut all = numbers(deliveries);
    all.sort_unstable();
    all
}

fn reason(detail: &str) -> Reason {
    Reason {
        kind: "rejected".to_owned(),
        detail: detail.to_owned(),
        worker: "suite@host".to_owned(),
        at: Timestamp::from_millis(1_795_000_000_123),
    }
}

/// A commit that ends a delivery and does nothing else.
fn end(delivery: Delivery, how: Disposition) -> Commit {
    commit(Ending::Settle(delivery.settle(how)), Vec::new())
}

/// A commit that publishes.
fn commit(ending: Ending, publish: Vec<Publish>) -> Commit {
    Commit { records: Vec::new(), publish, ending }
}

/// Nothing else is there: the next thing to come is a marker that is sent now, to the end of the queue.
async fn nothing_but_a_marker(
    broker: &Arc<dyn Broker>,
    consumer: &Consuming,
    queue: &QueueName,
) -> Result<()> {
    const MARKER: usize = 999_999;
    broker.publish_all(vec![to(queue, message(MARKER))]).await?;
    let came = consumer.receive(1).await?;
    ensure!(numbers(&came) == [MARKER], "expected nothing but the marker, got {:?}", numbers(&came));
    consumer.end(came, &Disposition::Ack).await
}

/// As much as a receive may take, in messages.
fn room(messages: usize) -> Room {
    Room { messages, bytes: usize::MAX }
}
