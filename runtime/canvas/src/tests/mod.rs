//! Canvas as a whole: what a worker that does what [`Next`] says would make happen.

mod failure;
mod order;
mod replacing;
mod sending;

use bytes::Bytes;
use rwork_protocol::json::Value;
use rwork_protocol::{NewTask, Signature, TaskId, TaskMessage, TaskName, Timestamp, json};

use crate::{Applied, Context, Error, Next, Outgoing, Parent, apply, on_failure, on_success, replace};

const NOW: Timestamp = Timestamp::from_millis(1_767_355_200_000);

/// Ids that tell in which order they were made.
pub(super) struct World {
    made: u32,
}

impl World {
    pub(super) fn new() -> Self {
        Self { made: 0 }
    }

    pub(super) fn with<T>(&mut self, act: impl FnOnce(&mut Context<'_>) -> T) -> T {
        let made = &mut self.made;
        let mut ids = || {
            *made += 1;
            TaskId::new(format!("new{made}")).unwrap()
        };
        act(&mut Context { now: NOW, origin: Some("gen1@host"), ids: &mut ids })
    }

    pub(super) fn succeed(&mut self, message: &TaskMessage, result: &str) -> Result<Next, Error> {
        let result = Bytes::copy_from_slice(result.as_bytes());
        self.with(|context| on_success(message, &result, context))
    }

    pub(super) fn fail(&mut self, message: &TaskMessage) -> Next {
        self.with(|context| on_failure(message, context))
    }

    pub(super) fn replace(&mut self, message: &TaskMessage, signature: &Signature) -> Result<Next, Error> {
        self.with(|context| replace(message, signature, context))
    }

    pub(super) fn apply(
        &mut self,
        signature: &Signature,
        parent: Option<&TaskMessage>,
    ) -> Result<Applied, Error> {
        self.with(|context| apply(signature, &[Bytes::from_static(b"7")], parent.map(Parent::from), context))
    }
}

/// A message of task `t` with id `me`, part of the workflow that `root` began.
pub(super) fn message() -> TaskMessage {
    let task = NewTask {
        id: Some(TaskId::new("me").unwrap()),
        root_id: Some(TaskId::new("root").unwrap()),
        ..NewTask::new(TaskName::new("t").unwrap())
    };
    task.build(NOW).unwrap()
}

pub(super) fn task(name: &str) -> Signature {
    Signature::new(TaskName::new(name).unwrap()).with_args("[1]")
}

/// The same with an id settled.
pub(super) fn named(name: &str) -> Signature {
    task(name).with_option("task_id", json::string(&format!("id-{name}")))
}

pub(super) fn array(signatures: &[Signature]) -> Bytes {
    json::array_of(&signatures.iter().map(Signature::encode).collect::<Vec<_>>())
}

/// `task id root parent group/index args` of each message.
pub(super) fn shown(publish: &[Outgoing]) -> Vec<String> {
    publish.iter().map(show).collect()
}

fn show(outgoing: &Outgoing) -> String {
    let headers = &outgoing.message.headers;
    let parent = headers.parent_id.as_ref().map_or("-", TaskId::as_str);
    let group = match (&headers.group, headers.group_index) {
        (Some(group), Some(index)) => format!("{group}/{index}"),
        (group, _) => group.clone().unwrap_or_else(|| "-".to_owned()),
    };
    let args = String::from_utf8(outgoing.message.args.to_vec()).unwrap();
    format!("{} {} {} {parent} {group} {args}", headers.task, headers.id, headers.root())
}

/// The tasks of an encoded array of signatures, in its order.
pub(super) fn tasks(signatures: &Option<Bytes>) -> Vec<String> {
    let Some(signatures) = signatures else { return Vec::new() };
    let Value::Array(signatures) = Value::parse(signatures).unwrap() else { panic!("expected an array") };
    signatures.iter().map(|one| one.get("task").unwrap().as_str().unwrap().to_owned()).collect()
}
