//! The seeds, and the tests of the test.

use std::io::Write as _;
use std::thread;

use super::{Mistake, SEEDS, Verdict, simulate};

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("RWORK_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RWORK_SIM_SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs every seed, over all cores; the first verdict that `stop` likes ends it.
fn all(mistake: Option<Mistake>, stop: fn(&Verdict) -> bool) -> Vec<(u64, Verdict)> {
    let seeds = seeds();
    let threads = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let shares: Vec<_> = (0..threads)
        .map(|share| {
            let seeds = seeds.clone();
            thread::spawn(move || {
                let mut verdicts = Vec::new();
                for seed in seeds.filter(|seed| seed % threads == share) {
                    let verdict = simulate(seed, mistake, false);
                    let enough = stop(&verdict);
                    verdicts.push((seed, verdict));
                    if enough {
                        break;
                    }
                }
                verdicts
            })
        })
        .collect();
    shares.into_iter().flat_map(|share| share.join().unwrap()).collect()
}

#[test]
fn simulation_keeps_both_promises() {
    let verdicts = all(None, |verdict| !verdict.wrong.is_empty());
    if let Some((seed, verdict)) = verdicts.iter().find(|(_, verdict)| !verdict.wrong.is_empty()) {
        let story = simulate(*seed, None, true);
        panic!(
            "seed {seed} breaks a promise:\n{}\n\n{}\n\nagain: RWORK_SIM_SEED={seed} cargo test -p rwork-worker simulation",
            story.trace.join("\n"),
            verdict.wrong.join("\n"),
        );
    }
    let sum = |of: fn(&Verdict) -> u64| verdicts.iter().map(|(_, verdict)| of(verdict)).sum::<u64>();
    let (messages, runs) = (sum(|verdict| verdict.messages as u64), sum(|verdict| verdict.runs as u64));
    let faults = sum(|verdict| verdict.faults);
    let told = format!(
        "{} seeds, {messages} messages, {runs} runs, {faults} crashes, cuts and lost answers",
        verdicts.len()
    );
    // Shown with `--nocapture`.
    writeln!(std::io::stderr(), "{told}").unwrap();
    // A world without trouble would show nothing.
    assert!(verdicts.len() == 1 || faults > verdicts.len() as u64, "{faults} faults");
    assert!(verdicts.len() == 1 || runs > messages / 2, "{runs} runs of {messages} messages");
}

#[test]
fn simulation_is_the_same_for_the_same_seed() {
    for seed in seeds().take(5) {
        assert_eq!(simulate(seed, None, true).trace, simulate(seed, None, true).trace, "seed {seed}");
    }
}

/// The complaint that the account makes, within the same seeds, when the worker makes a mistake.
fn complaint(mistake: Mistake, about: &str) -> Option<String> {
    let verdicts = all(Some(mistake), |verdict| !verdict.wrong.is_empty());
    let wrong = verdicts.into_iter().flat_map(|(_, verdict)| verdict.wrong);
    wrong.into_iter().find(|complaint| complaint.contains(about))
}

#[test]
fn simulation_catches_an_ack_before_the_result_is_stored() {
    complaint(Mistake::AckBeforeStore, "was acked: expected").expect("a lost result");
}

#[test]
fn simulation_catches_a_lease_that_is_not_renewed() {
    complaint(Mistake::NoRenewal, "nothing kept it from renewing").expect("an unexplained death");
}

#[test]
fn simulation_catches_a_start_without_a_fresh_renewal() {
    complaint(Mistake::StaleStart, "without a fresh renewal").expect("a start of what others may have");
}

#[test]
fn simulation_catches_a_start_that_is_not_written_down() {
    complaint(Mistake::UnwrittenStart, "its start is not written down").expect("an uncounted start");
}

#[test]
fn simulation_catches_a_follow_up_outside_the_commit() {
    complaint(Mistake::PublishOutside, "is there 2 times").expect("a doubled follow-up");
}

#[test]
fn simulation_catches_a_count_of_what_never_started() {
    complaint(Mistake::CountUnstarted, "Requeued although its run is No").expect("a counted delivery");
}

#[test]
fn simulation_catches_a_batch_that_is_repeated_by_another_number() {
    complaint(Mistake::NewNumber, "is there 2 times").expect("a doubled follow-up");
}
