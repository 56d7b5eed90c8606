//! How much each queue's consumers may be sent, so that all of them together never are sent more than was agreed on.
//!
//! The server keeps to the credit of a consumer, which can't be changed while it lasts: more of it is one consumer more,
//! and less of it one less. What an ended consumer was sent stays ours, and keeps its place until it is settled.

use super::lane::Need;

/// A queue grows by this part of its credit at least where there is room, so that little is not asked often.
const STEP: usize = 8;
/// With so many consumers of one queue, it grows by that part at least or not yet: each of them is looked at for each
/// batch.
const CONSUMERS: usize = 32;

/// What the server may have sent of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// What the consumers that last may be sent.
    pub(crate) credit: usize,
    /// The same, and what was sent to those that don't and is not settled.
    pub(crate) used: usize,
    /// What was sent and is not settled.
    pub(crate) held: usize,
    /// The same without what nobody has taken yet.
    pub(crate) unsettled: usize,
    /// The server may send nothing more, and what it sent is here.
    pub(crate) is_hungry: bool,
    pub(crate) consumers: usize,
}

/// What all queues may be sent together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) limit: usize,
    /// What is held of it elsewhere, in shelters and on the way to them.
    pub(super) elsewhere: usize,
    /// Credit may be taken from one for another.
    pub(super) may_shed: bool,
}

/// What to do next so that `max` more may come, and of which queue; those that wait get theirs first.
pub(super) fn next(accounts: &[Account], budget: Budget, max: usize) -> Option<(usize, Need)> {
    let fair = (budget.limit / accounts.len().max(1)).max(1);
    let mut order: Vec<(usize, &Account)> = accounts.iter().enumerate().collect();
    order.sort_by_key(|(_, account)| (!account.is_hungry, account.credit));
    let hungry = accounts.iter().filter(|account| account.is_hungry).count();
    for (place, account) in order {
        let rest = rest(accounts, budget, place);
        let missing = (account.unsettled + max).saturating_sub(account.used);
        let missing = missing.max(usize::from(account.credit == 0));
        if missing == 0 {
            continue;
        }
        // Beyond its part goes who needs it alone.
        let is_alone = account.is_hungry && hungry == 1;
        let part = fair.saturating_sub(account.used).max(usize::from(account.credit == 0));
        let most = if is_alone { rest } else { part.min(rest) };
        let step = account.credit / STEP;
        let count = missing.max(step).min(most);
        if count > 0 && (account.consumers < CONSUMERS || count >= step) {
            return Some((place, Need::Credit(u16::try_from(count).unwrap_or(u16::MAX))));
        }
        if account.is_hungry && rest == 0 && budget.may_shed {
            let shed = spare(accounts, place, fair);
            if shed.is_some() {
                return shed;
            }
        }
    }
    None
}

/// What one queue could have more, each other one being left a place at least.
pub(super) fn rest(accounts: &[Account], budget: Budget, place: usize) -> usize {
    let used: usize = accounts.iter().map(|account| account.used).sum();
    let kept = accounts.iter().enumerate().filter(|(other, account)| *other != place && account.credit == 0);
    budget.limit.saturating_sub(used + budget.elsewhere + kept.count())
}

/// Who has what this one needs: a queue of which there is nothing, or one that has more than its part while this one has
/// less.
fn spare(accounts: &[Account], needy: usize, fair: usize) -> Option<(usize, Need)> {
    let has_less = accounts.get(needy).is_some_and(|account| account.used < fair);
    let others = || accounts.iter().enumerate().filter(|(place, _)| *place != needy);
    let idle = others().find(|(_, account)| account.held == 0 && account.credit > 1);
    if let Some((place, _)) = idle {
        return Some((place, Need::Less(0)));
    }
    let rich = others().filter(|(_, account)| has_less && account.credit > fair);
    rich.max_by_key(|(_, account)| account.credit).map(|(place, _)| (place, Need::Less(fair)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(credit: usize, held: usize) -> Account {
        Account {
            credit,
            used: credit,
            held,
            unsettled: held,
            is_hungry: held > 0 && held >= credit,
            consumers: 1,
        }
    }

    /// Ended consumers were sent so many of what is held.
    fn with_ended(credit: usize, held: usize, ended: usize) -> Account {
        Account { used: credit + ended, is_hungry: held - ended >= credit, ..of(credit, held) }
    }

    fn check(accounts: &[Account], limit: usize, max: usize, expect: Option<(usize, Need)>) {
        let budget = Budget { limit, elsewhere: 0, may_shed: true };
        assert_eq!(next(accounts, budget, max), expect, "{accounts:?} of {limit}");
    }

    #[test]
    fn one_queue_gets_what_is_asked_for_and_no_more_than_there_is() {
        check(&[of(0, 0)], 10, 8, Some((0, Need::Credit(8))));
        check(&[of(8, 8)], 10, 8, Some((0, Need::Credit(2))));
        check(&[of(8, 8)], 10, 1, Some((0, Need::Credit(1))));
        check(&[of(10, 10)], 10, 8, None);
        check(&[of(8, 2)], 100, 6, None);
        check(&[of(800, 800)], 1000, 1, Some((0, Need::Credit(100))));
    }

    #[test]
    fn what_ended_consumers_were_sent_keeps_its_place() {
        check(&[with_ended(0, 10, 10)], 10, 8, None);
        check(&[with_ended(0, 7, 7)], 10, 8, Some((0, Need::Credit(3))));
        let budget = Budget { limit: 10, elsewhere: 4, may_shed: true };
        assert_eq!(next(&[of(6, 6)], budget, 8), None, "what is in the shelter counts");
    }

    #[test]
    fn queues_begin_with_equal_parts() {
        check(&[of(0, 0), of(0, 0)], 10, 8, Some((0, Need::Credit(5))));
        check(&[of(5, 0), of(0, 0)], 10, 8, Some((1, Need::Credit(5))));
        check(&[of(5, 0), of(5, 0)], 10, 8, None);
        check(&[of(0, 0), of(0, 0), of(0, 0)], 3, 8, Some((0, Need::Credit(1))));
    }

    #[test]
    fn who_has_nothing_to_do_leaves_it_to_others() {
        check(&[of(5, 0), of(5, 5)], 10, 8, Some((0, Need::Less(0))));
        check(&[of(0, 0), of(5, 5)], 10, 8, Some((1, Need::Credit(4))));
        check(&[of(0, 0), of(9, 9)], 10, 8, Some((0, Need::Credit(1))));
        check(&[of(1, 0), of(5, 5)], 10, 8, Some((1, Need::Credit(4))));
        check(&[of(1, 0), of(9, 9)], 10, 8, None);
        let budget = Budget { limit: 10, elsewhere: 0, may_shed: false };
        assert_eq!(next(&[of(5, 0), of(5, 5)], budget, 8), None, "not so soon after the last time");
    }

    #[test]
    fn who_comes_back_gets_its_part() {
        check(&[of(1, 1), of(9, 9)], 10, 8, Some((1, Need::Less(5))));
        check(&[of(1, 1), with_ended(5, 9, 4)], 10, 8, None);
        check(&[of(1, 1), with_ended(5, 6, 1)], 10, 8, Some((0, Need::Credit(3))));
        check(&[of(5, 5), of(5, 5)], 10, 8, None);
    }

    #[test]
    fn many_consumers_of_one_queue_do_not_become_many_more() {
        let many = |held| Account { consumers: CONSUMERS, ..of(80, held) };
        check(&[many(80)], 85, 8, None);
        check(&[many(80)], 90, 8, Some((0, Need::Credit(10))));
    }
}
