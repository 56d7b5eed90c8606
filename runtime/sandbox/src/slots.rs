//! Who may exist and who may compute: in-flight places and CPU slots, each first come, first served.
//!
//! A guest takes a CPU slot when it starts, gives it back while it waits in a host call, and takes one again before it
//! goes on. A guest that computes keeps its slot across epoch ticks, unless one that has waited wants to go on: then
//! the slot goes round, tick by tick. New invocations start only on a free slot, so a queue of computing tasks runs in
//! order, as many at a time as there are slots.
//!
//! While invocations are short, a few more than there are slots are admitted ahead (the *window*), so that a guest
//! thread finds its next one without a round trip to the thread that receives messages. One tick of computing closes
//! the window. Nothing here knows of WebAssembly.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;

/// Invocations per CPU slot that are admitted ahead while all are short: at 10 µs each, 640 µs of work, many times what
/// waking the receiving thread takes, and little enough that no other worker would have begun them sooner.
const WINDOW_PER_CPU: usize = 64;

/// The places of one sandbox.
#[derive(Debug)]
pub(crate) struct Slots {
    cpus: usize,
    in_flight_max: usize,
    /// A few lines under each lock, never across an await.
    state: Mutex<State>,
    ticker: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct State {
    in_flight: usize,
    /// Admitted, without a CPU slot yet.
    ready: usize,
    running: usize,
    window: usize,
    resuming: VecDeque<Arc<Ticket>>,
    starting: VecDeque<Arc<Ticket>>,
    admitting: VecDeque<Arc<Ticket>>,
    ticker_parked: bool,
    closing: bool,
}

/// A place in one of the queues.
#[derive(Debug)]
struct Ticket {
    granted: AtomicBool,
    waker: Mutex<Waker>,
}

/// The right to run one invocation; given back on drop.
#[derive(Debug)]
pub struct Slot {
    slots: Arc<Slots>,
    place: Place,
    /// False for calls of the worker's own, which come out of no one's turn.
    counted: bool,
    short: bool,
}

#[derive(Debug)]
enum Place {
    /// Admitted, not started.
    Ready,
    /// Holds a CPU slot.
    Running,
    /// Waits in a host call.
    Parked,
    /// In the queue for a first CPU slot.
    Starting(Arc<Ticket>),
    /// In the queue for a CPU slot after a wait.
    Resuming(Arc<Ticket>),
}

impl Slots {
    pub(crate) fn new(cpus: usize, in_flight_max: usize) -> Arc<Self> {
        Arc::new(Self { cpus, in_flight_max, state: Mutex::default(), ticker: OnceLock::new() })
    }

    /// A slot, if one is free and no one waits.
    pub(crate) fn try_admit(self: &Arc<Self>) -> Option<Slot> {
        let mut state = self.lock();
        if state.admitting.is_empty() && self.has_room(&state, state.window) {
            state.in_flight += 1;
            state.ready += 1;
            return Some(self.slot());
        }
        None
    }

    /// Waits for a slot.
    ///
    /// # Cancel safety
    /// Cancel safe: a slot that was granted to a dropped future goes to the next in line.
    pub(crate) async fn admit(self: &Arc<Self>) -> Slot {
        let mut waiting = Admission { slots: Arc::clone(self), ticket: None };
        poll_fn(|cx| waiting.poll(cx)).await
    }

    /// A slot for a call of the worker's own (`describe`, cleanup): not counted, served like one that has waited.
    pub(crate) fn side(self: &Arc<Self>) -> Slot {
        Slot { slots: Arc::clone(self), place: Place::Parked, counted: false, short: false }
    }

    /// (in flight, running)
    pub(crate) fn used(&self) -> (usize, usize) {
        let state = self.lock();
        (state.in_flight, state.running)
    }

    /// Names the thread to wake when the first guest runs.
    pub(crate) fn set_ticker(&self, thread: Thread) {
        let _ = self.ticker.set(thread);
    }

    /// Whether guests run now.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().running == 0
    }

    /// True when the ticker may sleep: from then on the first guest to run wakes it.
    pub(crate) fn park_ticker(&self) -> bool {
        let mut state = self.lock();
        state.ticker_parked = state.running == 0 && !state.closing;
        state.ticker_parked
    }

    /// Whether the ticker is still to sleep.
    pub(crate) fn is_ticker_parked(&self) -> bool {
        self.lock().ticker_parked
    }

    /// Lets the ticker end once nothing runs.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.ticker_parked = false;
        drop(state);
        self.wake_ticker();
    }

    /// Whether nothing runs and nothing will.
    pub(crate) fn is_closed(&self) -> bool {
        let state = self.lock();
        state.closing && state.running == 0
    }

    fn slot(self: &Arc<Self>) -> Slot {
        Slot { slots: Arc::clone(self), place: Place::Ready, counted: true, short: true }
    }

    fn has_room(&self, state: &State, window: usize) -> bool {
        let busy = state.running + state.ready + state.resuming.len();
        state.in_flight < self.in_flight_max && busy < self.cpus + window
    }

    /// Hands out what is free. Returns whom to wake, once the lock is gone.
    fn grant(&self, state: &mut State) -> Vec<Waker> {
        let mut wakers = Vec::new();
        while state.running < self.cpus {
            let next = match state.resuming.pop_front() {
                Some(ticket) => ticket,
                None => match state.starting.pop_front() {
                    Some(ticket) => {
                        state.ready = state.ready.saturating_sub(1);
                        ticket
                    }
                    None => break,
                },
            };
            state.running += 1;
            wakers.push(next.grant());
        }
        // Whoever waits to be admitted is woken when half the window is empty, so that one wake-up fetches several.
        while self.has_room(state, state.window / 2) {
            let Some(ticket) = state.admitting.pop_front() else { break };
            state.in_flight += 1;
            state.ready += 1;
            wakers.push(ticket.grant());
        }
        wakers
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let wakers = self.grant(&mut state);
        let wake_ticker = state.running > 0 && std::mem::take(&mut state.ticker_parked);
        drop(state);
        if wake_ticker {
            self.wake_ticker();
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_ticker(&self) {
        if let Some(thread) = self.ticker.get() {
            thread.unpark();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// Takes a CPU slot, in turn. Ready at once when the slot already holds one.
    pub(crate) fn poll_cpu(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (queue, started) = match &self.place {
            Place::Running => return Poll::Ready(()),
            Place::Starting(ticket) | Place::Resuming(ticket) => {
                return self.poll_ticket(&Arc::clone(ticket), cx);
            }
            Place::Ready => (Queue::Starting, false),
            Place::Parked => (Queue::Resuming, true),
        };
        let mut state = self.slots.lock();
        let others = !state.resuming.is_empty() || (!started && !state.starting.is_empty());
        if state.running < self.slots.cpus && !others {
            state.running += 1;
            if !started {
                state.ready = state.ready.saturating_sub(1);
            }
            let wake_ticker = std::mem::take(&mut state.ticker_parked);
            drop(state);
            self.place = Place::Running;
            if wake_ticker {
                self.slots.wake_ticker();
            }
            return Poll::Ready(());
        }
        let ticket = Ticket::new(cx);
        match queue {
            Queue::Starting => {
                state.starting.push_back(Arc::clone(&ticket));
                self.place = Place::Starting(ticket);
            }
            Queue::Resuming => {
                state.resuming.push_back(Arc::clone(&ticket));
                self.place = Place::Resuming(ticket);
            }
        }
        Poll::Pending
    }

    /// Whether it holds a CPU slot now.
    pub(crate) fn on_cpu(&self) -> bool {
        matches!(self.place, Place::Running)
    }

    /// Gives the CPU slot back for the length of a wait.
    pub(crate) fn park(&mut self) {
        if self.on_cpu() {
            self.place = Place::Parked;
            self.slots.change(|state| state.running = state.running.saturating_sub(1));
        }
    }

    /// After a tick of computing: passes the CPU slot on if one that has waited wants to go on.
    pub(crate) fn hand_over(&mut self) {
        self.short = false;
        let mut state = self.slots.lock();
        state.window = 0;
        let wanted = !state.resuming.is_empty();
        drop(state);
        if wanted {
            self.park();
        }
    }

    fn poll_ticket(&mut self, ticket: &Ticket, cx: &Context<'_>) -> Poll<()> {
        if ticket.is_granted(cx) {
            self.place = Place::Running;
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let place = std::mem::replace(&mut self.place, Place::Parked);
        let (counted, short) = (self.counted, self.short);
        let window_max = WINDOW_PER_CPU * self.slots.cpus;
        self.slots.change(|state| {
            state.leave(&place);
            if counted {
                state.in_flight = state.in_flight.saturating_sub(1);
            }
            if short && !matches!(place, Place::Ready | Place::Starting(_)) {
                state.window = (state.window + 1).min(window_max);
            }
        });
    }
}

impl State {
    fn leave(&mut self, place: &Place) {
        match place {
            Place::Parked => {}
            Place::Ready => self.ready = self.ready.saturating_sub(1),
            Place::Running => self.running = self.running.saturating_sub(1),
            Place::Starting(ticket) => {
                if remove(&mut self.starting, ticket) {
                    self.ready = self.ready.saturating_sub(1);
                } else {
                    self.running = self.running.saturating_sub(1);
                }
            }
            Place::Resuming(ticket) => {
                if !remove(&mut self.resuming, ticket) {
                    self.running = self.running.saturating_sub(1);
                }
            }
        }
    }
}

enum Queue {
    Starting,
    Resuming,
}

/// One caller in the queue for admission.
struct Admission {
    slots: Arc<Slots>,
    ticket: Option<Arc<Ticket>>,
}

impl Admission {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<Slot> {
        if let Some(ticket) = &self.ticket {
            if !ticket.is_granted(cx) {
                return Poll::Pending;
            }
            self.ticket = None;
            return Poll::Ready(self.slots.slot());
        }
        if let Some(slot) = self.slots.try_admit() {
            return Poll::Ready(slot);
        }
        let ticket = Ticket::new(cx);
        self.ticket = Some(Arc::clone(&ticket));
        // Room may have come up since the attempt: enqueue, then hand out.
        self.slots.change(|state| state.admitting.push_back(Arc::clone(&ticket)));
        if ticket.is_granted(cx) {
            self.ticket = None;
            return Poll::Ready(self.slots.slot());
        }
        Poll::Pending
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.slots.change(|state| {
                if !remove(&mut state.admitting, &ticket) {
                    state.in_flight = state.in_flight.saturating_sub(1);
                    state.ready = state.ready.saturating_sub(1);
                }
            });
        }
    }
}

impl Ticket {
    fn new(cx: &Context<'_>) -> Arc<Self> {
        Arc::new(Self { granted: AtomicBool::new(false), waker: Mutex::new(cx.waker().clone()) })
    }

    /// Marks before it takes the waker, as `is_granted` leaves the waker before it looks: one of the two sees the other.
    fn grant(&self) -> Waker {
        self.granted.store(true, Ordering::Release);
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn is_granted(&self, cx: &Context<'_>) -> bool {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        self.granted.load(Ordering::Acquire)
    }
}

/// Whether it was still in the queue.
fn remove(queue: &mut VecDeque<Arc<Ticket>>, ticket: &Arc<Ticket>) -> bool {
    match queue.iter().position(|other| Arc::ptr_eq(other, ticket)) {
        Some(index) => queue.remove(index).is_some(),
        None => false,
    }
}
