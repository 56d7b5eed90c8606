//! One take: the call of its script and what came of it.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;
use rwork_protocol::QueueName;
use rwork_protocol::json::write_string;
use rwork_protocol::service::Error;

use crate::keys::BrokerKeys;
use crate::lease::ABANDONED_TTL;
use crate::link::{Call, Script, Wire};
use crate::reply;

static TAKE: Script = Script::new(concat!(include_str!("scripts/due.lua"), include_str!("scripts/take.lua")));
static WATCH: Script = Script::new(include_str!("scripts/watch.lua"));

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
    delayed: String,
    parked: String,
    taking: String,
    /// A list for each step; the first one is that of messages without a priority, save where steps are set otherwise.
    lists: Vec<String>,
    /// What follows the envelope in `unacked`: `, "", "celery"]`. kombu's own way back then leads to this very list.
    back: Vec<u8>,
}

impl Source {
    /// As the scripts want them.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        [&self.delayed, &self.parked, &self.taking].into_iter().chain(&self.lists)
    }

    /// The list that a consumer waits at, and where its messages go from there until they are taken.
    pub(crate) fn gate(&self) -> Option<Gate<'_>> {
        self.lists.first().map(|list| Gate { list, taking: &self.taking })
    }
}

/// Where a consumer waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gate<'a> {
    pub(crate) list: &'a String,
    pub(crate) taking: &'a String,
}

impl Sources {
    pub(crate) fn new(keys: &BrokerKeys, queues: &[QueueName]) -> Self {
        let source = |name: &QueueName| {
            let mut back = b", \"\", ".to_vec();
            write_string(&mut back, name.as_str());
            back.push(b']');
            Source {
                name: name.clone(),
                delayed: keys.delayed(name.as_str()),
                parked: keys.parked(name.as_str()),
                taking: keys.taking(name.as_str()),
                lists: keys.lists(name.as_str()).collect(),
                back,
            }
        };
        Self { queues: queues.iter().map(source).collect(), steps: keys.steps.clone() }
    }

    /// The gate of a queue, by its place.
    pub(crate) fn gate(&self, place: usize) -> Option<Gate<'_>> {
        self.queues.get(place)?.gate()
    }
}

/// Looks what there is to take, save behind one queue's gate. When `is_told` the server tells what comes later.
pub(crate) async fn look(
    sources: &Sources,
    gate: Option<Gate<'_>>,
    wire: &Wire,
    is_told: bool,
) -> Result<Outlook, Error> {
    const ACT: &str = "look for messages";
    let gate = gate.map(|gate| gate.list);
    let lists = sources.queues.iter().flat_map(|source| &source.lists);
    let mut keys: Vec<&String> = lists.filter(|list| Some(*list) != gate).collect();
    let count = keys.len();
    keys.extend(sources.queues.iter().map(|source| &source.delayed));
    let mut call = WATCH.call(&keys);
    call.arg(count);
    let answer = if is_told { wire.tracked(ACT, &call).await } else { wire.script(ACT, &call).await }?;
    match reply::int(&answer) {
        Some(0) => Ok(Outlook::Ready),
        Some(-1) => Ok(Outlook::Nothing),
        Some(wait) => Ok(Outlook::Due(Duration::from_millis(wait.unsigned_abs()))),
        None => Err(reply::odd(&wire.url, ACT, "how long to wait")),
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

/// What there is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Something, now.
    Ready,
    /// Something that is due after so long.
    Due(Duration),
    Nothing,
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
    /// In the order of taking; `None`: the lease was lost.
    pub(crate) async fn now(&self, wire: &Wire) -> Result<Option<Vec<Element>>, Error> {
        self.read(wire, wire.script(ACT, &self.call()).await?)
    }

    /// Waits at a gate for so long at most, and takes in the moment that something comes: no round trip is between. Also
    /// whether the server let us wait.
    pub(crate) async fn at(
        &self,
        wire: &Wire,
        gate: Gate<'_>,
        patience: Duration,
    ) -> Result<(Option<Vec<Element>>, bool), Error> {
        let mut wait = redis::cmd("BLMOVE");
        wait.arg(gate.list).arg(gate.taking).arg("RIGHT").arg("LEFT").arg(patience.as_secs_f64());
        let (waited, answer) = wire.script_after(ACT, &wait, &self.call()).await?;
        if let Err(refusal) = &waited {
            tracing::debug!(error = %refusal, "the server does not let us wait at a list: taking when it tells");
        }
        Ok((self.read(wire, answer)?, waited.is_ok()))
    }

    fn call(&self) -> Call<'static> {
        let held = self.keys.held(self.consumer);
        let mut keys = vec![&self.keys.consumers, &held, &self.keys.unacked, &self.keys.unacked_index];
        keys.extend(self.ordered().flat_map(Source::keys));
        let mut call = TAKE.call(&keys);
        call.arg(self.consumer).arg(self.first).arg(self.max).arg(BYTES_MAX).arg(DUE_MAX);
        call.arg(if self.fair { 1 } else { 0 }).arg(ABANDONED_TTL.as_millis() as u64).arg(self.lease_ms);
        call.arg(self.sources.steps.len());
        for step in &self.sources.steps {
            call.arg(*step);
        }
        for source in self.ordered() {
            call.arg(source.back.as_slice());
        }
        call
    }

    fn ordered(&self) -> impl Iterator<Item = &Source> {
        self.order.iter().filter_map(|place| self.sources.queues.get(*place))
    }

    fn read(&self, wire: &Wire, answer: Value) -> Result<Option<Vec<Element>>, Error> {
        if answer == Value::Nil {
            return Ok(None);
        }
        let elements = self.elements(answer);
        elements.map(Some).ok_or_else(|| reply::odd(&wire.url, ACT, "a list of messages"))
    }

    fn elements(&self, answer: Value) -> Option<Vec<Element>> {
        let mut elements = Vec::with_capacity(self.max);
        for group in reply::list(answer)? {
            let mut group = reply::list(group)?.into_iter();
            let queue = *self.order.get(usize::try_from(reply::int(&group.next()?)?).ok()?)?;
            let step = u8::try_from(reply::int(&group.next()?)?).ok()?;
            while let (Some(tag), Some(envelope)) = (group.next(), group.next()) {
                let (tag, envelope) = (reply::bytes(tag)?, reply::bytes(envelope)?);
                elements.push(Element { tag, queue, step, envelope });
            }
        }
        Some(elements)
    }
}
