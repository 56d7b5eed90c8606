//! Account of what happened to every message, against which the promises are checked.

use std::collections::{BTreeMap, BTreeSet};

use rwork_broker::{Reason, Receipt};
use rwork_model::{ConsumerId, Event, How, Serial, Store};
use rwork_protocol::{DecodeLimits, Message, State, TaskId, decode};

/// A message from the moment the broker accepted it.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) id: Option<TaskId>,
    pub(super) task: String,
    pub(super) retries: u32,
    pub(super) nesting: u32,
    /// The id that its success must lead to.
    pub(super) leads_to: Option<TaskId>,
    /// The message whose commit published it.
    pub(super) parent: Option<Serial>,
    pub(super) deliveries: Vec<Handed>,
    pub(super) fate: Fate,
    /// The server lost data while it was there: what was promised of it holds no more.
    pub(super) is_shaken: bool,
}

/// One delivery.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) consumer: ConsumerId,
    pub(super) receipt: Receipt,
    pub(super) worker: u64,
    redelivered: bool,
    /// A SUCCESS that this very message had led to was stored when it was handed over again.
    pub(super) had_succeeded: bool,
    /// Its start was written down.
    pub(super) is_written: bool,
    pub(super) run: Run,
    pub(super) end: Option<How>,
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

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// In its queue, held back or held.
    Open,
    Acked,
    Dead(Reason),
    /// The server lost it.
    Vanished,
}

/// A delivery, as the model broker writes it on its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) serial: Serial,
    pub(super) consumer: ConsumerId,
    pub(super) receipt: Receipt,
}

/// Facts about a run that begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) acked_early: bool,
    /// A renewal that was asked for within the last lease has been answered.
    pub(super) is_fresh: bool,
    /// A lost connection ends deliveries before anybody can know.
    pub(super) may_be_cut: bool,
    /// A stored success is looked for.
    pub(super) deduplicates: bool,
    /// A copy of the process has taken its place, which it learns from its next call.
    pub(super) is_cloned: bool,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) accounts: BTreeMap<Serial, Account>,
    /// What must never happen, found while it happened.
    pub(super) violations: Vec<String>,
    /// Faults that were dealt out: crashes, cuts, lost answers.
    pub(super) faults: u64,
    /// Starts without an outcome, before a message is given up.
    pub(super) deliveries_max: u32,
    /// Every state that a task went through, for what is overwritten.
    pub(super) history: BTreeMap<TaskId, Vec<State>>,
    /// Messages whose own success is stored.
    successes: Vec<Serial>,
    /// Workers that died, stopped in a storm, or were told twice to stop in one.
    pub(super) gone: BTreeSet<u64>,
    /// Tasks of which a record was written in the name of a delivery that had been taken away with its connection: nothing
    /// tells such a record from a later one.
    pub(super) overtaken: BTreeSet<TaskId>,
    pub(super) lost_data: bool,
}

impl Ledger {
    pub(super) fn new(deliveries_max: u32) -> Self {
        Self {
            accounts: BTreeMap::new(),
            violations: Vec::new(),
            faults: 0,
            deliveries_max,
            history: BTreeMap::new(),
            successes: Vec::new(),
            overtaken: BTreeSet::new(),
            lost_data: false,
            gone: BTreeSet::new(),
        }
    }

    pub(super) fn violation(&mut self, text: String) {
        self.violations.push(text);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.accounts.values().all(|account| account.fate != Fate::Open)
    }

    /// Takes down one change of the store. `worker`: whose a consumer is.
    pub(super) fn note(&mut self, event: Event, store: &Store, worker: impl Fn(&ConsumerId) -> u64) {
        match event {
            Event::Accepted { serial, by } => self.accept(serial, by, store),
            Event::Taken { serial, consumer, receipt, redelivered } => {
                let had_succeeded = redelivered && self.successes.contains(&serial);
                let worker = worker(&consumer);
                let (is_written, run, end) = (false, Run::No, None);
                let handed =
                    Handed { consumer, receipt, worker, redelivered, had_succeeded, is_written, run, end };
                if let Some(account) = self.accounts.get_mut(&serial) {
                    account.deliveries.push(handed);
                }
            }
            Event::Renumbered { consumer, from, to } => {
                let handed = self.handed(consumer, from).filter(|handed| handed.end.is_none());
                handed.into_iter().for_each(|handed| handed.receipt = to);
            }
            Event::StartWritten { consumer, receipt } => {
                self.handed(consumer, receipt).into_iter().for_each(|handed| handed.is_written = true);
            }
            Event::Ended { serial, consumer, receipt, how } => self.end(serial, consumer, receipt, how),
            Event::Recorded { id, state, from } => self.recorded(id, state, from),
            Event::Broken(text) => self.violation(text),
        }
    }

    fn accept(&mut self, serial: Serial, by: Option<(ConsumerId, Option<Receipt>)>, store: &Store) {
        let Some(message) = store.message(serial) else { return };
        let fenced_by = by.and_then(|(consumer, receipt)| Some((consumer, receipt?)));
        let parent = fenced_by.and_then(|(consumer, receipt)| self.serial_of(consumer, receipt));
        let shaken_parent =
            parent.and_then(|parent| self.accounts.get(&parent)).is_some_and(|of| of.is_shaken);
        let is_unfenced = by.is_some() && fenced_by.is_none();
        let is_shaken = shaken_parent || (self.lost_data && is_unfenced);
        self.accounts.insert(serial, Account { parent, is_shaken, ..account(message) });
    }

    /// The message of a delivery that has ended.
    pub(super) fn serial_of(&self, consumer: ConsumerId, receipt: Receipt) -> Option<Serial> {
        let is_it = |handed: &Handed| handed.consumer == consumer && handed.receipt == receipt;
        let of =
            |(serial, account): (&Serial, &Account)| account.deliveries.iter().any(is_it).then_some(*serial);
        self.accounts.iter().find_map(of)
    }

    fn handed(&mut self, consumer: ConsumerId, receipt: Receipt) -> Option<&mut Handed> {
        let all = self.accounts.values_mut().flat_map(|account| &mut account.deliveries);
        all.into_iter().find(|handed| handed.consumer == consumer && handed.receipt == receipt)
    }

    fn end(&mut self, serial: Serial, consumer: ConsumerId, receipt: Receipt, how: How) {
        let Some(account) = self.accounts.get_mut(&serial) else { return };
        match &how {
            How::Acked => account.fate = Fate::Acked,
            How::Dead(reason) => account.fate = Fate::Dead(reason.clone()),
            _ => {}
        }
        let is_shaken = account.is_shaken;
        let handed = account.deliveries.iter_mut();
        let Some(handed) =
            handed.into_iter().find(|handed| handed.consumer == consumer && handed.receipt == receipt)
        else {
            return;
        };
        let run = handed.run;
        let fine = match how {
            How::Delayed => run == Run::No,
            How::Released => run == Run::No,
            How::Interrupted => run == Run::Ended(Ended::Killed),
            How::Requeued => run == Run::Ended(Ended::Returned),
            // What has begun is said to have.
            How::Closed(may_have_begun) => may_have_begun || run == Run::No,
            _ => true,
        };
        let text = format!("message {serial}: delivery {receipt:?} {how:?} although its run is {run:?}");
        handed.end = Some(how);
        if !fine && !is_shaken {
            self.violation(text);
        }
    }

    fn recorded(&mut self, id: TaskId, state: State, from: Option<String>) {
        let mark = from.as_deref().and_then(Mark::parse);
        if state == State::Success {
            self.successes.extend(mark.map(|mark| mark.serial));
        }
        let handed = mark.and_then(|mark| self.handed(mark.consumer, mark.receipt));
        match handed.and_then(|handed| handed.end.clone()) {
            Some(How::Cut) => drop(self.overtaken.insert(id.clone())),
            Some(How::Reaped) if state != State::Success && !self.lost_data => {
                self.violation(format!(
                    "{id}: {state:?} was recorded for a delivery that others had by then"
                ));
            }
            _ => {}
        }
        self.history.entry(id).or_default().push(state);
    }

    /// The run of a delivery begins. It must be ours, and nobody else's.
    pub(super) fn run_starts(&mut self, mark: Mark, start: Start) {
        let Mark { serial, consumer, receipt } = mark;
        let Some(account) = self.accounts.get_mut(&serial) else {
            if start.is_cloned {
                return;
            }
            return self.violation(format!("message {serial} runs and was never accepted"));
        };
        let is_it = |handed: &&mut Handed| handed.consumer == consumer && handed.receipt == receipt;
        let others = account.deliveries.iter().filter(|handed| {
            handed.end.is_none() && (handed.consumer, handed.receipt) != (consumer, receipt)
        });
        let elsewhere = others.map(|handed| handed.worker).next();
        let (is_shaken, is_acked) = (account.is_shaken, account.fate == Fate::Acked);
        let Some(handed) = account.deliveries.iter_mut().find(is_it) else {
            if !is_shaken && !start.is_cloned {
                self.violation(format!("message {serial}: {mark:?} runs and was never made"));
            }
            return;
        };
        let run = std::mem::replace(&mut handed.run, Run::Started);
        let (end, worker) = (handed.end.clone(), handed.worker);
        let excused = start.acked_early || start.is_cloned || (start.may_be_cut && end == Some(How::Cut));
        let is_over = end.is_some() && !excused;
        let unwritten = handed.redelivered && !handed.is_written && !start.acked_early;
        let repeated = handed.had_succeeded && start.deduplicates;
        let wrong = [
            (run != Run::No, "runs twice"),
            (repeated, "runs although its success is stored"),
            (is_over, "runs although its delivery has ended"),
            (elsewhere.is_some() && end.is_none(), "runs while another delivery of it is held"),
            (start.acked_early && !is_acked, "runs before its early ack"),
            (unwritten && end.is_none(), "may have begun before, and its start is not written down"),
            (!start.is_fresh && !start.acked_early, "starts without a fresh renewal"),
        ];
        if !is_shaken {
            for (_, what) in wrong.into_iter().filter(|(is_wrong, _)| *is_wrong) {
                self.violation(format!("message {serial} in worker {worker} {what} ({receipt:?}, {end:?})"));
            }
        }
    }

    /// What a worker ran goes with it.
    pub(super) fn worker_is_gone(&mut self, worker: u64) {
        let handed = self.accounts.values_mut().flat_map(|account| &mut account.deliveries);
        for handed in handed.filter(|handed| handed.worker == worker && handed.run == Run::Started) {
            handed.run = Run::Ended(Ended::Killed);
        }
    }

    pub(super) fn run_ends(&mut self, mark: Mark, ended: Ended) {
        let account = self.accounts.get_mut(&mark.serial);
        let is_it = |handed: &&mut Handed| handed.consumer == mark.consumer && handed.receipt == mark.receipt;
        let handed = account.and_then(|account| account.deliveries.iter_mut().find(is_it));
        handed.into_iter().for_each(|handed| handed.run = Run::Ended(ended));
    }

    /// The server has lost data; this is what it has now.
    pub(super) fn lose_data(&mut self, store: &Store) {
        self.lost_data = true;
        let open: Vec<_> = store.open().collect();
        for (serial, account) in &mut self.accounts {
            account.is_shaken = true;
            if open.contains(serial) {
                account.fate = Fate::Open;
            } else if account.fate == Fate::Open {
                account.fate = Fate::Vanished;
            }
        }
    }
}

impl Mark {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('/').map(|number| number.parse::<u64>().ok());
        let (serial, consumer, receipt) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(Self { serial, consumer: ConsumerId(consumer), receipt: Receipt(receipt) })
    }

    pub(super) fn text(self) -> String {
        format!("{}/{}/{}", self.serial, self.consumer.0, self.receipt.0)
    }
}

fn account(message: &Message) -> Account {
    let decoded = decode(message, &DecodeLimits::default()).ok();
    let headers = decoded.as_ref().map(|decoded| &decoded.headers);
    let leads_to = decoded.as_ref().and_then(|decoded| decoded.embed.chain.as_ref()).and_then(|chain| {
        let last = rwork_protocol::json::elements(chain).ok()?.pop()?;
        let step = rwork_protocol::Signature::parse(&last).ok()?;
        TaskId::new(rwork_protocol::json::text(step.option("task_id")?).ok()?).ok()
    });
    Account {
        id: headers.map(|headers| headers.id.clone()),
        task: headers.map_or_else(String::new, |headers| headers.task.as_str().to_owned()),
        retries: headers.map_or(0, |headers| headers.retries),
        nesting: headers.map_or(0, |headers| headers.replaced_task_nesting),
        leads_to,
        parent: None,
        deliveries: Vec::new(),
        fate: Fate::Open,
        is_shaken: false,
    }
}
