//! Broker and result backend at a worker's start: what can't be reached yet is waited for, as Celery's worker does; what
//! refuses us is an error at once.

use std::time::Duration;

use crate::config::Config;
use crate::drivers::{self, Driver, Services};
use crate::failure::hints_of;

/// The first pause between attempts.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest: a worker serves within seconds of its server's return.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Both services, once they are there. Not `patient`: or at once.
///
/// # Errors
/// A URL that no driver takes; a server that refuses us; one that can't be reached, where that is not waited for.
///
/// # Cancel safety
/// Cancel safe.
pub(super) async fn services(config: &Config, patient: bool) -> anyhow::Result<Services> {
    let broker = reach("broker", patient, async || drivers::open_broker(config).await).await?;
    let backend = async || drivers::open_backend(config, &broker).await;
    let backend = reach("result backend", patient, backend).await?;
    Ok(drivers::together(config, &broker, &backend))
}

/// One line for each attempt that fails.
async fn reach(
    what: &'static str,
    patient: bool,
    open: impl AsyncFn() -> anyhow::Result<Driver>,
) -> anyhow::Result<Driver> {
    let mut pause = PAUSE;
    loop {
        match open().await {
            Err(error) if patient && drivers::may_pass(&error) => {
                // Workers that lost their server together do not come back in step.
                let wait = pause + pause.mul_f64(fastrand::f64() / 2.0);
                tracing::warn!(
                    error = %format!("{error:#}"),
                    hint = hints_of(&error).first(),
                    "can't reach the {what} yet: trying again in {:.1} s",
                    wait.as_secs_f64()
                );
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            ended => return ended,
        }
    }
}
