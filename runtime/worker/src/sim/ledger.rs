//! What happened to every message: the account that the two promises are checked against.

use std::collections::BTreeMap;

use rwork_broker::Reason;
use rwork_protocol::TaskId;

/// A message from the moment the broker accepted it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: Option<TaskId>,
    pub(super) task: String,
    pub(super) retries: u32,
    pub(super) nesting: u32,
    /// The id that its success must lead to.
    pub(super) leads_to: Option<TaskId>,
    pub(super) deliveries: Vec<Handed>,
    pub(super) fate: Fate,
}

/// One delivery.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) number: u64,
    pub(super) worker: u64,
    /// A SUCCESS that this very message had led to was stored when it was handed over again.
    pub(super) had_succeeded: bool,
    pub(super) run: Run,
    pub(super) end: Option<End>,
}

/// Whether and how a delivery was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    No,
    Started,
    Ended(Ended),
}

/// How a run ended, as far as the account cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// An outcome that ends the message.
    Final,
    /// An outcome that sends it back to its queue.
    Returned,
    /// Killed from outside.
    Killed,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Acked,
    Requeued,
    Released,
    /// Held back until it is due.
    Parked,
    DeadLettered,
    /// Its worker died.
    Crashed,
    /// Its connection was cut.
    Cut,
    /// Its lease ran out, because renewing was kept from succeeding.
    LeaseLost,
    /// Its lease ran out, and nothing kept it from being renewed.
    LeaseForgotten,
    /// Its consumer was closed.
    Closed,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In its queue, held back or held.
    Open,
    Acked,
    Dead(Reason),
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) accounts: BTreeMap<u64, Account>,
    /// What must never happen, found while it happened.
    pub(super) violations: Vec<String>,
    /// Faults that were dealt out: crashes, cuts, lost answers.
    pub(super) faults: u64,
}

impl Ledger {
    pub(super) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.accounts.values().all(|account| account.fate != Fate::Open)
    }

    pub(super) fn handed(&mut self, serial: u64, number: u64) -> Option<&mut Handed> {
        self.accounts.get_mut(&serial)?.deliveries.iter_mut().find(|handed| handed.number == number)
    }

    /// A delivery ended; says so once.
    pub(super) fn end(&mut self, serial: u64, number: u64, end: End) {
        let Some(handed) = self.handed(serial, number) else { return };
        let run = handed.run;
        handed.end = Some(end);
        let fine = match end {
            End::Parked => run == Run::No,
            // Never started, or killed by shutdown.
            End::Released => !matches!(run, Run::Started | Run::Ended(Ended::Final | Ended::Returned)),
            End::Requeued => run == Run::Ended(Ended::Returned),
            _ => true,
        };
        if !fine {
            self.violation(format!(
                "message {serial}: delivery {number} {end:?} although its run is {run:?}"
            ));
        }
    }

    /// P2: the run of a delivery begins.
    ///
    /// With `leases`, a worker whose lease runs out has ended what it runs by then, so no two runs of one message ever
    /// overlap. Without, a broker that drops a connection hands over before the worker can know.
    pub(super) fn run_starts(&mut self, serial: u64, number: u64, acked_early: bool, leases: bool) {
        let Some(account) = self.accounts.get_mut(&serial) else {
            return self.violation(format!("message {serial} runs and was never accepted"));
        };
        let early = account.fate == Fate::Acked;
        let before = account.deliveries.iter().take_while(|handed| handed.number != number);
        let overlap =
            before.clone().find(|handed| leases && handed.run == Run::Started).map(|handed| handed.number);
        let unexplained = before.filter(|handed| handed.end.is_none()).map(|handed| handed.number).next();
        let Some(handed) = account.deliveries.iter_mut().find(|handed| handed.number == number) else {
            return self.violation(format!("message {serial}: delivery {number} runs and was never made"));
        };
        let (run, had_succeeded) = (handed.run, handed.had_succeeded);
        handed.run = Run::Started;
        if run != Run::No {
            self.violation(format!("message {serial}: delivery {number} runs twice"));
        }
        if had_succeeded {
            self.violation(format!(
                "message {serial}: delivery {number} runs although its success is stored"
            ));
        }
        if let Some(other) = overlap {
            self.violation(format!(
                "message {serial}: delivery {number} runs while the run of {other} goes on"
            ));
        }
        if let Some(other) = unexplained {
            self.violation(format!(
                "message {serial}: delivery {number} runs while delivery {other} is still held"
            ));
        }
        if acked_early && !early {
            self.violation(format!("message {serial}: delivery {number} runs before its early ack"));
        }
    }

    /// What a worker ran goes with it.
    pub(super) fn worker_is_gone(&mut self, worker: u64) {
        let handed = self.accounts.values_mut().flat_map(|account| &mut account.deliveries);
        for handed in handed.filter(|handed| handed.worker == worker && handed.run == Run::Started) {
            handed.run = Run::Ended(Ended::Killed);
        }
    }

    pub(super) fn run_ends(&mut self, serial: u64, number: u64, ended: Ended) {
        if let Some(handed) = self.handed(serial, number) {
            handed.run = Run::Ended(ended);
        }
    }
}
