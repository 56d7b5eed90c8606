//! What runs tasks, as the worker sees it: the sandbox with its plugins, or a model of both.

use std::future::Future;

use rwork_plugin::EffectiveOptions;
use rwork_sandbox::{CleanupReason, Invocation, Report};

/// Looks tasks up, hands out slots, runs invocations.
pub trait Executor: Send + Sync + 'static {
    /// One version of one task. A request keeps the one that it was looked up with to its end, whatever is loaded
    /// meanwhile.
    type Task: TaskVersion;
    /// The right to run one invocation. Frees on drop.
    type Slot: Send + 'static;

    /// The live version of a task.
    fn lookup(&self, name: &str) -> Option<Self::Task>;

    /// A slot for this task, if one is free now.
    fn try_admit(&self, task: &Self::Task) -> Option<Self::Slot>;

    /// Waits for a slot for this task.
    ///
    /// # Cancel safety
    /// Cancel safe: a slot that was granted to a dropped future is free again.
    fn admit(&self, task: &Self::Task) -> impl Future<Output = Self::Slot> + Send;

    /// Runs one invocation. The slot is free as soon as the guest is gone, not only when the future is polled again.
    fn execute(
        &self,
        slot: Self::Slot,
        task: &Self::Task,
        invocation: Invocation,
    ) -> impl Future<Output = Report> + Send;

    /// Calls the cleanup hook of a task that was ended from outside, under its own small limits.
    fn cleanup(
        &self,
        task: &Self::Task,
        invocation: Invocation,
        reason: CleanupReason,
    ) -> impl Future<Output = ()> + Send;
}

/// One version of one task. Cloning shares it.
pub trait TaskVersion: Clone + Send + Sync + 'static {
    /// Its options, complete.
    fn options(&self) -> &EffectiveOptions;

    /// Digest of its component, `sha256:…`.
    fn digest(&self) -> &str;

    /// The plugin that has it.
    fn plugin(&self) -> &str;

    /// Whether the operator lets it send this task.
    fn may_submit(&self, task: &str) -> bool;
}
