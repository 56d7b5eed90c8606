//! Moments of ours by the server's clock, so that a call which is late by any stall can be refused where it arrives.

use std::sync::Mutex;
use std::time::Duration;

use redis::Value;
use rwork_backend::Error;
use tokio::time::Instant;

use crate::broker::locked;
use crate::link::Link;
use crate::reply;

/// Time for which the server's answer is believed: another may have taken its place, or its clock was set.
const BELIEVED: Duration = Duration::from_secs(10);

/// The server's clock as it was last heard of.
#[derive(Debug, Default)]
pub(crate) struct ServerClock {
    /// When the answer was here, and the microseconds that it named. Held for one move.
    heard: Mutex<Option<(Instant, i64)>>,
}

impl ServerClock {
    /// A moment in microseconds of the server's clock; earlier by the time that its answer was on the way.
    pub(super) async fn at(&self, commands: &Link, moment: Instant) -> Result<i64, Error> {
        let heard = locked(&self.heard).filter(|(heard, _)| heard.elapsed() < BELIEVED);
        let (heard, micros) = match heard {
            Some(heard) => heard,
            None => self.ask(commands).await?,
        };
        let (later, earlier) = (moment - heard, heard - moment);
        Ok(micros.saturating_add(whole(later)).saturating_sub(whole(earlier)))
    }

    /// Asks again before the next moment: the server finds one past that is not.
    pub(super) fn doubt(&self) {
        *locked(&self.heard) = None;
    }

    async fn ask(&self, commands: &Link) -> Result<(Instant, i64), Error> {
        const ACT: &str = "read the server's clock";
        let answer = commands.command(ACT, &redis::cmd("TIME")).await?;
        let micros =
            read(answer).ok_or_else(|| reply::odd(commands.url(), ACT, "seconds and microseconds"))?;
        Ok(*locked(&self.heard).insert((Instant::now(), micros)))
    }
}

fn read(answer: Value) -> Option<i64> {
    let mut parts = reply::list(answer)?.into_iter().map(|part| reply::text(part)?.parse::<i64>().ok());
    parts.next()??.checked_mul(1_000_000)?.checked_add(parts.next()??)
}

fn whole(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
