//! Kills at any moment (issue 10, fault 17).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rwork_backend::ResultBackend;
use rwork_broker::{Batch, Broker, Room};
use rwork_protocol::{State, TaskId};

use crate::roles::{Role, SEND, consume, id, message, open, outcome};

const KILLS: usize = 12;

/// Notes what a child says until a kill.
fn kill_after(mut role: Role, count: usize, account: &mut Account) {
    role.lines.iter().take(count).for_each(|line| account.note(&line));
    role.child.kill().unwrap();
    role.child.wait().unwrap();
    // The last line may be cut off.
    let mut rest: Vec<_> = role.lines.iter().collect();
    let cut = rest.pop();
    rest.iter().for_each(|line| account.note(line));
    cut.iter().for_each(|line| account.note_cut(line));
    account.interrupted.append(&mut account.running);
}

/// Words of the children.
#[derive(Default)]
struct Account {
    accepted: BTreeSet<String>,
    runs: BTreeMap<String, usize>,
    running: BTreeSet<String>,
    /// Running when their worker was killed.
    interrupted: BTreeSet<String>,
}

impl Account {
    fn note(&mut self, line: &str) {
        let (what, ids) = line.split_once(' ').unwrap();
        for id in ids.split(' ').map(str::to_owned) {
            match what {
                "accepted" => {
                    self.accepted.insert(id);
                }
                "began" => {
                    *self.runs.entry(id.clone()).or_default() += 1;
                    self.running.insert(id);
                }
                "ended" => {
                    self.running.remove(&id);
                }
                other => panic!("unknown word {other}"),
            }
        }
    }

    /// A line that may lack its end. A whole id counts, but for `ended`, which it only might be.
    fn note_cut(&mut self, line: &str) {
        let Some((what @ ("accepted" | "began"), ids)) = line.split_once(' ') else { return };
        let whole: Vec<_> = ids.split(' ').filter(|id| id.len() == 36).collect();
        if !whole.is_empty() {
            self.note(&format!("{what} {}", whole.join(" ")));
        }
    }
}

pub(crate) async fn a_result_wakes_another_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let _worker = Role::start("worker", &path);
    for _ in 0..50 {
        let id = TaskId::generate();
        let mut watch = broker.watch(&id).await.unwrap();
        broker.publish_all(vec![message(&id)]).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().status, State::Success);
    }
}

pub(crate) async fn kills_lose_nothing_and_double_no_follow_up() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let mut account = Account::default();
    let mut producer = Role::start("producer", &path);
    for kill in 0..KILLS {
        // A different moment each time, in the midst of work.
        let lines = 5 + 7 * kill;
        let worker = Role::start("worker", &path);
        if kill % 3 == 2 {
            let old = std::mem::replace(&mut producer, Role::start("producer", &path));
            kill_after(old, lines, &mut account);
        }
        kill_after(worker, lines, &mut account);
    }
    kill_after(producer, 1, &mut account);
    check_integrity(&path);

    // The last worker gets what is left, also what the killed ones held, and is not killed before all is done.
    let broker = open(&path);
    let last = Role::start("worker", &path);
    let accepted: Vec<_> = account.accepted.iter().map(|id| TaskId::new(id).unwrap()).collect();
    assert!(accepted.len() > KILLS * SEND, "only {} were accepted", accepted.len());
    loop {
        let infos = broker.queues().await.unwrap();
        if infos.iter().all(|info| info.name.as_str() != "q" || info.ready + info.unsettled == 0) {
            break;
        }
        account.note(&last.line());
    }
    let results = broker.get(&accepted).await.unwrap();
    let missing = results.iter().filter(|result| result.is_none()).count();
    assert_eq!(missing, 0, "of {} accepted tasks have no result", accepted.len());
    let twice: Vec<_> = account.runs.iter().filter(|(_, runs)| **runs > 1).map(|(id, _)| id).collect();
    let unexplained: Vec<_> = twice.iter().filter(|id| !account.interrupted.contains(**id)).collect();
    assert!(unexplained.is_empty(), "ran twice without a kill: {unexplained:?}");
    println!(
        "  {} accepted, {KILLS} kills, {} interrupted, {} of them ran again",
        accepted.len(),
        account.interrupted.len(),
        twice.len()
    );
    drop((last, broker));
    check_integrity(&path);
    check_follow_ups(&path);
}

/// Each message that ended has one follow-up, whatever was killed.
fn check_follow_ups(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let follow_ups = count("SELECT count(*) FROM msg WHERE queue = 'next'");
    let distinct = count("SELECT count(DISTINCT correlation_id) FROM msg WHERE queue = 'next'");
    assert_eq!((follow_ups, distinct), (distinct, count("SELECT count(*) FROM result")));
}

fn check_integrity(path: &Path) {
    let db = rusqlite::Connection::open(path).unwrap();
    let check: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

pub(crate) async fn a_dead_consumer_is_found_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rwork.db");
    let broker = open(&path);
    let task = TaskId::generate();
    let mut doomed = Role::start("holder", &path);
    broker.publish_all(vec![message(&task)]).await.unwrap();
    assert_eq!(doomed.line(), format!("began {task}"));
    let survivor = consume(&broker).await;
    doomed.child.kill().unwrap();
    doomed.child.wait().unwrap();
    let killed = Instant::now();
    let delivery = survivor.receive(Room { messages: 1, bytes: 1 }).await.unwrap().remove(0);
    // A look each second, and the machine may be busy.
    assert!(killed.elapsed() < Duration::from_secs(10), "{:?}", killed.elapsed());
    assert_eq!((id(&delivery), delivery.redelivered, delivery.delivery_count), (task, true, 1));
    survivor.commit(&Batch { number: 1, commits: vec![outcome(delivery)] }).await.unwrap();
    survivor.close(&[]).await.unwrap();
    let left = std::fs::read_dir(folder.path().join("rwork.db-consumers")).unwrap().count();
    assert_eq!(left, 0, "lock files of the dead are left");
}
