//! The executor of a real worker: plugins from the registry, run in the sandbox.

use std::sync::Arc;

use rwork_plugin::{EffectiveOptions, Registry, Task};
use rwork_sandbox::{CleanupReason, Invocation, Report, Sandbox, Slot};

use crate::executor::{Executor, TaskVersion};

/// Runs tasks in the sandbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SandboxExecutor {
    /// Where invocations run.
    pub sandbox: Sandbox,
    /// Where tasks are looked up.
    pub registry: Registry,
}

impl Executor for SandboxExecutor {
    type Task = Arc<Task>;
    type Slot = Slot;

    fn lookup(&self, name: &str) -> Option<Arc<Task>> {
        self.registry.lookup(name)
    }

    fn try_admit(&self, _: &Arc<Task>) -> Option<Slot> {
        self.sandbox.try_admit()
    }

    async fn admit(&self, _: &Arc<Task>) -> Slot {
        self.sandbox.admit().await
    }

    fn execute(&self, slot: Slot, task: &Arc<Task>, invocation: Invocation) -> impl Future<Output = Report> {
        self.sandbox.execute(slot, Arc::clone(&task.prepared), invocation)
    }

    async fn cleanup(&self, task: &Arc<Task>, invocation: Invocation, reason: CleanupReason) {
        let id = invocation.id.clone();
        if let Err(error) = self.sandbox.cleanup(Arc::clone(&task.prepared), invocation, reason).await {
            let error = crate::outage::chain(&error);
            tracing::warn!(task_id = id, task_name = %task.name, plugin = %task.plugin, error, "the cleanup hook failed");
        }
    }
}

impl TaskVersion for Arc<Task> {
    fn options(&self) -> &EffectiveOptions {
        &self.options
    }

    fn digest(&self) -> &str {
        &self.digest
    }

    fn plugin(&self) -> &str {
        self.plugin.as_str()
    }

    fn may_submit(&self, task: &str) -> bool {
        self.prepared.grants().may_submit(task)
    }
}
