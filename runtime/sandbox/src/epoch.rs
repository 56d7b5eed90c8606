//! The thread that ticks: an OS thread, because a runtime that guests keep busy would stop its own watchdog.
//!
//! A tick says only how often a computing guest is looked at; deadlines are compared in the guest's epoch callback.
//! While nothing runs the thread sleeps, so that an idle worker costs nothing.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use wasmtime::EngineWeak;

use crate::error::Error;
use crate::slots::Slots;

/// The ticker goes to sleep after one second without a guest: at thousands of short calls a second, waking it for each
/// would cost more than ticking.
const IDLE_BEFORE_SLEEP: Duration = Duration::from_secs(1);

/// Starts the ticker; it ends by itself when the slots are closed and the last guest is gone.
pub(crate) fn start(engine: EngineWeak, slots: Arc<Slots>, tick: Duration) -> Result<(), Error> {
    let ticker = Arc::clone(&slots);
    let thread = thread::Builder::new()
        .name("rwork-epoch".to_owned())
        .spawn(move || run(&engine, &ticker, tick))
        .map_err(|source| Error::Thread { what: "epoch thread", source })?;
    slots.set_ticker(thread.thread().clone());
    Ok(())
}

fn run(engine: &EngineWeak, slots: &Slots, tick: Duration) {
    let mut idle = Duration::ZERO;
    while !slots.is_closed() {
        thread::sleep(tick);
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        drop(engine);
        idle = if slots.is_idle() { idle + tick } else { Duration::ZERO };
        if idle >= IDLE_BEFORE_SLEEP && slots.park_ticker() {
            while slots.is_ticker_parked() {
                thread::park();
            }
            idle = Duration::ZERO;
        }
    }
}
