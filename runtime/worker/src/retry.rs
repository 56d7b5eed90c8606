//! Next, for a wish to run again: the next attempt, or the failure that remains when none is left.

use std::time::Duration;

use bytes::Bytes;
use rwork_canvas::{RetrySpec, may_retry};
use rwork_plugin::MaxRetries;
use rwork_protocol::json::{self, Kind};
use rwork_protocol::{Exception, Record, State};
use rwork_sandbox::{Input, JSON, Retry, RetryLimit};

use crate::commit::Effects;
use crate::ending::Ending;
use crate::executor::{Executor, TaskVersion};
use crate::next::{Verdict, children, exception, fail, fail_follow_up};
use crate::outage::chain;
use crate::request::Request;

/// The next attempt, or the failure that remains when none is left.
pub(crate) fn retry<E: Executor>(request: &Request<E>, wish: Retry) -> Verdict {
    let (message, options) = (&request.message, request.task.options());
    let retries = message.headers.retries;
    let limit = match wish.limit {
        RetryLimit::Inherit => limit(options.max_retries),
        RetryLimit::Unlimited => None,
        RetryLimit::AtMost(limit) => Some(limit),
    };
    let traceback = wish.cause.as_ref().and_then(|cause| cause.traceback.clone());
    let cause = wish.cause.as_ref().map(exception);
    if !may_retry(retries, limit) {
        let headers = &message.headers;
        let exceeded =
            || Exception::max_retries_exceeded(&headers.task, &headers.id, &message.args, &message.kwargs);
        return fail(request, &cause.unwrap_or_else(exceeded), traceback, |reason| Ending::Failed { reason });
    }
    let shared = &request.parts.shared;
    let draw = |most| shared.draw(|rng| rng.u64(0..=most));
    let delay = wish.delay.unwrap_or_else(|| options.autoretry_delay(retries, draw));
    let now = shared.clock.now();
    let input = match wish.input {
        None => Ok((None, None)),
        Some(input) => new_input(input),
    };
    let next = input.and_then(|(args, kwargs)| {
        let spec = RetrySpec { now, eta: now.plus(delay), args, kwargs, options: wish.options.as_bytes() };
        rwork_canvas::retry(message, &request.queue, spec).map_err(|error| chain(&error))
    });
    let outgoing = match next {
        Ok(outgoing) => outgoing,
        Err(why) => return fail_follow_up(request, &why),
    };
    let result = cause.as_ref().map_or(Bytes::from_static(b"null"), Exception::encode);
    let own_tuple =
        format!("[[[{}, null], null]]", String::from_utf8_lossy(&json::string(request.id().as_str())));
    let children = children(request, Some(&own_tuple.into()));
    let traceback = Some(retry_text(traceback.as_deref(), delay, cause.as_ref()));
    let record = request.record(State::Retry, result, children).map(|record| Record { traceback, ..record });
    let effects = Effects {
        records: record.map(|record| request.store(record)).into_iter().collect(),
        follow_ups: vec![request.parts.publish(outgoing)],
    };
    Verdict::new(Ending::Retried, effects)
}

/// Celery's text of a retry: where its cause came from, and `Retry in 4s: ValueError('no luck')`.
fn retry_text(traceback: Option<&str>, delay: Duration, cause: Option<&Exception>) -> String {
    let mut text = traceback.map(str::to_owned).unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("celery.exceptions.Retry: Retry in {}s", delay.as_secs_f64()));
    if let Some(cause) = cause {
        text.push_str(&format!(": {cause}"));
    }
    text.push('\n');
    text
}

/// What the next attempt is called with.
fn new_input(input: Input) -> Result<(Option<Bytes>, Option<Bytes>), String> {
    let Input::Call { content_type, args, kwargs } = input else {
        return Err("expected the input of a retry to be arguments, got a raw body".to_owned());
    };
    if content_type != JSON {
        return Err(format!("expected the input of a retry to be of type {JSON}, got {content_type}"));
    }
    match (json::check(&args), json::check(&kwargs)) {
        (Ok(Kind::Array), Ok(Kind::Object)) => Ok((Some(args), Some(kwargs))),
        _ => Err("expected the input of a retry to be a JSON array and a JSON object".to_owned()),
    }
}

/// `None`: for ever.
pub(crate) fn limit(retries: MaxRetries) -> Option<u32> {
    match retries {
        MaxRetries::Unlimited => None,
        MaxRetries::AtMost(limit) => Some(limit),
    }
}
