//! Polls one guest: on a CPU slot while it computes, without one while it waits, and no longer than it may.
//!
//! The wrapper knows why a poll ended: the epoch callback leaves a mark when a tick came, and without the mark the
//! guest waits in a host call. A computing guest is ended by the epoch callback; a waiting one here, by dropping its
//! future. No timer exists for a guest that never waits.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::time::Sleep;

use crate::control::{Control, Kill};
use crate::outcome::KillReason;
use crate::services::Services;
use crate::slots::Slot;

/// How the guest's future ended.
pub(crate) enum Ended<T> {
    /// By itself, be it with an error.
    Returned(T),
    /// Dropped while it waited in the host.
    Dropped(Kill),
    /// A panic of the host's own.
    Panicked(String),
}

/// What [`supervise`] polls: `guarded(call)`, pinned by the caller, so that no future is moved once it is large.
pub(crate) fn guarded<T>(call: impl Future<Output = T>) -> impl Future<Output = Caught<T>> {
    AssertUnwindSafe(call).catch_unwind()
}

/// Runs a guarded call to its end, and measures its time on the CPU.
pub(crate) async fn supervise<T>(
    services: &Services,
    slot: &mut Slot,
    control: &Control,
    kill_grace: Duration,
    mut work: Pin<&mut impl Future<Output = Caught<T>>>,
) -> (Ended<T>, Duration) {
    let mut watch = Watch::new(services, control, kill_grace);
    let ended = poll_fn(|cx| {
        let polled = watch.poll(cx, slot, work.as_mut());
        if polled.is_pending() {
            services.mailbox.flush();
        }
        polled
    });
    let ended = ended.await;
    (ended, watch.cpu)
}

/// A value, or the panic that was caught instead.
pub(crate) type Caught<T> = Result<T, Box<dyn Any + Send>>;

struct Watch<'a> {
    services: &'a Services,
    control: &'a Control,
    kill_grace: Duration,
    cpu: Duration,
    /// The last poll ended because a tick came.
    yielded: bool,
    /// Until when a guest that was told to die may finish what it does in the host.
    grace_end: Option<Instant>,
    /// Made when the guest first waits.
    timer: Option<Pin<Box<Sleep>>>,
    killed: Option<Pin<Box<dyn Future<Output = KillReason> + Send>>>,
}

impl<'a> Watch<'a> {
    fn new(services: &'a Services, control: &'a Control, kill_grace: Duration) -> Self {
        let cpu = Duration::ZERO;
        Self {
            services,
            control,
            kill_grace,
            cpu,
            yielded: false,
            grace_end: None,
            timer: None,
            killed: None,
        }
    }

    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        slot: &mut Slot,
        mut work: Pin<&mut impl Future<Output = Caught<T>>>,
    ) -> Poll<Ended<T>> {
        if slot.on_cpu() && self.yielded {
            slot.hand_over();
        }
        if !slot.on_cpu() {
            if let Some(kill) = self.control.verdict(Instant::now()) {
                return self.end(cx, kill, work.as_mut());
            }
            if slot.poll_cpu(cx).is_pending() {
                self.arm(cx);
                return Poll::Pending;
            }
        }
        if let Poll::Ready(ended) = self.poll_guest(cx, work.as_mut()) {
            return Poll::Ready(ended);
        }
        self.yielded = self.control.has_yielded();
        if !self.yielded {
            slot.park();
            self.arm(cx);
        }
        Poll::Pending
    }

    /// Dying takes no CPU slot. Imports of rwork's own notice and trap, which shows where the guest was; whatever else
    /// it waits for is dropped: at once after the hard limit, after the grace when it was asked from outside.
    fn end<T>(
        &mut self,
        cx: &mut Context<'_>,
        kill: Kill,
        work: Pin<&mut impl Future<Output = Caught<T>>>,
    ) -> Poll<Ended<T>> {
        if let Poll::Ready(ended) = self.poll_guest(cx, work) {
            return Poll::Ready(ended);
        }
        let now = Instant::now();
        let grace = if kill == Kill::HardTimeLimit { Duration::ZERO } else { self.kill_grace };
        let grace_end = *self.grace_end.get_or_insert(now + grace);
        if now >= grace_end || self.control.hard.is_some_and(|hard| now >= hard) {
            return Poll::Ready(Ended::Dropped(kill));
        }
        self.arm(cx);
        Poll::Pending
    }

    fn poll_guest<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: Pin<&mut impl Future<Output = Caught<T>>>,
    ) -> Poll<Ended<T>> {
        self.control.set_yielded(false);
        // Timers, sockets and tasks that host functions make belong to the I/O runtime, where no guest is in the way.
        let io = self.services.io.enter();
        let started = Instant::now();
        let polled = work.poll(cx);
        self.cpu += started.elapsed();
        drop(io);
        polled.map(|caught| match caught {
            Ok(returned) => Ended::Returned(returned),
            Err(panic) => Ended::Panicked(panic_text(panic.as_ref())),
        })
    }

    /// Sees to it that the next deadline, or a kill, wakes this task.
    fn arm(&mut self, cx: &mut Context<'_>) {
        if self.grace_end.is_none() {
            let control = self.control;
            let killed = self.killed.get_or_insert_with(|| {
                let stop = control.stop.clone();
                Box::pin(async move { stop.wait_killed().await })
            });
            if killed.as_mut().poll(cx).is_ready() {
                self.killed = None;
                self.grace_end = Some(Instant::now() + self.kill_grace);
                cx.waker().wake_by_ref();
            }
        }
        let now = Instant::now();
        self.control.note_time(now);
        let Some(deadline) = self.next_deadline(now) else { return };
        let deadline = tokio::time::Instant::from_std(deadline);
        let _io = self.services.io.enter();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let soft = self.control.soft.filter(|soft| *soft > now);
        [soft, self.control.hard, self.grace_end].into_iter().flatten().min()
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic in the host: {}", text.unwrap_or("no message"))
}
