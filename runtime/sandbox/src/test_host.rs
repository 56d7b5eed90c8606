//! A host that remembers what it was told, for this crate's tests.

use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Host, HostError, Level, LogSource, Payload, Submitted};

#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl Recorder {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl Host for Recorder {
    fn log_enabled(&self, level: Level) -> bool {
        level > Level::Trace
    }

    fn log(&self, source: LogSource, _level: Level, message: &str, fields: &[(String, String)]) {
        let fields: String = fields.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        self.0.lock().unwrap().push(format!("{source:?} {message}{fields}"));
    }

    async fn progress(&self, state: String, meta: Payload) -> Result<(), HostError> {
        if state == "BLOCK" {
            std::future::pending::<()>().await;
        }
        assert_ne!(state, "PANIC", "as asked for");
        let line = format!("progress {state} {}", String::from_utf8_lossy(&meta.data));
        self.0.lock().unwrap().push(line);
        Ok(())
    }

    async fn submit(&self, signatures: Vec<Payload>) -> Result<Vec<Submitted>, HostError> {
        let submitted = |payload: Payload| Submitted {
            id: String::from_utf8_lossy(&payload.data).into_owned(),
            result_tuple: "[]".to_owned(),
        };
        Ok(signatures.into_iter().map(submitted).collect())
    }

    async fn await_result(&self, id: String, timeout: Duration) -> Result<Payload, HostError> {
        tokio::time::sleep(timeout).await;
        Err(HostError::Unavailable(id))
    }
}
