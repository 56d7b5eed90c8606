//! A user who loses rights, or finds keys of a wrong type, while a worker runs: nothing is lost, and nobody waits for what is
//! another one's matter.

use redis::AsyncCommands;
use rwork_broker::{Batch, Broker, Commit, Committed, Delivery, Disposition, Ending, Error, Part};
use rwork_redis::Redis;

use crate::common::{Server, within};
use crate::peers::*;

const PASSWORD: &str = "secret";

/// A server and a user of it who may do everything, for now.
async fn place() -> (Server, Redis, Admin) {
    let server = Server::start();
    let mut admin = server.admin().await;
    rights(&mut admin, &["reset", "on", &format!(">{PASSWORD}"), "~*", "&*", "+@all"]).await;
    let redis =
        connect(&server.url().replace("redis://", &format!("redis://worker:{PASSWORD}@")), |_| {}).await;
    (server, redis, admin)
}

async fn rights(admin: &mut Admin, rules: &[&str]) {
    redis::cmd("ACL").arg("SETUSER").arg("worker").arg(rules).exec_async(admin).await.unwrap();
}

async fn held(admin: &mut Admin) -> (usize, usize, usize) {
    redis::pipe().llen("celery").hlen("unacked").zcard("unacked_index").query_async(admin).await.unwrap()
}

fn ends_as(delivery: &Delivery, how: Disposition) -> Commit {
    ends(Ending::Settle(delivery.clone().settle(how)))
}

#[tokio::test]
async fn who_may_not_register_messages_takes_none() {
    const COUNT: usize = 20;
    for command in ["hset", "zadd", "sadd", "hdel", "zrem", "srem"] {
        let (_server, redis, mut admin) = place().await;
        redis.publish_all((0..COUNT).map(|number| to("celery", number)).collect()).await.unwrap();
        let consumer = consume(&redis, &["celery"]).await;
        rights(&mut admin, &[&format!("-{command}")]).await;
        let error = within("refusing", consumer.receive(room(COUNT))).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{command}: {error}");
        assert_eq!(held(&mut admin).await, (COUNT, 0, 0), "{command}");
        rights(&mut admin, &[&format!("+{command}")]).await;
        let came = receive(&*consumer, COUNT).await;
        assert_eq!(numbers(&came), (0..COUNT).collect::<Vec<_>>(), "{command}");
        assert_eq!(held(&mut admin).await, (0, COUNT, COUNT), "{command}");
    }
}

/// All of them wait, and are done once: their number tells.
#[tokio::test]
async fn who_may_not_take_away_what_is_settled_commits_nothing_until_it_is_mended() {
    for command in ["hdel", "zrem", "srem", "hset"] {
        let (_server, redis, mut admin) = place().await;
        redis.publish_all(vec![to("celery", 0)]).await.unwrap();
        let consumer = consume(&redis, &["celery"]).await;
        let came = receive(&*consumer, 1).await;
        let publish = vec![to("next", 1)];
        let batch = batch(vec![Commit { publish, ..ends_as(&came[0], Disposition::Ack) }]);
        rights(&mut admin, &[&format!("-{command}")]).await;
        let error = consumer.commit(&batch).await.unwrap_err();
        assert!(error.is_retryable() && error.hint().is_some(), "{command}: {error}");
        rights(&mut admin, &[&format!("+{command}")]).await;
        for _ in 0..2 {
            assert_eq!(consumer.commit(&batch).await.unwrap(), [Committed::Done], "{command}");
        }
        assert_eq!((held(&mut admin).await, admin.llen("next").await), ((0, 0, 0), Ok(1)), "{command}");
    }
}

/// The keys of dead letters are named by those who need them alone.
#[tokio::test]
async fn who_may_not_keep_dead_letters_still_commits_the_others() {
    let (_server, redis, mut admin) = place().await;
    redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
    let consumer = consume(&redis, &["celery"]).await;
    let came = receive(&*consumer, 2).await;
    rights(&mut admin, &["resetkeys", "~celery*", "~next*", "~_kombu*", "~unacked*", "~rwork.[^d]*"]).await;
    let dead = |number| Batch {
        number,
        commits: vec![ends_as(&came[1], Disposition::DeadLetter(reason("unknown-task")))],
    };
    let error = consumer.commit(&dead(1)).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "its own matter: {error}");
    let innocent = Batch { number: 2, commits: vec![ends_as(&came[0], Disposition::Ack)] };
    assert_eq!(consumer.commit(&innocent).await.unwrap(), [Committed::Done]);
    rights(&mut admin, &["~*"]).await;
    assert_eq!(consumer.commit(&dead(3)).await.unwrap(), [Committed::Done]);
    assert_eq!(held(&mut admin).await, (0, 0, 0));
    assert_eq!(admin.zcard::<_, usize>("rwork.dead").await.unwrap(), 1);
}

#[tokio::test]
async fn a_wrong_type_among_the_dead_letters_refuses_a_dead_letter_alone() {
    for key in ["rwork.dead", "rwork.dead.letters", "rwork.dead.counts"] {
        let (_server, redis, mut admin) = place().await;
        redis.publish_all((0..2).map(|number| to("celery", number)).collect()).await.unwrap();
        let consumer = consume(&redis, &["celery"]).await;
        let came = receive(&*consumer, 2).await;
        let _: () = admin.set(key, "odd").await.unwrap();
        let commits = vec![
            ends_as(&came[0], Disposition::DeadLetter(reason("unknown-task"))),
            ends_as(&came[1], Disposition::Ack),
        ];
        let answers = consumer.commit(&batch(commits)).await.unwrap();
        let [Committed::Refused(refusal), Committed::Done] = &answers[..] else {
            panic!("{key}: {answers:?}")
        };
        assert_eq!(refusal.part, Part::Settlement);
        assert!(refusal.why.contains(key), "{}", refusal.why);
        assert_eq!(held(&mut admin).await, (0, 1, 1), "it stays held: {key}");
    }
}
