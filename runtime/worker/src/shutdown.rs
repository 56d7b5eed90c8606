//! How a worker is told to stop.

use tokio_util::sync::CancellationToken;

/// Two wishes, each sticky. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take no more messages; let what runs end. The first signal.
    pub intake: CancellationToken,
    /// Run no more: what runs is asked to stop, then killed. The second signal.
    pub work: CancellationToken,
}

impl Shutdown {
    /// Nothing is wished yet.
    pub fn new() -> Self {
        Self::default()
    }
}
