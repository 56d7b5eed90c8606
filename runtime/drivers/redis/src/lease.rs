//! Leases: how a consumer begins, stays and ends.

use std::time::Duration;

use redis::Value;
use rwork_protocol::service::Error;

use crate::handle::Inner;
use crate::link::Script;
use crate::reply;
use crate::take::{DUE_MAX, Source, Sources};

static ENTER: Script = Script::new(include_str!("scripts/enter.lua"));
static RENEW: Script =
    Script::new(concat!(include_str!("scripts/due.lua"), include_str!("scripts/renew.lua")));
static LEAVE: Script = Script::new(include_str!("scripts/leave.lua"));

/// What a dead worker held is recovered within seconds; this only clears up after a database that no worker ever visits
/// again.
pub(crate) const ABANDONED_TTL: Duration = Duration::from_secs(24 * 3600);
/// Scores refreshed by one renewal: some milliseconds of the server's time. Who holds more goes round.
const REFRESH_MAX: usize = 5_000;

/// From where the next renewal refreshes.
#[derive(Clone, Debug)]
pub(crate) struct Cursor(String);

impl Default for Cursor {
    fn default() -> Self {
        Self("0".to_owned())
    }
}

/// A renewal that succeeded.
#[derive(Debug)]
pub(crate) struct Renewed {
    pub(crate) seen: Seen,
    pub(crate) next: Cursor,
}

/// What the server says of everybody's leases.
#[derive(Debug)]
pub(crate) struct Seen {
    /// Milliseconds of its clock.
    pub(crate) now_ms: i64,
    /// Some of those whose lease ran out.
    pub(crate) expired: Vec<Expired>,
}

impl Seen {
    fn read(mut parts: impl Iterator<Item = Value>) -> Option<Self> {
        let Value::Int(now_ms) = parts.next()? else { return None };
        Some(Self { now_ms, expired: Expired::read(parts)? })
    }
}

/// A consumer whose lease has run out by the server's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expired {
    pub(crate) consumer: String,
    /// As the server writes it.
    pub(crate) lease: String,
}

impl Expired {
    fn read(mut parts: impl Iterator<Item = Value>) -> Option<Vec<Self>> {
        let mut all = Vec::new();
        while let (Some(consumer), Some(lease)) = (parts.next(), parts.next()) {
            all.push(Self { consumer: reply::text(consumer)?, lease: reply::text(lease)? });
        }
        Some(all)
    }

    /// Whether somebody has ended it already.
    pub(crate) fn is_fenced(&self) -> bool {
        self.lease.starts_with('-')
    }
}

/// Registers a consumer and binds its queues. Returns what it sees of the others.
pub(crate) async fn enter(inner: &Inner, consumer: &str, sources: &Sources) -> Result<Seen, Error> {
    const ACT: &str = "begin to consume";
    let own = &inner.broker.keys;
    let mut keys = vec![own.consumers.clone()];
    for source in &sources.queues {
        let name = source.name.as_str();
        keys.extend([own.bindings(name), own.permanent_bindings(name)]);
    }
    let mut call = ENTER.call(&keys);
    call.arg(consumer).arg(lease_ms(inner)).arg(ABANDONED_TTL.as_millis() as u64);
    for source in &sources.queues {
        call.arg(own.own_binding(&source.name));
    }
    let answer = inner.commands.script(ACT, &call).await?;
    inner.broker.bind(sources.queues.iter().map(|source| &source.name));
    let seen = reply::list(answer).and_then(|parts| Seen::read(parts.into_iter()));
    seen.ok_or_else(|| reply::odd(&inner.url, ACT, "the time and a list of consumers"))
}

/// Keeps what is held for another lease; `None`: it was lost.
pub(crate) async fn renew(
    inner: &Inner,
    consumer: &str,
    sources: &Sources,
    from: &Cursor,
) -> Result<Option<Renewed>, Error> {
    const ACT: &str = "renew the lease";
    let own = &inner.broker.keys;
    let held = own.held(consumer);
    let mut keys = vec![&own.consumers, &held, &own.unacked_index];
    keys.extend(sources.queues.iter().flat_map(Source::keys));
    let mut call = RENEW.call(&keys);
    call.arg(consumer).arg(lease_ms(inner)).arg(ABANDONED_TTL.as_millis() as u64).arg(DUE_MAX);
    call.arg(&from.0).arg(REFRESH_MAX).arg(sources.steps.len());
    for step in &sources.steps {
        call.arg(*step);
    }
    let answer = inner.commands.script(ACT, &call).await?;
    if answer == Value::Nil {
        return Ok(None);
    }
    let read = || {
        let mut parts = reply::list(answer)?.into_iter();
        let next = Cursor(reply::text(parts.next()?)?);
        Some(Renewed { seen: Seen::read(parts)?, next })
    };
    read().map(Some).ok_or_else(|| reply::odd(&inner.url, ACT, "a cursor, the time and a list of consumers"))
}

/// Ends a consumer that has given everything back.
pub(crate) async fn leave(inner: &Inner, consumer: &str, sources: &Sources) -> Result<(), Error> {
    let own = &inner.broker.keys;
    let held = own.held(consumer);
    let mut keys = vec![&own.consumers, &held];
    let gates = sources.queues.iter().filter_map(Source::gate);
    keys.extend(gates.flat_map(|gate| [gate.taking, gate.list]));
    let mut call = LEAVE.call(&keys);
    call.arg(consumer);
    inner.commands.script("end consuming", &call).await.map(drop)
}

pub(crate) fn lease_ms(inner: &Inner) -> u64 {
    u64::try_from(inner.options.lease.as_millis()).unwrap_or(u64::MAX)
}
