//! Effects of a failure, whatever failed and why: its record, one for each step of the chain that will never run, and
//! the errbacks.

use bytes::Bytes;
use rwork_backend::Store;
use rwork_canvas::FailedStep;
use rwork_protocol::{Exception, Extended, Record, State, TaskMessage};

use crate::commit::Effects;
use crate::executor::Executor;
use crate::outage::chain;
use crate::parts::Parts;

/// A failure, before it is known what it causes.
pub(crate) struct Failing<'a> {
    pub(crate) message: &'a TaskMessage,
    /// FAILURE, or REVOKED: then no errback is called, as in Celery.
    pub(crate) state: State,
    pub(crate) exception: &'a Exception,
    pub(crate) traceback: Option<&'a str>,
}

impl Failing<'_> {
    /// Everything that it causes. `own` makes its own record, given the children that were sent for it; `None`: none is
    /// kept.
    ///
    /// Without the other records a client that waits for the end of a chain would wait for ever.
    pub(crate) fn effects<E: Executor>(
        &self,
        parts: &Parts<E>,
        own: impl FnOnce(Option<&Bytes>) -> Option<Record>,
    ) -> Effects {
        let next = parts.with_context(|context| rwork_canvas::on_failure(self.message, context));
        for error in &next.refused {
            let (id, name) = (&self.message.headers.id, &self.message.headers.task);
            tracing::error!(task_id = %id, task_name = %name, error = %chain(error), "an errback can't be sent");
        }
        let (children, publish) = match self.state {
            State::Failure => (next.children.as_ref(), next.publish),
            _ => (None, Vec::new()),
        };
        let own = own(children).map(|record| Record { traceback: self.traceback(), ..record });
        let others = next.also_fail.iter().map(|step| self.never_run(parts, step));
        let store = |record| self.store(parts, record);
        Effects {
            records: own.into_iter().chain(others).map(store).collect(),
            follow_ups: parts.publish_all(publish),
        }
    }

    fn traceback(&self) -> Option<String> {
        self.traceback.map(str::to_owned)
    }

    fn never_run<E: Executor>(&self, parts: &Parts<E>, step: &FailedStep) -> Record {
        let shared = &parts.shared;
        Record {
            status: self.state.clone(),
            traceback: self.traceback(),
            group_id: step.group_id.clone(),
            extended: shared.config.result_extended.then(|| Box::new(never_called(step))),
            ..shared.failure(step.id.clone(), self.exception)
        }
    }

    /// A record on its way to the backend, with what an rpc client needs.
    fn store<E: Executor>(&self, parts: &Parts<E>, record: Record) -> Store {
        let properties = &self.message.properties;
        Store {
            reply_to: properties.reply_to.clone(),
            correlation_id: properties.correlation_id.clone(),
            ..parts.shared.store(record)
        }
    }
}

fn never_called(step: &FailedStep) -> Extended {
    Extended {
        name: Some(step.task.as_str().to_owned()),
        args: Some(step.args.clone()),
        kwargs: Some(step.kwargs.clone()),
        retries: Some(0),
        ..Extended::default()
    }
}
