//! One take: the call of its script and what came of it.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use rwork_protocol::QueueName;
use rwork_protocol::json::write_string;
use rwork_protocol::service::Error;

use crate::keys::BrokerKeys;
use crate::lease::ABANDONED_TTL;
use crate::link::{Script, Wire};
use crate::reply;

static TAKE: Script = Script::new(concat!(include_str!("scripts/due.lua"), include_str!("scripts/take.lua")));

/// Envelopes popped by one take, in bytes: more would hold up the server and everybody else, and fill our memory before it
/// is known how large they are.
const BYTES_MAX: usize = 16 << 20;
/// Delayed messages made ready by one take: a millisecond of the server's time.
pub(crate) const DUE_MAX: usize = 500;
const ACT: &str = "take messages";

/// The queues of a consumer, with what every take needs of them.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) queues: Vec<Source>,
    pub(crate) steps: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: QueueName,
    /// Delayed, parked, and a list for each step.
    pub(crate) keys: Vec<String>,
    /// What follows the envelope in `unacked`: `, "", "celery"]`. kombu's own way back then leads to this very list.
    back: Vec<u8>,
}

impl Sources {
    pub(crate) fn new(keys: &BrokerKeys, queues: &[QueueName]) -> Self {
        let source = |name: &QueueName| {
            let mut back = b", \"\", ".to_vec();
            write_string(&mut back, name.as_str());
            back.push(b']');
            let parking = [keys.delayed(name.as_str()), keys.parked(name.as_str())];
            Source {
                name: name.clone(),
                keys: parking.into_iter().chain(keys.lists(name.as_str())).collect(),
                back,
            }
        };
        Self { queues: queues.iter().map(source).collect(), steps: keys.steps.clone() }
    }
}

/// One wish.
#[derive(Debug)]
pub(crate) struct Take<'a> {
    pub(crate) keys: &'a BrokerKeys,
    pub(crate) sources: &'a Sources,
    pub(crate) consumer: &'a str,
    /// The first to be served first.
    pub(crate) order: &'a [usize],
    /// Whether queues share, or the first is emptied first.
    pub(crate) fair: bool,
    /// How many it has taken before.
    pub(crate) first: u64,
    pub(crate) max: usize,
    pub(crate) lease_ms: u64,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The lease was lost.
    Lost,
    /// Nothing, and perhaps something after so long.
    Nothing(Option<Duration>),
    /// In the order of taking.
    Some(Vec<Element>),
}

/// One list element, held now.
#[derive(Debug)]
pub(crate) struct Element {
    pub(crate) tag: Bytes,
    /// Place of its queue among the consumer's.
    pub(crate) queue: usize,
    pub(crate) step: u8,
    pub(crate) envelope: Bytes,
}

impl Take<'_> {
    pub(crate) async fn call(&self, wire: &Wire) -> Result<Taken, Error> {
        let ordered = || self.order.iter().filter_map(|place| self.sources.queues.get(*place));
        let held = self.keys.held(self.consumer);
        let mut keys = vec![&self.keys.consumers, &held, &self.keys.unacked, &self.keys.unacked_index];
        keys.extend(ordered().flat_map(|source| &source.keys));
        let mut call = TAKE.call(&keys);
        call.arg(self.consumer).arg(self.first).arg(self.max).arg(BYTES_MAX).arg(DUE_MAX);
        call.arg(if self.fair { 1 } else { 0 }).arg(ABANDONED_TTL.as_millis() as u64).arg(self.lease_ms);
        call.arg(self.sources.steps.len());
        for step in &self.sources.steps {
            call.arg(*step);
        }
        for source in ordered() {
            call.arg(source.back.as_slice());
        }
        let answer = wire.script(ACT, &call).await?;
        if answer == Value::Nil {
            return Ok(Taken::Lost);
        }
        self.read(answer).ok_or_else(|| reply::odd(&wire.url, ACT, "a list of messages"))
    }

    fn read(&self, answer: Value) -> Option<Taken> {
        let mut parts = reply::list(answer)?.into_iter();
        let wait = reply::int(&parts.next()?)?;
        let mut elements = Vec::with_capacity(self.max);
        for group in parts {
            let mut group = reply::list(group)?.into_iter();
            let queue = *self.order.get(usize::try_from(reply::int(&group.next()?)?).ok()?)?;
            let step = u8::try_from(reply::int(&group.next()?)?).ok()?;
            while let (Some(tag), Some(envelope)) = (group.next(), group.next()) {
                let (tag, envelope) = (reply::bytes(tag)?, reply::bytes(envelope)?);
                elements.push(Element { tag, queue, step, envelope });
            }
        }
        if elements.is_empty() {
            return Some(Taken::Nothing(u64::try_from(wait).ok().map(Duration::from_millis)));
        }
        Some(Taken::Some(elements))
    }
}
