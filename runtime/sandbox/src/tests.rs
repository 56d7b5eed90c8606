//! The sandbox against guests written in WebAssembly text. What a guest does is in each test; how it is packed, in
//! `guest`. Hostile guests in real languages live in the workspace's `tests/`.

mod capabilities;
mod endings;
mod features;
mod guest;
mod limits;
mod output;
mod slots;
mod world;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use crate::test_host::Recorder;
use crate::{
    Grants, Input, Invocation, Limits, Outcome, Payload, Prepared, Report, RequestInfo, Sandbox,
    SandboxConfig, Stop,
};
use guest::Guest;

/// A sandbox with its I/O runtime, small enough to be made per test.
struct Bench {
    sandbox: Sandbox,
    host: Arc<Recorder>,
    io: Runtime,
}

impl Bench {
    fn new(concurrency: usize) -> Self {
        let io = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = SandboxConfig { max_in_flight: 8, ..SandboxConfig::with_concurrency(concurrency) };
        let sandbox = Sandbox::new(config, io.handle().clone()).unwrap();
        Self { sandbox, host: Arc::default(), io }
    }

    fn prepare(&self, guest: &Guest) -> Arc<Prepared> {
        let grants = Grants { submit: vec![crate::TaskPattern::new("*").unwrap()], ..Grants::default() };
        let code = self.sandbox.compile_in_memory(&guest.build()).unwrap();
        Arc::new(self.sandbox.link(&code, "guest", Arc::new(grants)).unwrap())
    }

    fn invocation(&self, limits: Limits) -> Invocation {
        Invocation {
            task: "guest.run".to_owned(),
            id: "1234".to_owned(),
            input: Input::Call {
                content_type: "application/json".to_owned(),
                args: "[1, 2]".into(),
                kwargs: "{}".into(),
            },
            info: Arc::new(RequestInfo::default()),
            headers: "{\"lang\": \"py\"}".into(),
            limits,
            host: self.host.clone(),
            stop: Stop::default(),
        }
    }

    /// Runs one invocation, then checks that nothing of it is left.
    fn run(&self, guest: &Guest, limits: Limits) -> Report {
        let prepared = self.prepare(guest);
        let report = self.io.block_on(self.start(&prepared, limits));
        self.wait_empty();
        report
    }

    fn outcome(&self, guest: &Guest, limits: Limits) -> Outcome {
        self.run(guest, limits).outcome
    }

    async fn start(&self, prepared: &Arc<Prepared>, limits: Limits) -> Report {
        let slot = self.sandbox.admit().await;
        self.sandbox.execute(slot, Arc::clone(prepared), self.invocation(limits)).await
    }

    /// Waits, by looking, until what ended has let go: that is after its report, on its own thread.
    fn wait_empty(&self) {
        while self.sandbox.metrics().in_flight > 0 {
            std::thread::yield_now();
        }
        self.assert_empty();
    }

    fn assert_empty(&self) {
        let metrics = self.sandbox.metrics();
        let used = (metrics.in_flight, metrics.running, metrics.memories, metrics.stacks, metrics.tables);
        assert_eq!(used, (0, 0, 0, 0, 0));
        assert_eq!((metrics.core_instances, metrics.component_instances), (0, 0));
    }
}

fn hard(milliseconds: u64) -> Limits {
    Limits { hard_time: Some(Duration::from_millis(milliseconds)), ..Limits::default() }
}

fn success(data: &'static str) -> Outcome {
    Outcome::Success(Payload::json(data))
}
