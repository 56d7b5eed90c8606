//! The account: what became of every message against what was promised.
//!
//! P1: a message that was accepted ends with an outcome or as a dead letter with a reason; its follow-ups were sent.
//! P2: it runs once, and once more for every delivery that ended in a way that explains it.

use rwork_protocol::{State, TaskId};

use super::ledger::{Account, End, Fate, Run};
use super::tasks::{self, Expect};
use super::world;

/// Tasks of which no record can be stored, by their own wish or the backend's.
const UNTOLD: [&str; 2] = ["quiet", "never-stored"];

/// Every broken promise, in words.
pub(super) fn check(state: &world::State) -> Vec<String> {
    let mut wrong = state.ledger.violations.clone();
    for (serial, account) in &state.ledger.accounts {
        let mut complain = |what: String| {
            let (task, id) = (&account.task, account.id.as_ref().map_or("?", TaskId::as_str));
            wrong.push(format!("message {serial} `{task}` {id}: {what}; {:?}", account.deliveries));
        };
        check_outcome(state, account, &mut complain);
        check_runs(state, account, &mut complain);
        check_follow_ups(state, account, &mut complain);
    }
    check_records(state, &mut wrong);
    wrong
}

/// P1: nothing is lost.
fn check_outcome(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let record = account.id.as_ref().and_then(|id| state.records.by_id.get(id));
    let status = record.map(|record| &record.status);
    match &account.fate {
        Fate::Open => complain("never ended".to_owned()),
        Fate::Dead(reason) => {
            let last = account.deliveries.len();
            let too_often = reason.kind == "too-many-deliveries" && last > 5;
            let expected = match tasks::expect(&account.task) {
                Some(Expect::DeadAndFailure(kind) | Expect::Dead(kind)) => {
                    kind == reason.kind || reason.kind == "invalid-header"
                }
                _ => false,
            };
            if !too_often && !expected {
                complain(format!("became a dead letter: {} ({})", reason.kind, reason.detail));
            }
            if account.id.is_some()
                && !status.is_some_and(State::is_ready)
                && !UNTOLD.contains(&account.task.as_str())
            {
                complain(format!("is dead, and whoever waits for it sees {status:?}"));
            }
        }
        Fate::Acked => check_acked(state, account, status, complain),
    }
}

fn check_acked(
    state: &world::State,
    account: &Account,
    status: Option<&State>,
    complain: &mut dyn FnMut(String),
) {
    let succeeded_by = |test: &dyn Fn(&Account) -> bool| {
        state
            .ledger
            .accounts
            .values()
            .any(|other| !std::ptr::eq(other, account) && other.id == account.id && test(other))
    };
    let went_on = succeeded_by(&|other| other.retries > account.retries || other.nesting > account.nesting);
    let ran = account.deliveries.iter().any(|handed| matches!(handed.run, Run::Ended(_)));
    // Holding a message back is one step, so that no crash makes two of it.
    if account.task == "later" && succeeded_by(&|_| true) {
        complain("is there twice".to_owned());
    }
    match tasks::expect(&account.task) {
        _ if went_on => {}
        Some(Expect::AtMostOnce) => {}
        Some(Expect::Nothing) if !ran => complain("was acked and never ran".to_owned()),
        Some(Expect::Nothing) => {}
        Some(expected) if status == expected.state().as_ref() => {}
        // Another copy of the same attempt may have been given up meanwhile.
        Some(_)
            if status.is_some_and(State::is_ready)
                && succeeded_by(&|other| matches!(other.fate, Fate::Dead(_))) => {}
        expected => complain(format!("was acked: expected {expected:?}, found {status:?}")),
    }
}

/// P2: every run but the first is explained by how the delivery before it ended.
fn check_runs(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let runs = account.deliveries.iter().filter(|handed| handed.run != Run::No).count();
    let explained = account.deliveries.iter().filter(|handed| {
        let by_wish = matches!(handed.end, Some(End::Requeued | End::Released | End::Closed));
        let by_fault = matches!(handed.end, Some(End::Crashed | End::Cut | End::LeaseLost));
        handed.run != Run::No && (by_wish || by_fault)
    });
    let explained = explained.count();
    if runs > 1 + explained {
        complain(format!("ran {runs} times, {explained} of them explained"));
    }
    if account.deliveries.iter().any(|handed| handed.end == Some(End::LeaseForgotten))
        && runs <= 1 + explained
    {
        complain("was held under a lease that nobody renewed".to_owned());
    }
    let by_fault = account
        .deliveries
        .iter()
        .any(|handed| matches!(handed.end, Some(End::Crashed | End::Cut | End::LeaseLost)));
    if by_fault && state.weather.is_calm() && state.weather.crash + state.weather.unrest_seconds as u32 == 0 {
        complain("lost its delivery in a calm world".to_owned());
    }
}

/// P1 for what follows: a success leads to the next step, whoever died.
fn check_follow_ups(state: &world::State, account: &Account, complain: &mut dyn FnMut(String)) {
    let Some(next) = &account.leads_to else { return };
    let status = account.id.as_ref().and_then(|id| state.records.by_id.get(id)).map(|record| &record.status);
    if account.fate != Fate::Acked {
        return;
    }
    let sent = state.ledger.accounts.values().any(|other| other.id.as_ref() == Some(next));
    let told = state.records.by_id.contains_key(next);
    match status {
        Some(State::Success) if !sent => {
            complain(format!("succeeded, and its next step {next} was never sent"))
        }
        Some(State::Failure) if !told => {
            complain(format!("failed, and whoever waits for {next} is not told"))
        }
        _ => {}
    }
}

/// No phantoms: a record is of a message, or of a step that a failure has kept from being sent; a success stays.
fn check_records(state: &world::State, wrong: &mut Vec<String>) {
    for (id, record) in &state.records.by_id {
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
    let history = &state.records.history;
    for (id, states) in
        history.iter().filter(|(_, states)| states.iter().rev().skip(1).any(|state| *state == State::Success))
    {
        wrong.push(format!("a success of {id} was overwritten: {states:?}"));
    }
}
