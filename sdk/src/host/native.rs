//! The host of a native test: remembers what the task does, and answers what the test has set.
//!
//! Its clock stands still and only moves when the task sleeps, so that a test takes no time and always goes the same way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::context::{ProgressError, Request, SendError, StopReason, Submitted, TimeLeft};

/// Shared between a context and the test that reads it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Host(pub(crate) Rc<RefCell<State>>);

/// What the test has set and what the task has done.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) request: Request,
    /// JSON text by name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Time that the task has slept.
    pub(crate) now: Duration,
    pub(crate) soft_limit: Option<Duration>,
    pub(crate) hard_limit: Option<Duration>,
    /// A stop that the test has asked for, and when.
    pub(crate) stop: Option<(Duration, StopReason)>,
    /// Results that tasks which this one sends will have, by task id.
    pub(crate) results: BTreeMap<String, Result<String, SendError>>,
    pub(crate) send_error: Option<SendError>,
    pub(crate) progress_error: Option<ProgressError>,
    /// State and metadata.
    pub(crate) progress: Vec<(String, String)>,
    pub(crate) sent: Vec<String>,
}

impl State {
    fn stop_at(&self) -> Option<(Duration, StopReason)> {
        let soft = self.soft_limit.map(|limit| (limit, StopReason::SoftTimeLimit));
        match (soft, self.stop.clone()) {
            (Some(soft), Some(stop)) => Some(if soft.0 <= stop.0 { soft } else { stop }),
            (soft, stop) => soft.or(stop),
        }
    }

    fn stop_requested(&self) -> Option<StopReason> {
        self.stop_at().filter(|(at, _)| *at <= self.now).map(|(_, reason)| reason)
    }

    fn send(&mut self, signature: Vec<u8>) -> Submitted {
        self.sent.push(String::from_utf8_lossy(&signature).into_owned());
        let id = format!("sent-{}", self.sent.len());
        Submitted { result_tuple: format!("[[\"{id}\",null],null]"), id }
    }
}

impl Host {
    pub(crate) fn request(&self) -> Request {
        self.0.borrow().request.clone()
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.0.borrow().headers.get(name).cloned()
    }

    pub(crate) fn header_names(&self) -> Vec<String> {
        self.0.borrow().headers.keys().cloned().collect()
    }

    pub(crate) fn stop_requested(&self) -> Option<StopReason> {
        self.0.borrow().stop_requested()
    }

    pub(crate) fn remaining(&self) -> TimeLeft {
        let state = self.0.borrow();
        let left = |limit: Option<Duration>| limit.map(|limit| limit.saturating_sub(state.now));
        TimeLeft { soft: left(state.soft_limit), hard: left(state.hard_limit) }
    }

    pub(crate) fn sleep(&self, duration: Duration) -> Result<(), StopReason> {
        let mut state = self.0.borrow_mut();
        let until = state.now.saturating_add(duration);
        match state.stop_at() {
            Some((at, reason)) if at <= until => {
                state.now = state.now.max(at);
                Err(reason)
            }
            _ => {
                state.now = until;
                Ok(())
            }
        }
    }

    pub(crate) fn progress(&self, state: &str, meta: Vec<u8>) -> Result<(), ProgressError> {
        let mut host = self.0.borrow_mut();
        if let Some(error) = &host.progress_error {
            return Err(error.clone());
        }
        host.progress.push((state.to_owned(), String::from_utf8_lossy(&meta).into_owned()));
        Ok(())
    }

    pub(crate) fn send(&self, signature: Vec<u8>) -> Result<Submitted, SendError> {
        let mut state = self.0.borrow_mut();
        if let Some(error) = &state.send_error {
            return Err(error.clone());
        }
        Ok(state.send(signature))
    }

    pub(crate) fn send_many(&self, signatures: Vec<Vec<u8>>) -> Result<Vec<Submitted>, SendError> {
        let mut state = self.0.borrow_mut();
        if let Some(error) = &state.send_error {
            return Err(error.clone());
        }
        Ok(signatures.into_iter().map(|signature| state.send(signature)).collect())
    }

    pub(crate) fn await_result(&self, id: &str, timeout: Duration) -> Result<Vec<u8>, SendError> {
        let result = self.0.borrow().results.get(id).cloned();
        match result {
            Some(result) => result.map(String::into_bytes),
            None => {
                self.sleep(timeout).map_err(SendError::Stopped)?;
                Err(SendError::TimedOut)
            }
        }
    }
}
