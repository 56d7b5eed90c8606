//! How long a server's answers take, of whatever kind it is.

use std::time::Duration;

use super::check::Check;

/// A median above this is felt: a task costs a few round trips.
const MEDIAN_SLOW: Duration = Duration::from_millis(5);
/// One in a hundred above this: something else keeps the server or the network busy.
const TAIL_SLOW: Duration = Duration::from_millis(50);

/// Judges round trips; `busy` says where to look when some of them are slow. None were made: nothing to say.
pub(super) fn check(what: &'static str, round_trips: &[Duration], busy: &str) -> Option<Check> {
    let mut samples = round_trips.to_vec();
    samples.sort_unstable();
    let quantile =
        |percent: usize| samples.get((samples.len() * percent / 100).min(samples.len().saturating_sub(1)));
    let (median, tail) = (*quantile(50)?, *quantile(99)?);
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let found =
        format!("a round trip takes {:.2} ms, one in a hundred {:.2} ms or more", ms(median), ms(tail));
    Some(if median > MEDIAN_SLOW {
        let hint = "a task costs a few of them: bring workers and server closer together";
        Check::warning(what, found, hint)
    } else if tail > TAIL_SLOW {
        Check::warning(what, found, format!("something keeps the server busy now and then: {busy}"))
    } else {
        Check::ok(what, found)
    })
}
