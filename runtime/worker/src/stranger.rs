//! A message that no plugin here can run: what it says of itself is all there is.

use std::sync::Arc;

use rwork_protocol::{Exception, State, TaskId, TaskMessage, TaskName};

use crate::budget::Grant;
use crate::commit::{Effects, Subject};
use crate::executor::Executor;
use crate::failure::Failing;
use crate::parts::Parts;

/// A message whose task is unknown.
pub(crate) struct Stranger<E: Executor> {
    pub(crate) parts: Arc<Parts<E>>,
    pub(crate) message: TaskMessage,
    /// Keeps account of what is in `message`.
    pub(crate) _body: Grant,
}

impl<E: Executor> Subject for Stranger<E> {
    fn label(&self) -> (&TaskId, &TaskName) {
        (&self.message.headers.id, &self.message.headers.task)
    }

    fn fail(&self, exception: &Exception) -> Effects {
        let failing = Failing { message: &self.message, state: State::Failure, exception, traceback: None };
        let headers = &self.message.headers;
        let own = || self.parts.shared.failure(headers.id.clone(), exception);
        failing.effects(&self.parts, |_| (headers.ignore_result != Some(true)).then(own))
    }
}
