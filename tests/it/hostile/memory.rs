//! Guests that take more memory than they may.

use rwork_tests::rig::Setup;
use rwork_tests::rig::component::TextGuest;
use rwork_worker::Summary;

use super::{Ended, let_loose, text, unlimited};

const CAP: u64 = 32 << 20;

/// 60 % of the cap, in pages of 64 KiB.
const MOST_OF_IT: u64 = CAP / (64 << 10) * 6 / 10;

fn capped(setup: Setup) -> Setup {
    setup.task("*", r#"{"memory": "32MiB"}"#)
}

async fn run_out(setup: Setup, task: &str) -> Ended {
    let_loose(capped(setup), task, "[]", unlimited(), |summary: &mut Summary| summary.memory_limit += 1).await
}

/// The total that was refused, from the message, which says the cap too.
#[track_caller]
fn wanted(ended: &Ended) -> u64 {
    let exception = ended.exception();
    let kind = (exception.exc_module.as_str(), exception.exc_type.as_str());
    assert_eq!(kind, ("rwork.errors", "MemoryLimitExceeded"));
    let args: Vec<String> = serde_json::from_slice(&exception.exc_message).unwrap();
    let [message] = args.as_slice() else { panic!("{args:?}") };
    let wanted = message.strip_prefix(&format!("memory limit of {CAP} bytes exceeded: ")).unwrap();
    let wanted = wanted.strip_suffix(" bytes were asked for").unwrap().parse().unwrap();
    assert!(wanted > CAP, "{message}");
    wanted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_bomb_ends_at_the_cap() {
    let ended = run_out(Setup::new(&["math", "hostile"]), "hostile.hoard").await;
    // It grows by a MiB and the allocator's own words at a time.
    assert!(wanted(&ended) <= CAP + (2 << 20), "{}", wanted(&ended));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_may_live_with_refused_memory() {
    let setup = capped(Setup::new(&["math", "hostile"]));
    let ended = let_loose(setup, "hostile.frugal", "[]", unlimited(), |summary| summary.succeeded += 1).await;
    // Pieces of 1 MiB: all that fit beside what it was born with and the allocator's words.
    let pieces: u64 = text(&ended.record.result).parse().unwrap();
    assert!((28..32).contains(&pieces), "{pieces}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_memories_that_fit_alone_do_not_fit_together() {
    let alone = |memory: &str| grow(&[memory]);
    for (name, guest) in [("main", alone("$main")), ("second", alone("$second"))] {
        let setup = capped(Setup::new(&["math"])).file("pair.wasm", guest.build());
        let ended = let_loose(setup, "pair.run", "[]", unlimited(), |summary| summary.succeeded += 1).await;
        assert_eq!(text(&ended.record.result), "null", "{name}");
    }
    let both = grow(&["$main", "$second"]);
    let ended = run_out(Setup::new(&["math"]).file("pair.wasm", both.build()), "pair.run").await;
    // What the second one asked for when the first had its part: both, and the pages that both were born with.
    assert_eq!(wanted(&ended), (2 * MOST_OF_IT + 3) * (64 << 10));
}

/// Has two memories, and grows these; aborts when one is not granted.
fn grow(memories: &[&str]) -> TextGuest {
    let grow = |memory: &&str| {
        format!(
            "(if (i32.eq (memory.grow {memory} (i32.const {MOST_OF_IT})) (i32.const -1)) (then unreachable))"
        )
    };
    let body: String = memories.iter().map(grow).collect();
    TextGuest::new("pair.run").items("(memory $second 1)").run(&format!("{body} (call $null)"))
}
