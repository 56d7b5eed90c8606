//! The consumer trait on Redis: an identity, its present line, and a table of what is held.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rwork_broker::{Batch, Committed, Consume, Consumer, Delivery, Error, Receipt, Resumed, Room};
use rwork_net::own_process;
use rwork_protocol::QueueName;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::broker::locked;
use crate::commit::{commit, release};
use crate::deliveries::{Deliveries, Held};
use crate::handle::{Inner, Redis};
use crate::line::Line;
use crate::link::Script;
use crate::reaper::Reaper;
use crate::receiver::Receiver;
use crate::renewal::{Renewal, lease_ms};
use crate::reply;
use crate::results::Results;
use crate::resume::{Tokens, random, resume};
use crate::sources::Sources;

static ENTER: Script =
    Script::new(concat!(include_str!("scripts/session.lua"), include_str!("scripts/enter.lua")));
static BIND: Script = Script::new(include_str!("scripts/bind.lua"));
static LEAVE: Script =
    Script::new(concat!(include_str!("scripts/session.lua"), include_str!("scripts/leave.lua")));

/// Queues of one consumer: each is watched by some keys, which the server remembers, and looked at once a second.
const QUEUES_MAX: usize = 10_000;
/// Queues bound by one call.
const BIND_MAX: usize = 1000;

/// A consumer. Dropped without `close` it is dead: others find that it renews no more.
#[derive(Debug)]
pub(crate) struct RedisConsumer {
    shared: Arc<Shared>,
    /// Held over waiting: one caller at a time.
    receiver: tokio::sync::Mutex<Receiver>,
    renewal: Renewal,
    reaper: Reaper,
}

/// What each call of a consumer needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inner: Arc<Inner>,
    pub(crate) results: Option<Arc<Results>>,
    /// Unique, so that nothing of another consumer is ever mistaken for ours.
    pub(crate) id: String,
    pub(crate) name: String,
    /// Of the store when it began.
    pub(crate) incarnation: String,
    pub(crate) sources: Sources,
    pub(crate) unsettled_max: usize,
    /// The present line. Held for one move, after `deliveries`.
    line: Mutex<Arc<Line>>,
    /// Held for a few moves.
    pub(crate) tokens: Mutex<Tokens>,
    /// Held for some moves.
    pub(crate) deliveries: Mutex<Deliveries>,
    /// Rung when something is not held any more.
    pub(crate) room: Notify,
    /// Takes nothing any more.
    pub(crate) closing: CancellationToken,
    /// Calls that change what is held.
    calls: Arc<Calls>,
}

/// Calls that change what is held: those under way, and a number that each beginning and end changes.
#[derive(Debug, Default)]
struct Calls {
    under_way: AtomicUsize,
    changes: AtomicU64,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Calls>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.changes.fetch_add(1, Ordering::SeqCst);
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl RedisConsumer {
    pub(crate) async fn enter(redis: &Redis, options: Consume) -> Result<Self, Error> {
        let inner = &redis.inner;
        check(inner, &options.queues)?;
        let sources = Sources::new(&inner.broker.keys, &options.queues);
        let line = Line::open(inner, &sources).await?;
        bind(inner, &options.queues).await?;
        let (id, tokens) = (Uuid::new_v4().to_string(), Tokens::new());
        let incarnation = register(inner, &id, &tokens.current).await?;
        let shared = Arc::new(Shared {
            inner: Arc::clone(inner),
            results: redis.results.clone(),
            id,
            name: options.name.clone(),
            incarnation,
            sources,
            unsettled_max: options.unsettled_max.max(1),
            line: Mutex::new(Arc::new(line)),
            tokens: Mutex::new(tokens),
            deliveries: Mutex::default(),
            room: Notify::new(),
            closing: CancellationToken::new(),
            calls: Arc::default(),
        });
        Ok(Self {
            receiver: tokio::sync::Mutex::new(Receiver::new(&shared)),
            renewal: Renewal::new(inner),
            reaper: Reaper::new(Arc::clone(inner), options.name),
            shared,
        })
    }
}

fn check(inner: &Inner, queues: &[QueueName]) -> Result<(), Error> {
    let count = queues.len();
    if (1..=QUEUES_MAX).contains(&count) {
        return Ok(());
    }
    Err(Error::Refused {
        url: inner.url.clone(),
        why: format!("expected 1 to {QUEUES_MAX} queues for one consumer, got {count}"),
        hint: "divide the queues among several workers".to_owned(),
    })
}

/// Binds queues as kombu does when it declares them.
async fn bind(inner: &Inner, queues: &[QueueName]) -> Result<(), Error> {
    let own = &inner.broker.keys;
    for queues in queues.chunks(BIND_MAX) {
        let keys: Vec<String> = queues
            .iter()
            .flat_map(|queue| [own.bindings(queue.as_str()), own.permanent_bindings(queue.as_str())])
            .collect();
        let mut call = BIND.call(&keys);
        for queue in queues {
            call.arg(own.own_binding(queue));
        }
        inner.commands.script("declare queues", &call).await?;
        inner.broker.bind(queues);
    }
    Ok(())
}

/// Registers a new consumer; the store's incarnation.
async fn register(inner: &Inner, id: &str, token: &str) -> Result<String, Error> {
    const ACT: &str = "begin to consume";
    let own = &inner.broker.keys;
    let mut call = ENTER.call(&[&own.consumers, &own.consumer(id), &own.incarnation]);
    call.arg(id).arg(token).arg(lease_ms(inner)).arg(own_process()).arg(random());
    let answer = inner.commands.script(ACT, &call).await?;
    reply::text(answer).ok_or_else(|| reply::odd(&inner.url, ACT, "an incarnation"))
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn resume(&self) -> Result<Resumed, Error> {
        self.shared.check()?;
        resume(&self.shared).await
    }

    async fn receive(&self, room: Room) -> Result<Vec<Delivery>, Error> {
        self.receiver.lock().await.receive(&self.shared, room).await
    }

    async fn commit(&self, batch: &Batch) -> Result<Vec<Committed>, Error> {
        let committed = commit(&self.shared, batch).await?;
        self.shared.room.notify_one();
        Ok(committed)
    }

    async fn renew(&self) -> Result<bool, Error> {
        self.shared.check()?;
        self.renewal.renew(&self.shared, &self.reaper).await
    }

    async fn close(&self, started: &[Receipt]) -> Result<(), Error> {
        let shared = &*self.shared;
        // Whoever receives goes away at this.
        shared.closing.cancel();
        self.receiver.lock().await.close(shared).await;
        let closed = async {
            release(shared, started).await?;
            leave(shared).await
        };
        match closed.await {
            // Others know it as dead, and have given back what it held.
            Err(Error::LeaseLost { .. }) => Ok(()),
            closed => closed,
        }
    }
}

async fn leave(shared: &Shared) -> Result<(), Error> {
    let own = &shared.inner.broker.keys;
    let mut call = LEAVE.call(&[&own.consumers, &own.consumer(&shared.id), &own.held(&shared.id)]);
    call.arg(&shared.id).arg(shared.token());
    shared.inner.commands.script("end consuming", &call).await.map(drop)
}

impl Shared {
    /// Whether it may do anything.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.closing.is_cancelled() {
            true => Err(Error::Closed { name: self.name.clone() }),
            false => Ok(()),
        }
    }

    pub(crate) fn lease_lost(&self) -> Error {
        Error::LeaseLost { name: self.name.clone() }
    }

    /// Name of a delivery in `unacked`.
    pub(crate) fn tag(&self, held: &Held) -> String {
        self.tag_of(held.taking)
    }

    pub(crate) fn tag_of(&self, taking: u64) -> String {
        format!("{}:{taking}", self.id)
    }

    pub(crate) fn token(&self) -> String {
        locked(&self.tokens).current.clone()
    }

    pub(crate) fn last_taking(&self) -> u64 {
        locked(&self.deliveries).last_taking()
    }

    /// The present line and its number.
    pub(crate) fn line(&self) -> (u64, Arc<Line>) {
        let deliveries = locked(&self.deliveries);
        (deliveries.line, Arc::clone(&locked(&self.line)))
    }

    /// Puts a new line in the place of the old one.
    pub(crate) fn replace(&self, line: Line, deliveries: &mut Deliveries) {
        deliveries.line += 1;
        *locked(&self.line) = Arc::new(line);
    }

    /// Notes a call that changes what is held.
    pub(crate) fn under_way(&self) -> UnderWay {
        self.calls.under_way.fetch_add(1, Ordering::SeqCst);
        self.calls.changes.fetch_add(1, Ordering::SeqCst);
        UnderWay(Arc::clone(&self.calls))
    }

    /// How many are held, and after how many changes; `None` while it is changing.
    pub(crate) fn count(&self) -> Option<(usize, u64)> {
        let changes = self.calls.changes.load(Ordering::SeqCst);
        let is_changing = self.calls.under_way.load(Ordering::SeqCst) > 0;
        (!is_changing).then(|| (locked(&self.deliveries).len(), changes))
    }
}
