//! Renewals: showing others that a consumer lives, on a connection of its own, and looking at others.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use redis::Value;
use rwork_net::{Neighbour, Observer};
use rwork_protocol::service::Error;
use tokio::time::Instant;

use crate::broker::locked;
use crate::consumer::Shared;
use crate::delayed::DUE_MAX;
use crate::handle::Inner;
use crate::link::{Call, Link, Script};
use crate::reaper::Reaper;
use crate::reply;
use crate::sources::Source;

static RENEW: Script = Script::new(concat!(
    include_str!("scripts/session.lua"),
    include_str!("scripts/due.lua"),
    include_str!("scripts/renew.lua")
));
const ACT: &str = "renew the lease";
/// Scores refreshed by one renewal: some milliseconds of the server's time. Who holds more goes round.
const REFRESH_MAX: usize = 5_000;
/// Queues whose delayed messages are looked at by one renewal. Who has more goes round.
const QUEUES_MAX: usize = 64;
/// Renewals in a row after which a number of deliveries that can't be explained is believed.
const UNEXPLAINED_MAX: u32 = 2;

/// One consumer's renewals.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// Dialled by the first renewal, in its caller's runtime.
    link: Link,
    /// Held for a few moves.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Where refreshing scores goes on.
    cursor: String,
    /// The queue to look at next.
    queue: usize,
    /// Renewals in a row that told of another number of deliveries than we hold.
    unexplained: u32,
    observer: Observer,
}

/// A renewal's answer.
struct Renewed {
    cursor: String,
    held: usize,
    others: Vec<Neighbour>,
}

impl Renewal {
    pub(crate) fn new(inner: &Inner) -> Self {
        let lease = inner.options.lease;
        let target = inner.target.within_lease(lease);
        let mut observer = Observer::new(lease, target.dial_deadline());
        if inner.broker.has_died.swap(false, Ordering::Relaxed) {
            // Whatever took its line from the consumer before may have taken others'.
            observer.failed();
        }
        let state = State { cursor: "0".to_owned(), queue: 0, unexplained: 0, observer };
        Self { link: Link::new(Arc::new(target)), state: Mutex::new(state) }
    }

    /// Renews; false when resuming has something to say. Tells the reaper of the dead.
    pub(crate) async fn renew(&self, shared: &Shared, reaper: &Reaper) -> Result<bool, Error> {
        let before = shared.count();
        let renewed = self.ask(shared).await.inspect_err(|_| self.with(|state| state.observer.failed()))?;
        let Some(renewed) = renewed else { return Ok(false) };
        let is_explained = before.is_none()
            || shared.count() != before
            || before.is_some_and(|(held, _)| held == renewed.held);
        let (dead, is_sure) = self.with(|state| {
            state.cursor = renewed.cursor;
            state.queue = (state.queue + QUEUES_MAX) % shared.sources.queues.len().max(1);
            state.unexplained = if is_explained { 0 } else { state.unexplained + 1 };
            let others = renewed.others.into_iter().filter(|other| other.consumer != shared.id);
            (state.observer.answered(Instant::now(), others), state.unexplained < UNEXPLAINED_MAX)
        });
        reaper.tell(dead);
        Ok(is_sure)
    }

    async fn ask(&self, shared: &Shared) -> Result<Option<Renewed>, Error> {
        loop {
            let token = shared.token();
            let answer = self.link.script(ACT, &self.call(shared, &token)).await?;
            if answer != Value::Nil {
                let read = read(answer);
                return read.map(Some).ok_or_else(|| reply::odd(self.link.url(), ACT, "a list of consumers"));
            }
            // Resumed meanwhile: the old token was refused.
            if shared.token() == token {
                return Ok(None);
            }
        }
    }

    fn call(&self, shared: &Shared, token: &str) -> Call<'static> {
        let own = &shared.inner.broker.keys;
        let (cursor, first) = self.with(|state| (state.cursor.clone(), state.queue));
        let (hash, held) = (own.consumer(&shared.id), own.held(&shared.id));
        let mut keys = vec![&own.consumers, &hash, &held, &own.unacked_index, &own.incarnation];
        for Source { delayed, parked, taking, lists, .. } in
            shared.sources.queues.iter().skip(first).take(QUEUES_MAX)
        {
            keys.extend([delayed, parked, taking].into_iter().chain(lists));
        }
        let mut call = RENEW.call(&keys);
        call.arg(&shared.id).arg(token).arg(&shared.incarnation).arg(lease_ms(&shared.inner)).arg(DUE_MAX);
        call.arg(cursor).arg(REFRESH_MAX).arg(own.consumer_prefix()).arg(shared.sources.steps.len());
        for step in &shared.sources.steps {
            call.arg(*step);
        }
        call
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut locked(&self.state))
    }
}

fn read(answer: Value) -> Option<Renewed> {
    let mut parts = reply::list(answer)?.into_iter();
    let cursor = reply::text(parts.next()?)?;
    let held = usize::try_from(reply::int(&parts.next()?)?).ok()?;
    let mut others = Vec::new();
    while let (Some(consumer), Some(counter), Some(process)) = (parts.next(), parts.next(), parts.next()) {
        let (consumer, counter) = (reply::text(consumer)?, reply::text(counter)?);
        others.push(Neighbour { consumer, counter, process: reply::text(process)? });
    }
    Some(Renewed { cursor, held, others })
}

pub(crate) fn lease_ms(inner: &Inner) -> u64 {
    u64::try_from(inner.options.lease.as_millis()).unwrap_or(u64::MAX)
}
