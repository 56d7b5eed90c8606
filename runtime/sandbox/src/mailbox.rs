//! How reports get from the guest threads to whoever awaits them: several at a time while guests are short and many.
//!
//! Waking a sleeping I/O thread is a system call that costs a guest thread as much as a third of a short invocation.
//! So a report may wait for others, as long as a guest thread has more to begin: the next invocation's own end, its
//! first tick (10 ms) or its first wait sends all of them off. With nothing more to begin, nothing waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::outcome::Report;
use crate::services::Services;

/// Reports that go off together, so that each bears a small part of the wake-up.
const LETTERS_MAX: usize = 32;
/// How long a report waits for others while short invocations follow each other.
const WAIT_MAX: Duration = Duration::from_micros(200);

/// Reports on their way.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    /// Invocations that were handed to the guest threads and have not begun; each sends off what waits, one day.
    queued: AtomicUsize,
    /// How many letters wait; for a look without the lock.
    waiting: AtomicUsize,
    /// A few lines under each lock, never across an await.
    letters: Mutex<Letters>,
}

#[derive(Debug, Default)]
struct Letters {
    list: Vec<Letter>,
    oldest: Option<Instant>,
}

type Letter = (oneshot::Sender<Report>, Report);

impl Mailbox {
    /// Sends off what waits. Called whenever a guest is polled and does not end.
    pub(crate) fn flush(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.send(self.lock());
        }
    }

    fn post(&self, letter: Letter, now: Instant) {
        let mut letters = self.lock();
        letters.list.push(letter);
        let oldest = *letters.oldest.get_or_insert(now);
        self.waiting.store(letters.list.len(), Ordering::SeqCst);
        // Read last: whoever begins after this look finds the letter above.
        let more = self.queued.load(Ordering::SeqCst) > 0;
        if !more || letters.list.len() >= LETTERS_MAX || now.duration_since(oldest) >= WAIT_MAX {
            self.send(letters);
        }
    }

    fn send(&self, mut letters: MutexGuard<'_, Letters>) {
        let list = std::mem::take(&mut letters.list);
        letters.oldest = None;
        self.waiting.store(0, Ordering::SeqCst);
        drop(letters);
        for (sender, report) in list {
            // Whoever dropped the receiver does not want it.
            let _ = sender.send(report);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One invocation's duty to report.
#[derive(Debug)]
pub(crate) struct Reply {
    services: Arc<Services>,
    sender: Option<oneshot::Sender<Report>>,
    queued: bool,
}

impl Reply {
    /// To be made before the invocation is handed to the guest threads.
    pub(crate) fn new(services: Arc<Services>) -> (Self, oneshot::Receiver<Report>) {
        let (sender, receiver) = oneshot::channel();
        services.mailbox.queued.fetch_add(1, Ordering::SeqCst);
        (Self { services, sender: Some(sender), queued: true }, receiver)
    }

    /// The invocation is on a guest thread.
    pub(crate) fn begin(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.services.mailbox.queued.fetch_sub(1, Ordering::SeqCst);
        }
    }

    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    pub(crate) fn send(mut self, report: Report) {
        if let Some(sender) = self.sender.take() {
            self.begin();
            self.services.mailbox.post((sender, report), Instant::now());
        }
    }
}

impl Drop for Reply {
    /// An invocation that ends without a report still keeps no one else's waiting.
    fn drop(&mut self) {
        if self.sender.take().is_some() {
            self.begin();
            self.services.mailbox.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::egress::{Egress, HttpLimits, Roots};
    use crate::outcome::{Outcome, Usage};

    fn services() -> (tokio::runtime::Runtime, Arc<Services>) {
        let io = Builder::new_current_thread().build().unwrap();
        let egress = Egress::new(io.handle().clone(), HttpLimits::default(), Roots::default());
        let services = Services { io: io.handle().clone(), egress, mailbox: Mailbox::default() };
        (io, Arc::new(services))
    }

    fn report() -> Report {
        Report { outcome: Outcome::Ignore, usage: Usage::default() }
    }

    fn begun(services: &Arc<Services>) -> (Reply, oneshot::Receiver<Report>) {
        let (mut reply, receiver) = Reply::new(Arc::clone(services));
        reply.begin();
        (reply, receiver)
    }

    #[test]
    fn a_report_goes_off_at_once_when_nothing_is_to_begin() {
        let (_io, services) = services();
        let (reply, mut receiver) = begun(&services);
        reply.send(report());
        assert_eq!(receiver.try_recv(), Ok(report()));
    }

    #[test]
    fn a_report_waits_for_the_one_that_begins_next() {
        let (_io, services) = services();
        // Whatever becomes of the next one: it ends, is polled without an end, or is dropped unbegun.
        for next in 0..3 {
            let (mut queued, _next_receiver) = Reply::new(Arc::clone(&services));
            let (reply, mut receiver) = begun(&services);
            services.mailbox.post((reply_sender(reply), report()), Instant::now());
            assert!(receiver.try_recv().is_err());
            match next {
                0 => queued.send(report()),
                1 => {
                    queued.begin();
                    services.mailbox.flush();
                }
                _ => drop(queued),
            }
            assert_eq!(receiver.try_recv(), Ok(report()), "{next}");
        }
    }

    #[test]
    fn reports_wait_neither_long_nor_many() {
        let (_io, services) = services();
        let _queued = Reply::new(Arc::clone(&services));
        let start = Instant::now();
        let post = |at| {
            let (reply, receiver) = begun(&services);
            services.mailbox.post((reply_sender(reply), report()), at);
            receiver
        };
        let mut receivers: Vec<_> = (0..LETTERS_MAX).map(|_| post(start)).collect();
        assert!(receivers.iter_mut().all(|receiver| receiver.try_recv().is_ok()));
        let mut early = post(start);
        assert!(early.try_recv().is_err());
        let mut late = post(start + WAIT_MAX);
        assert!(early.try_recv().is_ok() && late.try_recv().is_ok());
    }

    fn reply_sender(mut reply: Reply) -> oneshot::Sender<Report> {
        reply.sender.take().unwrap()
    }
}
