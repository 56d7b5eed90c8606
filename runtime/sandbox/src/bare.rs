//! The yardstick of `rwork bench`: a bare loop of fresh instances on one thread, with the engine, store and limiter of a
//! real invocation and nothing around it — no slots, no supervision, no threads, no report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::control::Control;
use crate::error::Error;
use crate::invocation::Invocation;
use crate::invoke::Session;
use crate::prepared::Prepared;
use crate::services::Services;
use crate::state::{Call, Parts};

/// Invocations between two looks at the clock.
const STRIDE: u64 = 64;

/// Calls a task over and over for so long, and returns how often.
pub(crate) fn run(
    services: &Arc<Services>,
    prepared: &Arc<Prepared>,
    invocation: &Invocation,
    duration: Duration,
) -> Result<u64, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| Error::Engine(error.into()))?;
    runtime.block_on(async {
        let (started, mut count) = (Instant::now(), 0);
        while started.elapsed() < duration {
            for _ in 0..STRIDE {
                once(services, prepared, invocation).await?;
            }
            count += STRIDE;
        }
        Ok(count)
    })
}

async fn once(
    services: &Arc<Services>,
    prepared: &Arc<Prepared>,
    invocation: &Invocation,
) -> Result<(), Error> {
    let session = Session {
        parts: Parts {
            call: Call {
                info: Arc::clone(&invocation.info),
                headers: invocation.headers.clone(),
                host: Arc::clone(&invocation.host),
            },
            control: Arc::new(Control::start(&invocation.limits, invocation.stop.clone())),
            services: Arc::clone(services),
            grants: Some(Arc::clone(&prepared.grants)),
            plugin: Arc::clone(&prepared.plugin),
        },
        prepared,
        limits: &invocation.limits,
    };
    let (ended, store) = session.run(&invocation.task, &invocation.id, &invocation.input).await;
    drop(store);
    ended
        .map(|_| ())
        .map_err(|outcome| Error::Engine(format!("the task of a bare loop failed: {outcome:?}").into()))
}
