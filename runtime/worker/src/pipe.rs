//! The whole way of a message through this worker, in one place.
//!
//! ```text
//! receive ─► decode ─► intake ─► admit ─► execute ─► next ─► settle
//!  (intake::receive)  (intake)  (start)  (execute)  (next)  (settler)
//! ```
//!
//! One task owns the state and waits for a closed set of events; receiving, running, renewing and settling are futures or
//! tasks beside it that never wait for each other. Data flows one way. Everything that waits is bounded: unstarted
//! messages by prefetch, running ones by slots, outcomes by the settler's channel, of which each run holds a place
//! before it starts.
//!
//! Places kept for what comes: *admit* is [`Pipe::start_ready`] (rate limits, revocation, fairness, pauses decide there which
//! pending request is next); events are emitted beside each arrow; remote control becomes one more [`Event`].

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use rwork_sandbox::{KillReason, Stop, StopReason};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::commit::Commit;
use crate::ending::{AckPolicy, Ending};
use crate::error::Error;
use crate::execute::{Finished, Permit, execute, occupied};
use crate::executor::Executor;
use crate::intake::{self, Arrived, Intake, intake};
use crate::outage::Outage;
use crate::parts::Parts;
use crate::prefetch::{MeanDuration, prefetch_for, room};
use crate::request::Accepted;
use crate::session::{Connector, Lost, Session, keep, watch};

/// With nothing started for so long, the tasks that run are long ones.
const STALLED: Duration = Duration::from_secs(1);

/// A request that runs.
struct Running {
    stop: Stop,
    /// The session whose loss makes the run pointless; `None`: acked before it began, so it runs to its end.
    session: Option<Arc<Session>>,
}

type Connected = Result<(Connector, Arc<Session>), rwork_broker::Error>;

/// The state of a worker, owned by one task.
pub(crate) struct Pipe<E: Executor> {
    pub(crate) parts: Arc<Parts<E>>,
    // receive
    connector: Option<Connector>,
    connecting: Option<BoxFuture<'static, Connected>>,
    pub(crate) session: Option<Arc<Session>>,
    session_since: Instant,
    keeper: JoinSet<()>,
    receiving: Option<BoxFuture<'static, Result<Vec<Arrived>, Lost>>>,
    /// Nothing more is taken until a body has gone from memory.
    awaits_room: bool,
    /// Nothing starts, so that the store is filled to the last place.
    fills_up: bool,
    // intake
    pending: VecDeque<Accepted<E>>,
    /// By due time, then by arrival.
    waiting: BTreeMap<(Instant, u64), Accepted<E>>,
    ended: VecDeque<Commit>,
    // admit
    admitting: Option<BoxFuture<'static, E::Slot>>,
    slot: Option<E::Slot>,
    // execute
    runs: JoinSet<Finished>,
    running: BTreeMap<u64, Running>,
    mean: MeanDuration,
    last_start: Instant,
    // settle
    settler: mpsc::Sender<Commit>,
    reserving: Option<BoxFuture<'static, Option<Permit>>>,
    permit: Option<Permit>,
    /// Numbers whatever needs one.
    numbers: u64,
}

/// Everything that can happen to the pipe.
pub(crate) enum Event<E: Executor> {
    /// The caller's condition came true.
    Stop,
    SessionLost,
    Finished(Result<Finished, JoinError>),
    Connected(Box<Connected>),
    Received(Result<Vec<Arrived>, Lost>),
    Reserved(Option<Permit>),
    Admitted(E::Slot),
    Due,
    /// There may be room for more in memory.
    Room,
    Stalled,
}

impl<E: Executor> Pipe<E> {
    pub(crate) fn new(parts: Arc<Parts<E>>, settler: mpsc::Sender<Commit>) -> Self {
        Self {
            connector: Some(Connector::new(&parts.shared)),
            connecting: None,
            session: None,
            session_since: Instant::now(),
            keeper: JoinSet::new(),
            receiving: None,
            awaits_room: false,
            fills_up: false,
            pending: VecDeque::new(),
            waiting: BTreeMap::new(),
            ended: VecDeque::new(),
            admitting: None,
            slot: None,
            runs: JoinSet::new(),
            running: BTreeMap::new(),
            mean: MeanDuration::default(),
            last_start: Instant::now(),
            settler,
            reserving: None,
            permit: None,
            numbers: 0,
            parts,
        }
    }

    /// Takes messages and runs them until `stop`.
    pub(crate) async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::pin!(stop);
        loop {
            self.connect();
            self.start_ready();
            self.receive();
            match self.next_event(stop.as_mut()).await {
                Event::Stop => return Ok(()),
                event => self.react(event)?,
            }
        }
    }

    /// Takes nothing more; ends when nothing runs and everything is handed over, or at `stop`.
    pub(crate) async fn drain(&mut self, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        loop {
            self.start_ready();
            if self.runs.is_empty() && self.ended.is_empty() {
                return;
            }
            match self.next_event(stop.as_mut()).await {
                Event::Stop => return,
                event => {
                    if let Err(error) = self.react(event) {
                        tracing::error!(%error, "stopped short");
                        return;
                    }
                }
            }
        }
    }

    /// # Cancel safety
    /// Every future that is not stored in `self` is cancel safe.
    async fn next_event(&mut self, stop: impl Future<Output = ()>) -> Event<E> {
        let due = self.waiting.first_key_value().map(|((at, _), _)| *at);
        let stall = (self.hogs() || self.lacks()).then(|| self.last_start + STALLED);
        let lost = self.session.clone();
        tokio::select! {
            biased;
            () = stop => Event::Stop,
            () = loss(lost.as_deref()) => Event::SessionLost,
            Some(finished) = self.runs.join_next() => Event::Finished(finished),
            connected = stored(&mut self.connecting) => Event::Connected(Box::new(connected)),
            received = stored(&mut self.receiving) => Event::Received(received),
            permit = stored(&mut self.reserving) => Event::Reserved(permit),
            slot = stored(&mut self.admitting) => Event::Admitted(slot),
            () = at(due) => Event::Due,
            () = self.parts.shared.bodies.one_gone(), if self.awaits_room => Event::Room,
            () = at(stall) => Event::Stalled,
        }
    }

    fn react(&mut self, event: Event<E>) -> Result<(), Error> {
        match event {
            Event::Stop | Event::Room => {}
            Event::SessionLost => self.drop_session(),
            Event::Finished(finished) => {
                self.note_finished(finished);
                while let Some(finished) = self.runs.try_join_next() {
                    self.note_finished(finished);
                }
            }
            Event::Connected(connected) => {
                let (connector, session) = connected.map_err(|source| self.refused(source))?;
                self.begin_session(connector, session);
            }
            Event::Received(Ok(arrived)) => arrived.into_iter().for_each(|arrived| self.take_in(arrived)),
            Event::Received(Err(Lost)) => self.drop_session(),
            Event::Reserved(permit) => self.permit = Some(permit.ok_or(Error::Settler)?),
            Event::Admitted(slot) => self.slot = Some(slot),
            Event::Due => self.wake_due(),
            Event::Stalled if self.hogs() => self.share(),
            Event::Stalled => self.fills_up = true,
        }
        Ok(())
    }

    // receive

    fn connect(&mut self) {
        if self.session.is_none()
            && let Some(connector) = self.connector.take()
        {
            self.connecting = Some(connector.connect(Arc::clone(&self.parts.shared)).boxed());
        }
    }

    fn refused(&self, source: rwork_broker::Error) -> Error {
        let queues: Vec<_> =
            self.parts.shared.config.queues.iter().map(|queue| format!("`{queue}`")).collect();
        Error::Consume { queues: queues.join(", "), source }
    }

    fn begin_session(&mut self, connector: Connector, session: Arc<Session>) {
        let shared = &self.parts.shared;
        let (held, outage) = (Arc::clone(&session), Outage::of_broker("renew the lease", shared.backoff()));
        match shared.broker.capabilities().lease {
            Some(lease) if shared.renews() => drop(self.keeper.spawn(keep(held, lease, outage))),
            Some(_) => {}
            None => drop(self.keeper.spawn(watch(held, outage))),
        }
        let queues = shared.config.queues.iter().map(|queue| queue.as_str()).collect::<Vec<_>>().join(",");
        tracing::info!(node = %shared.config.node, queues, "ready");
        self.connector = Some(connector);
        self.session = Some(session);
        self.session_since = Instant::now();
    }

    /// Nothing that is held is ours any more: what has not started is dropped, and what runs is ended, since somebody else
    /// runs it too.
    fn drop_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        let longest = self.parts.shared.config.backoff.longest;
        if let Some(connector) = &mut self.connector {
            connector.lost(self.session_since, longest);
        }
        self.receiving = None;
        self.keeper.abort_all();
        self.pending.clear();
        self.waiting.clear();
        self.ended.clear();
        for running in self.running.values() {
            if running.session.as_ref().is_some_and(|of| Arc::ptr_eq(of, &session)) {
                running.end(KillReason::Shutdown);
            }
        }
    }

    fn receive(&mut self) {
        self.awaits_room = false;
        let Some(session) = &self.session else { return };
        // What intake has ended must be handed over first: it waits for room, and so does the broker then.
        if self.receiving.is_some()
            || !self.ended.is_empty()
            || self.waiting.len() >= crate::config::WAITING_MAX
        {
            return;
        }
        let shared = &self.parts.shared;
        // Looked at once: a body that goes between this look and the waiting has left its notice.
        self.awaits_room = shared.bodies.is_full();
        let prefetch = prefetch_for(self.mean.get(), &shared.config);
        let room = match self.fills_up {
            true => prefetch.saturating_sub(self.pending.len()),
            false => room(self.pending.len(), prefetch),
        };
        if room > 0 && !self.awaits_room {
            self.receiving = Some(intake::receive(Arc::clone(shared), Arc::clone(session), room).boxed());
        }
    }

    // intake

    fn take_in(&mut self, arrived: Arrived) {
        let Some(session) = &self.session else { return };
        match intake(&self.parts, session, arrived) {
            Intake::Run(accepted) => self.pending.push_back(accepted),
            Intake::Wait(accepted, wait) => {
                let key = (Instant::now() + wait, self.number());
                self.waiting.insert(key, accepted);
            }
            Intake::End(commit) => self.ended.push_back(*commit),
        }
    }

    /// What is due goes before what came later.
    fn wake_due(&mut self) {
        let later = self.waiting.split_off(&(Instant::now(), u64::MAX));
        let due = std::mem::replace(&mut self.waiting, later);
        due.into_values().rev().for_each(|accepted| self.pending.push_front(accepted));
    }

    // admit

    /// Hands over what intake has ended and starts what it has let through, as far as there are places and slots.
    fn start_ready(&mut self) {
        while !self.ended.is_empty() || !self.pending.is_empty() {
            let Some(permit) = self.take_permit() else { return };
            if let Some(commit) = self.ended.pop_front() {
                permit.send(commit);
                continue;
            }
            let Some(slot) = self.take_slot() else {
                self.permit = Some(permit);
                return;
            };
            if let Some(accepted) = self.pending.pop_front() {
                self.start(accepted, slot, permit);
            }
        }
        // A slot that nobody waits for belongs to whoever comes next, in this worker or beside it.
        (self.slot, self.admitting) = (None, None);
    }

    fn take_permit(&mut self) -> Option<Permit> {
        if self.permit.is_some() || self.reserving.is_some() {
            return self.permit.take();
        }
        match self.settler.clone().try_reserve_owned() {
            Ok(permit) => Some(permit),
            Err(TrySendError::Full(settler) | TrySendError::Closed(settler)) => {
                self.reserving = Some(async move { settler.reserve_owned().await.ok() }.boxed());
                None
            }
        }
    }

    fn take_slot(&mut self) -> Option<E::Slot> {
        if self.slot.is_some() || self.admitting.is_some() {
            return self.slot.take();
        }
        let slot = self.parts.executor.try_admit();
        if slot.is_none() {
            let parts = Arc::clone(&self.parts);
            self.admitting = Some(async move { parts.executor.admit().await }.boxed());
        }
        slot
    }

    /// Whether more is held unstarted than long tasks justify.
    fn hogs(&self) -> bool {
        self.pending.len() > prefetch_for(Some(STALLED), &self.parts.shared.config)
    }

    /// Whether fewer are held unstarted than were agreed on, though there is no hurry to start them.
    fn lacks(&self) -> bool {
        let is_asking = self.receiving.is_some() || self.fills_up;
        !is_asking
            && !self.pending.is_empty()
            && self.pending.len() < prefetch_for(self.mean.get(), &self.parts.shared.config)
    }

    /// Tasks have become long: what was taken in the hope of short ones goes back, for other workers to run.
    fn share(&mut self) {
        self.mean = MeanDuration::of(STALLED);
        let keep = prefetch_for(self.mean.get(), &self.parts.shared.config);
        while self.pending.len() > keep
            && let Some(last) = self.pending.pop_back()
        {
            self.give_back(last);
        }
    }

    // execute

    fn start(&mut self, accepted: Accepted<E>, slot: E::Slot, permit: Permit) {
        // Time has passed since intake.
        if accepted.request.is_expired() {
            self.slot = Some(slot);
            return drop(permit.send(intake::expired(&accepted.request, accepted.held)));
        }
        self.last_start = Instant::now();
        self.fills_up = false;
        let number = self.number();
        let stop = Stop::default();
        let session = accepted.request.session.clone();
        self.running.insert(number, Running { stop: stop.clone(), session });
        self.runs.spawn(execute(accepted, slot, permit, stop, number));
    }

    fn note_finished(&mut self, finished: Result<Finished, JoinError>) {
        match finished {
            Ok(Finished { number, usage }) => {
                self.running.remove(&number);
                let config = &self.parts.shared.config;
                if let Some(usage) = usage {
                    self.mean.add(occupied(usage, config.concurrency, config.max_in_flight));
                }
            }
            // Its delivery is redelivered once this worker is gone; nothing in the pipe is known to panic.
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a task's run panicked in the worker itself")
            }
            Err(_) => {}
        }
    }

    // shutdown

    /// Takes in what a receive in progress has taken from the broker already, then receives no more.
    pub(crate) async fn stop_intake(&mut self, patience: Duration) {
        (self.connecting, self.connector) = (None, None);
        if let Some(receiving) = self.receiving.take()
            && let Ok(Ok(arrived)) = tokio::time::timeout(patience, receiving).await
        {
            arrived.into_iter().for_each(|arrived| self.take_in(arrived));
        }
    }

    /// Everything unstarted goes back to the head of its queue, for other workers to run now.
    pub(crate) fn give_back_unstarted(&mut self) {
        let waiting = std::mem::take(&mut self.waiting).into_values();
        std::mem::take(&mut self.pending)
            .into_iter()
            .rev()
            .chain(waiting)
            .for_each(|accepted| self.give_back(accepted));
    }

    fn give_back(&mut self, accepted: Accepted<E>) {
        let commit = Commit { task: Some(accepted.request.label()), ..Commit::default() };
        self.ended.push_back(commit.ended(Some(accepted.held), Ending::Released, AckPolicy::default()));
    }

    pub(crate) fn ask_to_stop(&self) {
        self.running.values().for_each(|running| running.stop.request(StopReason::Shutdown));
    }

    pub(crate) fn kill(&self) {
        self.running.values().for_each(|running| running.stop.kill(KillReason::Shutdown));
    }

    /// Whatever still runs is abandoned; returns how many.
    pub(crate) async fn abandon(&mut self) -> usize {
        let left = self.runs.len();
        self.runs.shutdown().await;
        left
    }

    /// Lets go of everything but the lease, which is kept until the consumer is closed.
    pub(crate) fn close(self) -> JoinSet<()> {
        self.keeper
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

impl Running {
    fn end(&self, reason: KillReason) {
        self.stop.request(StopReason::Shutdown);
        self.stop.kill(reason);
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn loss(session: Option<&Session>) {
    match session {
        Some(session) => session.wait_lost().await,
        None => std::future::pending().await,
    }
}

/// Waits for a future that lives in the pipe's state, and takes it out when it is done; forever when there is none.
async fn stored<T>(slot: &mut Option<BoxFuture<'static, T>>) -> T {
    let Some(future) = slot else { return std::future::pending().await };
    let output = future.await;
    *slot = None;
    output
}
