//! The whole way of a message through this worker, in one place.
//!
//! ```text
//! receive ─► look ─► intake ─► admit ─► execute ─► next ─► commit
//! ```
//!
//! One task owns the state and waits for a closed set of events; receiving, running, renewing and committing are tasks
//! beside it that never wait for each other. Data flows one way, and each step takes a value and returns the next, in the
//! file of its name. Everything that waits is bounded: unstarted messages by prefetch, running ones by slots, outcomes by
//! the committer's channel, bytes by the budget.
//!
//! Places kept for what comes: *admit* chooses the next request; events are emitted beside each arrow; remote control
//! becomes one more [`Event`].

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use rwork_broker::{Receipt, Room};
use rwork_sandbox::{KillReason, Stop, StopReason};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;

use crate::admit::Admission;
use crate::commit::{Fence, TaskCommit};
use crate::error::Error;
use crate::execute::{Finished, execute, occupied, released};
use crate::executor::Executor;
use crate::group::{Group, GroupId};
use crate::intake::{Arrived, Intake, Source, intake};
use crate::next;
use crate::parts::Parts;
use crate::prefetch::Prefetch;
use crate::receive::News;
use crate::request::Accepted;
use crate::session::{Over, Session};

/// News of receivers that wait for the pipe: a batch, and words about consumers.
const NEWS_MAX: usize = 4;

/// News of the receivers, each with its group.
pub(crate) type Telling = mpsc::Receiver<(GroupId, News)>;

/// A request that runs.
struct Running {
    stop: Stop,
    /// The delivery without which the run is pointless; `None`: acked before it began, so it runs to its end.
    fence: Option<Fence>,
}

/// The state of a worker, owned by one task.
pub(crate) struct Pipe<E: Executor> {
    pub(crate) parts: Arc<Parts<E>>,
    /// Each has a consumer of its own.
    groups: Vec<Group>,
    news: Telling,
    admission: Admission<E>,
    /// Runs, and hand-overs to the committer. Each may hold one outcome that waits for room there.
    runs: JoinSet<Finished>,
    /// Hand-overs among them: nothing is taken meanwhile.
    handing_over: usize,
    running: BTreeMap<u64, Running>,
    prefetch: Prefetch,
    /// Nothing is taken until a body has gone from memory.
    awaits_room: bool,
    /// Numbers runs.
    numbers: u64,
}

/// Everything that can happen to the pipe.
pub(crate) enum Event<E: Executor> {
    /// The caller's condition came true.
    Stop,
    News(Option<(GroupId, News)>),
    Finished(Result<Finished, JoinError>),
    /// A request has its slot; `None`: one is due.
    Admitted(Option<(Accepted<E>, E::Slot)>),
    /// There may be room for more in memory.
    Room,
    Stalled,
}

impl<E: Executor> Pipe<E> {
    pub(crate) fn new(parts: Arc<Parts<E>>) -> Self {
        let (told, news) = mpsc::channel(NEWS_MAX);
        // One for all queues: they are taken from in one call.
        let queues = parts.shared.config.queues.clone();
        let groups = vec![Group::start(&parts.shared, 0, queues, told)];
        Self {
            groups,
            news,
            admission: Admission::new(Arc::clone(&parts)),
            runs: JoinSet::new(),
            handing_over: 0,
            running: BTreeMap::new(),
            prefetch: Prefetch::new(),
            awaits_room: false,
            numbers: 0,
            parts,
        }
    }

    /// Takes messages and runs them until `stop`.
    pub(crate) async fn run(&mut self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        tokio::pin!(stop);
        loop {
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
        self.give_back_unstarted();
        while !self.runs.is_empty() {
            match self.next_event(stop.as_mut()).await {
                Event::Stop => return,
                event => {
                    if let Err(error) = self.react(event) {
                        tracing::error!(%error, "stopped short");
                        return;
                    }
                    self.give_back_unstarted();
                }
            }
        }
    }

    /// # Cancel safety
    /// Every future here is cancel safe.
    async fn next_event(&mut self, stop: impl Future<Output = ()>) -> Event<E> {
        let unstarted = self.admission.unstarted();
        tokio::select! {
            biased;
            () = stop => Event::Stop,
            Some(finished) = self.runs.join_next() => Event::Finished(finished),
            news = self.news.recv() => Event::News(news),
            () = self.parts.shared.budget.bodies.until_room(), if self.awaits_room => Event::Room,
            () = self.parts.shared.until_it_may_start(), if !self.parts.shared.may_start() => Event::Room,
            admitted = self.admission.admitted() => Event::Admitted(admitted),
            () = self.prefetch.stalls(unstarted) => Event::Stalled,
        }
    }

    fn react(&mut self, event: Event<E>) -> Result<(), Error> {
        match event {
            Event::Stop | Event::Room => {}
            Event::News(Some((group, news))) => self.hear(group, news)?,
            Event::News(None) => return Err(Error::Receiver),
            Event::Finished(finished) => {
                self.note_finished(finished);
                while let Some(finished) = self.runs.try_join_next() {
                    self.note_finished(finished);
                }
            }
            Event::Admitted(Some((accepted, slot))) => self.start(accepted, slot),
            Event::Admitted(None) => self.admission.wake_due(),
            Event::Stalled => self.stall(),
        }
        Ok(())
    }

    // receive

    fn hear(&mut self, group: GroupId, news: News) -> Result<(), Error> {
        match news {
            News::Ready => {
                let config = &self.parts.shared.config;
                let queues = config.queues.iter().map(|queue| queue.as_str()).collect::<Vec<_>>().join(",");
                tracing::info!(node = %config.node, queues, "ready");
            }
            News::Arrived(source, arrived) => {
                self.group(group, Group::answered);
                self.take_in(&source, arrived);
            }
            News::Resumed(source, gone, fresh) => {
                self.lose(&source.session, Some(&gone));
                self.take_in(&source, fresh);
            }
            News::Over(source, Over::Dead) => self.lose(&source.session, None),
            // Nobody else has it: what was taken is run to its end.
            News::Over(_, Over::Forgotten) => {}
            News::Refused(source) => return Err(self.refused(source)),
            News::Stopped => self.group(group, |group| group.is_stopped = true),
        }
        Ok(())
    }

    fn group(&mut self, id: GroupId, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.groups.get_mut(id) {
            change(group);
        }
    }

    fn refused(&self, source: rwork_broker::Error) -> Error {
        let queues: Vec<_> =
            self.parts.shared.config.queues.iter().map(|queue| format!("`{queue}`")).collect();
        Error::Consume { queues: queues.join(", "), source }
    }

    /// These deliveries of a consumer, or all, are somebody else's: what has not started is dropped, and what runs is ended.
    fn lose(&mut self, session: &Arc<Session>, receipts: Option<&[Receipt]>) {
        if receipts.is_some_and(<[_]>::is_empty) {
            return;
        }
        self.admission.drop_lost(session, receipts);
        for running in self.running.values() {
            let is_lost = |fence: &Fence| {
                Arc::ptr_eq(&fence.session, session)
                    && receipts.is_none_or(|receipts| receipts.contains(&fence.receipt))
            };
            if running.fence.as_ref().is_some_and(is_lost) {
                running.stop.request(StopReason::Shutdown);
                running.stop.kill(KillReason::Shutdown);
            }
        }
    }

    fn receive(&mut self) {
        let shared = &self.parts.shared;
        let is_full = self.admission.waiting() >= crate::config::WAITING_MAX;
        // What intake has ended must be handed over first: it waits for room, and so does the broker then.
        if self.handing_over > 0 || is_full {
            return;
        }
        let bytes = shared.budget.bodies.room();
        self.awaits_room = bytes == 0;
        let live = shared.live.load();
        for nth in 0..self.groups.len() {
            let asked: usize = self.groups.iter().map(Group::asked).sum();
            let messages = self.prefetch.room(self.admission.unstarted() + asked, &live);
            if let Some(group) = self.groups.get_mut(nth).filter(|_| bytes > 0) {
                group.ask(Room { messages, bytes });
            }
        }
    }

    // intake

    fn take_in(&mut self, source: &Source, arrived: Vec<Arrived>) {
        let (mut ended, to) = (Vec::new(), &source.commits);
        for arrived in arrived {
            match intake(&self.parts, source, arrived) {
                Intake::Run(accepted) => self.admission.add(accepted),
                Intake::Wait(accepted, wait) => self.admission.add_later(accepted, wait),
                Intake::End(commit) => ended.push((to.clone(), *commit)),
            }
        }
        self.hand_over(ended);
    }

    /// Commits that no run waits for, in order.
    fn hand_over(&mut self, ended: Vec<(mpsc::WeakSender<TaskCommit>, TaskCommit)>) {
        if ended.is_empty() {
            return;
        }
        self.handing_over += 1;
        self.runs.spawn(async move {
            for (to, commit) in ended {
                // Whoever commits has gone only when the worker ends: the messages are redelivered then.
                if let Some(to) = to.upgrade() {
                    let _ = to.send(commit).await;
                }
            }
            Finished { number: None, usage: None }
        });
    }

    // admit

    /// Starts what intake has let through, as far as there are slots, and room for outcomes.
    fn start_ready(&mut self) {
        while self.parts.shared.may_start()
            && self.runs.len() < self.parts.shared.config.uncommitted_max()
            && let Some((accepted, slot)) = self.admission.next()
        {
            self.start(accepted, slot);
        }
    }

    /// Tasks have become long: what was taken in the hope of short ones goes back, for other workers to run.
    fn stall(&mut self) {
        self.prefetch.stall();
        let keep = self.prefetch.target(&self.parts.shared.live.load());
        let beyond = self.admission.take_beyond(keep);
        self.hand_over(beyond.into_iter().map(released).collect());
    }

    // execute

    fn start(&mut self, accepted: Accepted<E>, slot: E::Slot) {
        // Time has passed since intake.
        if accepted.request.is_expired() {
            let Accepted { request, held } = accepted;
            return self.hand_over(vec![(request.commits.clone(), next::expired(&request, held))]);
        }
        self.prefetch.started();
        self.numbers += 1;
        let stop = Stop::default();
        let fence = accepted.request.fence.clone();
        self.running.insert(self.numbers, Running { stop: stop.clone(), fence });
        self.runs.spawn(execute(accepted, slot, stop, self.numbers));
    }

    fn note_finished(&mut self, finished: Result<Finished, JoinError>) {
        match finished {
            Ok(Finished { number: Some(number), usage }) => {
                self.running.remove(&number);
                let config = &self.parts.shared.config;
                if let Some(usage) = usage {
                    self.prefetch.ran(occupied(usage, config.concurrency, config.max_in_flight));
                }
            }
            Ok(Finished { number: None, .. }) => self.handing_over = self.handing_over.saturating_sub(1),
            // Its delivery is redelivered once this worker is gone; nothing in the pipe is known to panic.
            Err(error) if error.is_panic() => {
                tracing::error!(%error, "a task's run panicked in the worker itself")
            }
            Err(_) => {}
        }
    }

    // shutdown

    /// Takes in what a taking in progress has got from the broker already, then takes no more.
    pub(crate) async fn stop_intake(&mut self, patience: Duration) {
        self.groups.iter().for_each(Group::stop);
        let last = async {
            while self.groups.iter().any(|group| !group.is_stopped)
                && let Some((group, news)) = self.news.recv().await
                && self.hear(group, news).is_ok()
            {}
        };
        // A broker that is away has nothing to give; what comes later still goes back.
        let _ = timeout(patience, last).await;
        self.groups.iter_mut().for_each(|group| group.is_stopped = true);
    }

    /// Everything unstarted goes back to the head of its queue, for other workers to run now.
    fn give_back_unstarted(&mut self) {
        let unstarted = self.admission.take_all();
        self.hand_over(unstarted.into_iter().map(released).collect());
    }

    pub(crate) fn ask_to_stop(&self) {
        self.running.values().for_each(|running| running.stop.request(StopReason::Shutdown));
    }

    pub(crate) fn kill(&self) {
        self.running.values().for_each(|running| running.stop.kill(KillReason::Shutdown));
    }

    /// Abandons the runs that are left; returns their deliveries.
    pub(crate) async fn abandon(&mut self) -> Vec<Fence> {
        self.runs.shutdown().await;
        let left = std::mem::take(&mut self.running).into_values();
        left.filter_map(|running| running.fence).collect()
    }

    /// Returns the groups, to be flushed and closed, and the news that receivers go on telling while they mend their lines.
    pub(crate) fn close(self) -> (Vec<Group>, Telling) {
        (self.groups, self.news)
    }
}
