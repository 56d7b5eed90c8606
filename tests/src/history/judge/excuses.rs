//! Reasons why a task may have begun twice, or ended otherwise than it should have.

use rwork_protocol::{State, Timestamp};

use super::Fault;
use crate::history::{Decision, History, Line, Receipt, Word};

/// How long a result may be stored, in milliseconds, before its message must be acknowledged, where these are two steps:
/// many times what it takes on a busy machine, and short beside a lease.
pub(super) const ACK_MS: i64 = 3_000;

/// What Celery's worker makes of a task when its own connection is lost while it stores the result.
const CONNECTION_ERRORS: [&str; 7] = [
    "ConnectionError",
    "TimeoutError",
    "OperationalError",
    "ResponseError",
    "ReadOnlyError",
    "BusyLoadingError",
    "OutOfMemoryError",
];

/// Explains the second of two starts: a kill cut the first one short, or an excuse holds. Else says why not.
pub(super) fn explain(history: &History, first: &Line, second: &Line) -> Result<(), String> {
    if history.excuses_outages(&first.node) && history.was_away(first.at, second.at)
        || history.lost_its_line(&first.node, first.at, second.at)
    {
        return Ok(());
    }
    if history.stood_still(&first.node, first.at, second.at)
        || history.was_about_to_start(first, second)
        || history.was_doubled_by_celery(second)
    {
        return Ok(());
    }
    let kill = history
        .kill(&first.node)
        .ok_or_else(|| format!("`{}`, which ran it first, was not killed", first.node))?;
    if kill.at.as_millis() < first.at.as_millis() {
        return Err(format!("`{}` ran it after it was killed", first.node));
    }
    if second.at.as_millis() < kill.at.as_millis() {
        return Err(format!("`{}` ran it while `{}` still lived", second.node, first.node));
    }
    Ok(())
}

impl History {
    pub(super) fn ended(&self, number: u64, node: &str) -> bool {
        self.lines.iter().any(|line| line.word == Word::End && line.number == number && line.node == node)
    }

    /// True if the server was away at some time between these two.
    fn was_away(&self, from: Timestamp, to: Timestamp) -> bool {
        self.beside.iter().flat_map(|beside| &beside.outages).any(|outage| outage.meets(from, to))
    }

    /// True if a worker lost its connection between these two. It knows that a little later than the server, which gives
    /// what was held to others at once.
    fn lost_its_line(&self, node: &str, from: Timestamp, to: Timestamp) -> bool {
        let within = from.as_millis()..=to.as_millis() + ACK_MS;
        self.losses.iter().any(|loss| loss.node == node && within.contains(&loss.at.as_millis()))
    }

    /// True if a kill came between the stored result of the first start and its ack, hence the second one. Never
    /// where a result and its ack are one step.
    pub(super) fn was_unacked(&self, stored: Timestamp, first: &Line, second: &Line) -> bool {
        if self.beside.is_none() {
            return false;
        }
        let until = Timestamp::from_millis((stored.as_millis() + ACK_MS).min(second.at.as_millis()));
        let within = stored.as_millis()..=until.as_millis();
        self.kill(&first.node).is_some_and(|kill| within.contains(&kill.at.as_millis()))
            || (self.excuses_outages(&first.node) && self.was_away(stored, until))
            // A server that is starved of memory reads no acks until it is fed.
            || self.lost_its_line(&first.node, stored, second.at)
            // It stored a SUCCESS, which is final, when another one had the message already.
            || self.stood_still(&first.node, first.at, second.at)
            || self.was_about_to_start(first, second)
    }

    /// True if one of the two decided to start it before it was stopped, and began when it went on: the other got
    /// the message meanwhile.
    fn was_about_to_start(&self, first: &Line, second: &Line) -> bool {
        self.was_stopped_in_between(first) || self.was_stopped_in_between(second)
    }

    /// True if a worker was stopped between its last decision to start a task and the task's own first line. The worker
    /// calls a retry by the id of the attempt before.
    fn was_stopped_in_between(&self, start: &Line) -> bool {
        let before = self.follows.get(&start.number);
        let is_its_own = |decision: &&Decision| {
            (decision.number == start.number || before == Some(&decision.number))
                && decision.node == start.node
                && decision.at.as_millis() <= start.at.as_millis()
        };
        let decided = self.decisions.iter().filter(is_its_own).map(|decision| decision.at).max();
        decided.is_some_and(|decided| self.stood_still(&start.node, decided, start.at))
    }

    /// True if the server's absence may make this worker's tasks run again.
    fn excuses_outages(&self, node: &str) -> bool {
        self.is_celery(node) || self.beside.as_ref().is_some_and(|beside| beside.held_by_connections)
    }

    /// True if it follows, at whatever distance, what a worker of Celery's ran and may have published twice: the server
    /// went away meanwhile, or what it follows was run once more, which is judged by itself. Celery publishes before it
    /// acknowledges.
    pub(super) fn was_doubled_by_celery(&self, second: &Line) -> bool {
        self.line_of(second.number).skip(1).any(|before| {
            let starts =
                || self.lines.iter().filter(|line| line.word == Word::Start && line.number == before);
            let again = |line: &Line| starts().any(|again| line.at < again.at && again.at <= second.at);
            starts()
                .any(|line| self.is_celery(&line.node) && (self.was_away(line.at, second.at) || again(line)))
        })
    }

    /// A second start of this number, as a fault.
    pub(super) fn twice(&self, number: u64, why: String) -> Fault {
        if self.follows.contains_key(&number) {
            Fault::Doubled(number, why)
        } else {
            Fault::RanTwice(number, why)
        }
    }

    /// True if somebody may have sent it.
    pub(super) fn is_known(&self, number: u64) -> bool {
        self.accepted.contains_key(&number)
            || self.unsure.contains(&number)
            || self.follows.contains_key(&number)
    }

    /// The number and those that it follows, nearest first.
    pub(super) fn line_of(&self, number: u64) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(number), |number| self.follows.get(number).copied())
    }

    /// True if a Celery worker made it a failure because its own connection was lost, or one before it in its chain.
    pub(super) fn is_celerys_own(&self, number: u64) -> bool {
        self.line_of(number).any(|number| self.failed_in_celery(number))
    }

    fn failed_in_celery(&self, number: u64) -> bool {
        let mut starts = self.lines.iter().filter(|line| line.word == Word::Start && line.number == number);
        let Some(record) = self.records.get(&number).filter(|record| record.status == State::Failure) else {
            return false;
        };
        let error: serde_json::Value = serde_json::from_slice(&record.result).unwrap_or_default();
        let class = error.get("exc_type").and_then(|class| class.as_str()).unwrap_or_default();
        CONNECTION_ERRORS.contains(&class)
            && starts.next_back().is_some_and(|last| self.is_celery(&last.node))
    }

    /// True if kombu has lost it, as proved, or one before it in its chain.
    pub(super) fn is_dropped_by_kombu(&self, number: u64) -> bool {
        let Some(beside) = &self.beside else { return false };
        self.line_of(number).any(|number| beside.dropped_by_kombu.contains(&number))
    }

    /// What Celery's workers were handed, as far as it began: they run one message at a time.
    pub(super) fn receipts_of_celery(&self) -> impl Iterator<Item = Receipt> {
        let starts = self.lines.iter().filter(|line| line.word == Word::Start && self.is_celery(&line.node));
        starts.map(|line| Receipt {
            number: line.number,
            node: line.node.clone(),
            at: line.at,
            deliveries: 0,
        })
    }

    /// When the stored result was made. A success is never overwritten, so that one older than the last start says that
    /// the task need not have been run again.
    pub(super) fn stored(&self, number: u64) -> Option<Timestamp> {
        self.records.get(&number)?.date_done
    }
}
