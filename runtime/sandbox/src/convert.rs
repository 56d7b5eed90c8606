//! Between the types generated from `wit/` and this crate's own. Nothing is decoded here.

use std::time::Duration;

use crate::bindings::exports::rwork::task::{cleanup, handler};
use crate::bindings::rwork::task::types::{self as wit, PayloadResult};
use crate::invocation::{Input, Payload};
use crate::outcome::{Failure, Outcome, Retry, RetryLimit};
use crate::prepared::{CleanupReason, Description, TaskDeclaration};

/// The guest's view of a call; borrows the message.
pub(crate) fn invocation_out<'a>(task: &'a str, id: &'a str, input: &'a Input) -> wit::Invocation<'a> {
    let input = match input {
        Input::Call { content_type, args, kwargs } => {
            wit::InputParam::Call(wit::CallArgsParam { content_type, args, kwargs })
        }
        Input::Raw(payload) => wit::InputParam::Raw(wit::PayloadParam {
            content_type: &payload.content_type,
            data: &payload.data,
        }),
    };
    wit::Invocation { task, id, input }
}

/// What the guest answered, and how many bytes of it.
pub(crate) fn outcome_in(answer: Result<PayloadResult, wit::Interruption>) -> (Outcome, usize) {
    match answer {
        Ok(payload) => {
            let payload = payload_in(payload);
            let size = payload_size(&payload);
            (Outcome::Success(payload), size)
        }
        Err(interruption) => interruption_in(interruption),
    }
}

fn interruption_in(interruption: wit::Interruption) -> (Outcome, usize) {
    match interruption {
        wit::Interruption::Failed(failure) => {
            let failure = failure_in(failure);
            let size = failure_size(&failure);
            (Outcome::Failed(failure), size)
        }
        wit::Interruption::Retry(retry) => {
            let retry = retry_in(retry);
            let size = retry_size(&retry);
            (Outcome::Retry(retry), size)
        }
        wit::Interruption::Ignore => (Outcome::Ignore, 0),
        wit::Interruption::Reject(wit::Rejection { requeue, reason }) => {
            let size = reason.len();
            (Outcome::Reject { requeue, reason }, size)
        }
        wit::Interruption::Replace(signature) => {
            let signature = payload_in(signature);
            let size = payload_size(&signature);
            (Outcome::Replace(signature), size)
        }
        wit::Interruption::Extension((kind, payload)) => {
            let size = kind.len() + payload.data.len();
            (Outcome::Failed(unknown_ending(&kind)), size)
        }
    }
}

/// An ending of a later version is a failure here, and says so.
fn unknown_ending(kind: &str) -> Failure {
    let message = format!("the plugin ended with `{kind}`, which this worker is too old to know");
    Failure {
        exc_type: "NotImplementedError".to_owned(),
        exc_module: Some("builtins".to_owned()),
        exc_args: Payload::json(serde_json::json!([message]).to_string()),
        message,
        traceback: None,
        retryable: false,
    }
}

fn retry_in(retry: wit::Retry) -> Retry {
    Retry {
        delay: retry.delay_ms.map(Duration::from_millis),
        limit: match retry.limit {
            wit::RetryLimit::Inherit => RetryLimit::Inherit,
            wit::RetryLimit::Unlimited => RetryLimit::Unlimited,
            wit::RetryLimit::AtMost(attempts) => RetryLimit::AtMost(attempts),
        },
        input: retry.input.map(input_in),
        cause: retry.cause.map(failure_in),
        options: retry.options,
    }
}

fn input_in(input: wit::InputResult) -> Input {
    match input {
        wit::InputResult::Call(call) => Input::Call {
            content_type: call.content_type,
            args: call.args.into(),
            kwargs: call.kwargs.into(),
        },
        wit::InputResult::Raw(payload) => Input::Raw(payload_in(payload)),
    }
}

pub(crate) fn payload_in(payload: PayloadResult) -> Payload {
    Payload { content_type: payload.content_type, data: payload.data.into() }
}

pub(crate) fn payload_out(payload: Payload) -> PayloadResult {
    PayloadResult { content_type: payload.content_type, data: payload.data.into() }
}

fn failure_in(failure: wit::Failure) -> Failure {
    Failure {
        exc_type: failure.exc_type,
        exc_module: failure.exc_module,
        exc_args: payload_in(failure.exc_args),
        message: failure.message,
        traceback: failure.traceback,
        retryable: failure.retryable,
    }
}

/// A failure of another task, for a guest that awaited it.
pub(crate) fn failure_out(failure: Failure) -> wit::Failure {
    wit::Failure {
        exc_type: failure.exc_type,
        exc_module: failure.exc_module,
        exc_args: payload_out(failure.exc_args),
        message: failure.message,
        traceback: failure.traceback,
        retryable: failure.retryable,
    }
}

fn payload_size(payload: &Payload) -> usize {
    payload.data.len()
}

fn failure_size(failure: &Failure) -> usize {
    let texts = [Some(&failure.exc_type), failure.exc_module.as_ref(), Some(&failure.message)];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    texts + failure.traceback.as_ref().map_or(0, String::len) + payload_size(&failure.exc_args)
}

fn retry_size(retry: &Retry) -> usize {
    let input = retry.input.as_ref().map_or(0, |input| match input {
        Input::Call { args, kwargs, .. } => args.len() + kwargs.len(),
        Input::Raw(payload) => payload_size(payload),
    });
    input + retry.cause.as_ref().map_or(0, failure_size) + retry.options.len()
}

pub(crate) fn description_in(description: handler::Description) -> Description {
    let task = |task: handler::TaskDeclaration| TaskDeclaration {
        name: task.name,
        summary: task.summary,
        options: task.options,
    };
    Description {
        sdk: description.sdk,
        options: description.options,
        tasks: description.tasks.into_iter().map(task).collect(),
    }
}

pub(crate) fn reason_out(reason: &CleanupReason) -> cleanup::Reason<'_> {
    match reason {
        CleanupReason::HardTimeLimit => cleanup::Reason::HardTimeLimit,
        CleanupReason::MemoryLimit => cleanup::Reason::MemoryLimit,
        CleanupReason::Trap(message) => cleanup::Reason::Trap(message),
        CleanupReason::Revoked => cleanup::Reason::Revoked,
        CleanupReason::Other(message) => cleanup::Reason::Other(message),
    }
}
