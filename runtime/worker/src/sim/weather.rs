//! Faults of one world, and their frequency.

use rwork_broker::Ownership;

use super::column::Column;

/// Faults of calls in thousandths, while the storm lasts, and faults that come at any moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Weather {
    /// A call fails without effect.
    pub(super) fail_before: u32,
    /// A call has its effect, and the answer is lost.
    pub(super) fail_after: u32,
    /// The line breaks before a call's effect; the call may come late.
    pub(super) cut: u32,
    /// The worker dies before or after a call's effect.
    pub(super) crash: u32,
    /// A call takes seconds.
    pub(super) slow: u32,
    /// Worker deaths, shutdowns and plugin swaps: mean seconds between two; 0: none.
    pub(super) unrest_seconds: u64,
    /// What else comes over servers and processes.
    pub(super) blows: Vec<Blow>,
    /// The server loses data once.
    pub(super) loss: Option<Loss>,
}

/// What comes over a server or a process, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// The broker goes down and comes back.
    Restart,
    /// The broker answers nobody.
    Pause,
    /// The broker has no room.
    Full,
    /// The backend goes down and comes back, where it is another server.
    BackendDown,
    /// A process is stopped.
    Stop,
    /// A machine is suspended.
    Suspend,
    /// A process is cut off.
    CutOff,
    /// A process is copied, and the copy resumes first.
    Clone,
}

/// A loss of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// Back to an earlier state.
    Some,
    /// Everything.
    All,
}

impl Weather {
    /// One world in eight is calm, so that what needs no fault is seen without any.
    pub(super) fn draw(rng: &mut fastrand::Rng, column: &Column) -> Self {
        if rng.u32(0..8) == 0 {
            return Self { unrest_seconds: rng.u64(0..20), ..Self::default() };
        }
        let mut some = |most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let (fail_before, fail_after, cut) = (some(80), some(60), some(40));
        let (crash, slow) = (some(25), some(40));
        let can_lose = column.ownership.lease().is_some() && rng.u32(0..6) == 0;
        let loss = can_lose.then(|| if rng.bool() { Loss::Some } else { Loss::All });
        let unrest_seconds = rng.u64(0..15);
        let blows = possible(column).iter().copied().filter(|_| rng.u32(0..5) < 2).collect();
        Self { fail_before, fail_after, cut, crash, slow, unrest_seconds, blows, loss }
    }

    /// True if every call does what it is asked to.
    pub(super) fn is_calm(&self) -> bool {
        self.fail_before + self.fail_after + self.cut + self.slow == 0
            && self.blows.is_empty()
            && self.loss.is_none()
    }

    /// True if nothing can take a delivery from a worker.
    pub(super) fn is_dead_calm(&self) -> bool {
        self.is_calm() && self.crash == 0 && self.unrest_seconds == 0
    }
}

fn possible(column: &Column) -> &'static [Blow] {
    use Blow::{BackendDown, Clone, CutOff, Full, Pause, Restart, Stop, Suspend};
    match column.ownership {
        Ownership::Lease(_) => &[Restart, Pause, Full, BackendDown, Stop, Suspend, CutOff, Clone],
        Ownership::Process => &[Pause, Full, BackendDown, Stop, Suspend],
        Ownership::Connection => &[Restart, Pause, Full, BackendDown, Stop, CutOff],
    }
}
