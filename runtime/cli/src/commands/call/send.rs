//! From the flags to a task.

use std::time::SystemTime;

use rwork_protocol::{NewTask, QueueName, Timestamp};

use super::{Args, arguments};
use crate::commands::seconds;
use crate::config::Config;
use crate::failure::Failure;
use crate::wiring;

/// The task as the flags describe it, and where it goes.
pub(super) fn compose(args: &Args, config: &Config) -> anyhow::Result<(NewTask, QueueName)> {
    let now = now();
    let queue = match &args.queue {
        Some(queue) => queue.clone(),
        None => wiring::default_queue(config)?,
    };
    let mut task = NewTask::new(args.task.clone())
        .args(arguments::positional(&args.args)?)
        .kwargs(arguments::keywords(args.kwargs.as_deref(), &args.pairs)?);
    task.id = args.id.clone();
    task.eta = match (args.countdown, &args.eta) {
        (Some(countdown), _) => Some(now.plus(countdown)),
        (None, Some(eta)) => Some(time("--eta", eta)?),
        (None, None) => None,
    };
    task.expires = args.expires.as_deref().map(|expires| moment(expires, now)).transpose()?;
    task.priority = args.priority.or(config.settings.task_default_priority);
    task.hard_time_limit = args.time_limit;
    task.soft_time_limit = args.soft_time_limit;
    task.ignore_result = args.ignore_result.then_some(true);
    task.headers = args.headers.iter().map(|pair| arguments::keyword(pair)).collect::<Result<_, _>>()?;
    Ok((task, queue))
}

/// A time, or a number of seconds from now.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    match seconds(text) {
        Ok(after) => Ok(now.plus(after)),
        Err(_) => time("--expires", text),
    }
}

fn time(flag: &str, text: &str) -> Result<Timestamp, Failure> {
    Timestamp::parse_iso(text).ok_or_else(|| {
        Failure::usage(format!("expected `{flag}` to be an ISO 8601 time, got `{text}`"))
            .hint("for example 2026-11-21T18:00:00Z")
    })
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
