//! The account: what became of every message against what was promised, cell by cell.
//!
//! Nothing is lost: a message that was accepted ends with an outcome or as a dead letter with a reason; its follow-ups were
//! sent. Nothing is doubled: it starts once, and once more for every delivery that ended in a way that explains it; what it
//! leads to is sent once. Starts are counted, not deliveries. What the server has lost is another matter: it may happen
//! twice, and is not stuck.

use std::collections::BTreeMap;

use rwork_broker::Ownership;
use rwork_model::How;
use rwork_protocol::{State, TaskId};

use super::ledger::{Account, Fate, Handed, Run};
use super::tasks::{self, Expect};
use super::world;

/// Tasks of which no record can be stored, by their own wish or the backend's.
const UNTOLD: [&str; 2] = ["quiet", "never-stored"];

/// Every broken promise, in words.
pub(super) fn check(state: &world::State) -> Vec<String> {
    // What was seen to happen ended the run early.
    if !state.ledger.violations.is_empty() {
        return state.ledger.violations.clone();
    }
    let mut wrong = Vec::new();
    for (serial, account) in &state.ledger.accounts {
        let mut complain = |what: String| {
            let (task, id) = (&account.task, account.id.as_ref().map_or("?", TaskId::as_str));
            wrong.push(format!("message {serial} `{task}` {id}: {what}; {:?}", account.deliveries));
        };
        if account.fate == Fate::Open {
            complain("never ended".to_owned());
        }
        // What the server lost may happen twice, and its records are lost as well.
        if account.is_shaken || account.fate == Fate::Open {
            continue;
        }
        check_outcome(state, account, &mut complain);
        check_starts(state, account, &mut complain);
        check_counts(state, account, &mut complain);
        check_follow_ups(state, account, &mut complain);
    }
    check_doubles(state, &mut wrong);
    check_records(state, &mut wrong);
    wrong
}

fn status<'a>(state: &'a world::State, account: &Account) -> Option<&'a State> {
    let record = account.id.as_ref().and_then(|id| state.store.record(id));
    record.map(|record| &record.status)
}

/// Nothing is lost.
fn check_outcome(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let status = status(state, account);
    match &account.fate {
        Fate::Open | Fate::Vanished => {}
        Fate::Dead(reason) => {
            let expected = match tasks::expect(&account.task) {
                Some(Expect::DeadAndFailure(kind) | Expect::Dead(kind)) => {
                    kind == reason.kind || reason.kind == "invalid-header"
                }
                _ => false,
            };
            // Whether that is right is counted below.
            if !expected && reason.kind != "too-many-deliveries" {
                complain(format!("became a dead letter: {} ({})", reason.kind, reason.detail));
            }
            let is_overtaken = |id| state.ledger.overtaken.contains(id);
            if account.id.as_ref().is_some_and(|id| !is_overtaken(id))
                && !status.is_some_and(State::is_ready)
                && !UNTOLD.contains(&account.task.as_str())
            {
                complain(format!("is dead, and whoever waits for it sees {status:?}"));
            }
        }
        Fate::Acked => {
            check_early(state, account, complain);
            check_acked(state, account, status, complain);
        }
    }
}

/// Messages that are acked early are run, unless their worker went before they began. Nobody can tell whether an ack came
/// before the end of its connection: what may be acked is not run there, what is not goes back.
fn check_early(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let is_early = tasks::expect(&account.task) == Some(Expect::AtMostOnce)
        && state.column.ownership != Ownership::Connection;
    let never = |handed: &Handed| {
        let is_skipped = handed.had_succeeded || state.ledger.gone.contains(&handed.worker);
        handed.end == Some(How::Acked) && handed.run == Run::No && !is_skipped
    };
    if is_early && account.deliveries.iter().any(never) {
        complain("was acked early and never run".to_owned());
    }
}

fn check_acked(
    state: &world::State,
    account: &Account,
    status: Option<&State>,
    complain: &mut dyn FnMut(String),
) {
    let another = |test: &dyn Fn(&Account) -> bool| {
        let mut accounts = state.ledger.accounts.values();
        accounts.any(|other| !std::ptr::eq(other, account) && other.id == account.id && test(other))
    };
    let went_on = another(&|other| other.retries > account.retries || other.nesting > account.nesting);
    let ran = account.deliveries.iter().any(|handed| matches!(handed.run, Run::Ended(_)));
    let overtaken = |id: &TaskId| state.ledger.overtaken.contains(id);
    match tasks::expect(&account.task) {
        _ if went_on || account.id.as_ref().is_some_and(overtaken) => {}
        Some(Expect::AtMostOnce) => {}
        Some(Expect::Nothing) if !ran => complain("was acked and never ran".to_owned()),
        Some(Expect::Nothing) => {}
        Some(expected) if status == expected.state().as_ref() => {}
        expected => complain(format!("was acked: expected {expected:?}, found {status:?}")),
    }
}

/// A run doubles only when the one before ended in a way that the table allows.
fn check_starts(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let started = |handed: &&Handed| handed.run != Run::No;
    let starts = account.deliveries.iter().filter(started).count();
    let explains = |handed: &&Handed| match (&handed.end, state.column.ownership) {
        // By the task's own outcome, or by a worker that was told to stop.
        (Some(How::Requeued | How::Interrupted | How::Closed(true)), _) => true,
        (Some(How::Reaped), Ownership::Lease(_) | Ownership::Process) => true,
        (Some(How::Cut), Ownership::Connection) => true,
        _ => false,
    };
    let explained = account.deliveries.iter().filter(started).filter(explains).count();
    if starts > 1 + explained {
        complain(format!("started {starts} times, {explained} of them explained"));
    }
    let taken_away = |handed: &Handed| matches!(handed.end, Some(How::Reaped | How::Cut));
    if account.deliveries.iter().any(taken_away) && state.weather.is_dead_calm() && !is_deadly(state) {
        complain("lost its delivery in a calm world".to_owned());
    }
}

/// True if there is a task that kills its worker.
fn is_deadly(state: &world::State) -> bool {
    state.ledger.accounts.values().any(|account| account.task == "killer")
}

/// Starts are counted: a message is stopped after the cap and one more, and what never began counts for nothing.
fn check_counts(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let max = state.ledger.deliveries_max as usize;
    let given_back = |handed: &Handed| {
        matches!(handed.end, Some(How::Released | How::Interrupted | How::Closed(false) | How::Delayed))
    };
    let counts =
        |handed: &&Handed| (handed.is_written || handed.end == Some(How::Requeued)) && !given_back(handed);
    let counted = account.deliveries.iter().filter(counts).count();
    let began = |handed: &&Handed| handed.run != Run::No && !given_back(handed);
    let begun = account.deliveries.iter().filter(began).count();
    let is_over = matches!(&account.fate, Fate::Dead(reason) if reason.kind == "too-many-deliveries");
    if is_over && counted < max {
        complain(format!("was given up after {counted} counted starts, expected {max}"));
    }
    if begun > max + 1 || counted > max {
        complain(format!("started {begun} times, {counted} of them counted, expected at most {max} and one"));
    }
}

/// A success leads to the next step, whoever died.
fn check_follow_ups(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let Some(next) = &account.leads_to else { return };
    if account.fate != Fate::Acked || tasks::expect(&account.task) == Some(Expect::AtMostOnce) {
        return;
    }
    let sent = state.ledger.accounts.values().any(|other| other.id.as_ref() == Some(next));
    match status(state, account) {
        Some(State::Success) if !sent => {
            complain(format!("succeeded, and its next step {next} was never sent"))
        }
        Some(State::Failure) if state.store.record(next).is_none() => {
            complain(format!("failed, and whoever waits for {next} is not told"))
        }
        _ => {}
    }
}

/// A follow-up never doubles, save where a connection is lost between confirm and ack.
fn check_doubles(state: &world::State, wrong: &mut Vec<String>) {
    let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (serial, account) in &state.ledger.accounts {
        // One that was acked early, and abandoned before it began, is sent anew.
        if let Some(id) = account.id.as_ref().filter(|_| !never_began(account)) {
            let attempt = (id, &account.task, account.retries, account.nesting);
            sent.entry(attempt).or_default().push((serial, account));
        }
    }
    for ((id, task, ..), copies) in sent.iter().filter(|(_, copies)| copies.len() > 1) {
        let parents = copies.iter().filter_map(|(_, copy)| state.ledger.accounts.get(&copy.parent?));
        let parents: Vec<_> = parents.collect();
        let is_shaken =
            copies.iter().any(|(_, copy)| copy.is_shaken) || parents.iter().any(|of| of.is_shaken);
        // What a task sends while it runs is sent again by its next run.
        let sent_by_runs = id.as_str().ends_with("-child");
        let between = state.column.is_connection() && !state.weather.is_dead_calm();
        if !is_shaken && !sent_by_runs && !between {
            let serials: Vec<_> = copies.iter().map(|(serial, _)| **serial).collect();
            wrong.push(format!("`{task}` {id} is there {} times: messages {serials:?}", copies.len()));
        }
    }
}

/// True for what was acked and has not begun in any delivery.
fn never_began(account: &Account) -> bool {
    account.fate == Fate::Acked
        && account.deliveries.iter().all(|handed| handed.run == Run::No && !handed.had_succeeded)
}

/// No phantoms: a record is of a message, or of a step that a failure has kept from being sent; a success stays.
fn check_records(state: &world::State, wrong: &mut Vec<String>) {
    for (id, record) in state.store.records() {
        let sent = state.ledger.accounts.values().any(|account| account.id.as_ref() == Some(id));
        let step = id.as_str().contains("-step") && record.status == State::Failure;
        if !sent && !step {
            wrong.push(format!("a record of {id}, which was never sent: {record:?}"));
        }
        if let Some(component) = &record.component {
            let version = component.strip_prefix("sha256:").and_then(|version| version.parse().ok());
            if version.is_none_or(|version: u64| version > state.plugin_version) {
                wrong.push(format!("{id} was run by {component}, which never was"));
            }
        }
    }
    if state.ledger.lost_data {
        return;
    }
    let overwritten =
        |states: &&Vec<State>| states.iter().rev().skip(1).any(|state| *state == State::Success);
    for (id, states) in state.ledger.history.iter().filter(|(_, states)| overwritten(states)) {
        wrong.push(format!("a success of {id} was overwritten: {states:?}"));
    }
}
