//! Nothing lost and nothing twice on the embedded broker: two workers, of which one is killed or stands still, or all find
//! the database locked by somebody else, every two seconds.

use std::sync::Arc;
use std::time::Instant;

use rwork_embedded::{Embedded, Options};
use rwork_tests::history::{History, Producer, judge};
use rwork_tests::journal::Journal;
use rwork_tests::process::{client, say, seed, unless_it_hangs};
use rwork_tests::python::Version;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::crew::{Crew, Ground, Kind};
use super::faults::{Counts, Happening, Scale, Schedule, produce_mix};

/// A file has no connections to be cut, and no server to be restarted.
const HAPPENINGS: [Happening; 3] = [Happening::Kill, Happening::Stop, Happening::Pause];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_faults_on_embedded_lose_and_double_nothing() -> anyhow::Result<()> {
    let journal = Journal::default();
    let seed = seed()?;
    let scale = Scale::wanted();
    say(format_args!("chaos of faults on embedded: {} tasks, RWORK_SEED={seed}", scale.tasks));
    unless_it_hangs(&journal, run(scale, seed, &journal)).await
}

async fn run(scale: Scale, seed: u64, journal: &Journal) -> anyhow::Result<()> {
    let began = Instant::now();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("rwork.db");
    let url = format!("embedded:{}", path.display());
    let database = Embedded::open(Options { path: path.clone(), ..Options::default() })?;
    let ground = Arc::new(Ground::new(journal, url.clone(), url, "", json!({}))?);
    let mut crew = Crew::of(&[Kind::Rwork, Kind::Rwork], Arc::clone(&ground)).await?;
    let (up, is_up) = watch::channel(true);
    let mut producing = tokio::spawn(produce_mix(
        Producer::new(client(&database))?,
        Arc::new(database.clone()),
        scale,
        is_up,
    ));
    let mut schedule = Schedule::new(&HAPPENINGS, seed);
    let mut pace = interval(scale.every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Another program that knows SQLite and takes its time.
    let other = Version::Current.client().lane();
    let mut produced = None;
    // On a busy machine all this takes longer than it should: everything happens once all the same.
    while produced.is_none() || schedule.rounds == 0 {
        tokio::select! {
            producer = &mut producing, if produced.is_none() => produced = Some(producer??),
            _ = pace.tick() => match schedule.next() {
                Happening::Stop => crew.stop_one(&mut schedule.rng, scale.stop).await?,
                Happening::Pause => {
                    let code = r#"
                        import sqlite3
                        database = sqlite3.connect(path, isolation_level=None, timeout=60)
                        database.execute("BEGIN IMMEDIATE")
                        time.sleep(seconds)
                        database.execute("ROLLBACK")
                        database.close()
                    "#;
                    other.run(code, json!({"path": path, "seconds": scale.pause.as_secs_f64()})).await?;
                }
                _ => crew.kill_one().await?,
            }
        }
    }
    let Some(producer) = produced else { anyhow::bail!("nothing was produced") };
    crew.all_up().await?;
    crew.all_go_on().await;
    for id in producer.accepted.values() {
        producer.client().wait(id, None).await?;
    }
    crew.end().await?;
    drop(up);
    let took = began.elapsed().as_secs_f64();
    let (kills, stops) = (crew.kills, crew.stops.len());
    let killed = kills.len();
    // That a worker stood still excuses nothing here.
    let log = ground.site.history_log();
    let history = History::gather(producer, &log, kills, journal, &database, &database).await?;
    let verdict = judge(&history);
    let counts = Counts(&verdict);
    say(format_args!(
        "chaos of faults on embedded: {killed} kills, {stops} stops, {} rounds in {took:.1} s: {counts}\n{verdict}",
        schedule.rounds
    ));
    verdict.clean()?;
    anyhow::ensure!(verdict.redelivered > 0, "no kill met a worker that held a message: nothing was shown");
    let damage = database.check_integrity().await?;
    anyhow::ensure!(damage.is_empty(), "the database is damaged: {damage:?}");
    Ok(())
}
