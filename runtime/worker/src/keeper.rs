//! Renewals: on a thread and a line of their own where the caller gives one, so that nothing can be in their way.
//!
//! Writes no log and ends nothing: a renewal that fails is asked for again, and what the store says is told by resuming.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};

use crate::session::Session;

/// Renewals per lease: an observer wants four of its own answered before it calls anybody dead, and two of ours may fail.
const RENEWALS_PER_LEASE: u32 = 5;
/// Interval of looks at a consumer without a lease: one that is full of messages would not notice the end of its line.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Interval of a consumer's renewals.
pub(crate) fn interval(lease: Option<Duration>) -> Duration {
    lease.map_or(LOOK_EVERY, |lease| lease / RENEWALS_PER_LEASE)
}

/// Renews until the consumer has ended.
pub(crate) async fn keep(session: Arc<Session>, lease: Option<Duration>) {
    let every = interval(lease);
    let patience = lease.unwrap_or(every * RENEWALS_PER_LEASE);
    let mut next = Instant::now() + every;
    while session.over().is_none() {
        tokio::select! {
            biased;
            () = sleep_until(next) => {}
            () = session.renewal_wanted() => {}
        }
        next = Instant::now() + every;
        // One that is not answered in time is given up: the next is asked for on a line that may be better.
        let _ = timeout(patience, session.renew()).await;
    }
}
