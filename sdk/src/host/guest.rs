//! The host of a guest: the imports of `rwork:task`.
//!
//! Each function calls one import, so that a component imports an interface only when its tasks use it.

use std::time::{Duration, SystemTime};

use crate::context::{ProgressError, RemoteFailure, Request, SendError, StopReason, Submitted, TimeLeft};
use crate::guest::bindings::rwork::task::{limits, progress, request, submit};
use crate::guest::{json, milliseconds};

/// The worker that runs this guest.
#[derive(Clone, Debug)]
pub(crate) struct Host;

impl Host {
    pub(crate) fn request(&self) -> Request {
        let info = request::get();
        let time = |unix_ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
        Request {
            root_id: info.root_id,
            parent_id: info.parent_id,
            group_id: info.group_id,
            group_index: info.group_index,
            retries: info.retries,
            delivery_count: info.delivery_count,
            redelivered: info.redelivered,
            queue: info.queue,
            priority: info.priority,
            hostname: info.hostname,
            origin: info.origin,
            correlation_id: info.correlation_id,
            reply_to: info.reply_to,
            eta: info.eta_unix_ms.map(time),
            expires: info.expires_unix_ms.map(time),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    pub(crate) fn header_names(&self) -> Vec<String> {
        request::header_names()
    }

    pub(crate) fn stop_requested(&self) -> Option<StopReason> {
        limits::stop_requested().map(stop_reason)
    }

    pub(crate) fn remaining(&self) -> TimeLeft {
        let left = limits::remaining();
        TimeLeft {
            soft: left.soft_ms.map(Duration::from_millis),
            hard: left.hard_ms.map(Duration::from_millis),
        }
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Result<(), StopReason> {
        limits::sleep(milliseconds(duration)).map_err(stop_reason)
    }

    pub(crate) fn progress(&self, state: &str, meta: Vec<u8>) -> Result<(), ProgressError> {
        progress::update(state, &json(meta)).map_err(|error| match error {
            progress::Error::Denied(why) => ProgressError::Denied(why),
            progress::Error::Unavailable(why) => ProgressError::Unavailable(why),
            progress::Error::Stopped(reason) => ProgressError::Stopped(stop_reason(reason)),
            progress::Error::Other(why) => ProgressError::Other(why),
        })
    }

    pub(crate) fn send(&self, signature: Vec<u8>) -> Result<Submitted, SendError> {
        submit::send(&json(signature)).map(submitted).map_err(send_error)
    }

    pub(crate) fn send_many(&self, signatures: Vec<Vec<u8>>) -> Result<Vec<Submitted>, SendError> {
        let signatures: Vec<_> = signatures.into_iter().map(json).collect();
        let sent = submit::send_many(&signatures).map_err(send_error)?;
        Ok(sent.into_iter().map(submitted).collect())
    }

    pub(crate) fn await_result(&self, id: &str, timeout: Duration) -> Result<Vec<u8>, SendError> {
        let result = submit::await_result(id, milliseconds(timeout)).map_err(send_error)?;
        if result.content_type == crate::JSON {
            Ok(result.data)
        } else {
            Err(SendError::Decode(format!("expected JSON, got {}", result.content_type)))
        }
    }
}

fn submitted(sent: submit::Submitted) -> Submitted {
    Submitted { id: sent.id, result_tuple: sent.result_tuple }
}

fn send_error(error: submit::Error) -> SendError {
    match error {
        submit::Error::Denied(why) => SendError::Denied(why),
        submit::Error::Invalid(why) => SendError::Invalid(why),
        submit::Error::TooLarge(why) => SendError::TooLarge(why),
        submit::Error::Unavailable(why) => SendError::Unavailable(why),
        submit::Error::TimedOut => SendError::TimedOut,
        submit::Error::Failed(failure) => SendError::Failed(RemoteFailure {
            exc_type: failure.exc_type,
            exc_module: failure.exc_module,
            exc_args: String::from_utf8(failure.exc_args.data).unwrap_or_else(|_| "[]".to_owned()),
            message: failure.message,
            traceback: failure.traceback,
        }),
        submit::Error::Stopped(reason) => SendError::Stopped(stop_reason(reason)),
        submit::Error::Other(why) => SendError::Other(why),
    }
}

fn stop_reason(reason: limits::StopReason) -> StopReason {
    match reason {
        limits::StopReason::SoftTimeLimit => StopReason::SoftTimeLimit,
        limits::StopReason::Revoked => StopReason::Revoked,
        limits::StopReason::Shutdown => StopReason::Shutdown,
        limits::StopReason::Other(reason) => StopReason::Other(reason),
    }
}
