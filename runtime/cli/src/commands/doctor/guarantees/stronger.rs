//! Changes that would make a configuration promise more.

use rwork_redis::{Examination, Redis};

use super::Column;
use crate::commands::doctor::check::Check;
use crate::config::{Config, EMBEDDED};
use crate::drivers::{self, Driver};

/// Each thing that can be changed, the weightiest first.
pub(super) async fn of(config: &Config, column: Column, broker: &Driver, backend: &Driver) -> Vec<Check> {
    let mut found = Vec::new();
    found.extend(acks(config));
    found.extend(ownership(column));
    found.extend(results(config, column, backend));
    match broker {
        Driver::Embedded(_) => found.extend(synchronous(config)),
        Driver::Redis(server) => found.extend(durability(server).await),
        Driver::Amqp(_) => found.extend(replicas(config)),
    }
    found
}

/// A setup that is well, and could be better.
fn better(what: &'static str, found: &str, hint: &str) -> Check {
    Check { hint: hint.to_owned(), ..Check::ok(what, found) }
}

fn acks(config: &Config) -> Option<Check> {
    (!config.settings.task_acks_late).then(|| {
        Check::warning(
            "acks",
            "messages are acknowledged before their task runs: what a dying worker runs is lost",
            "`task_acks_late = true` in rwork.toml",
        )
    })
}

fn ownership(column: Column) -> Option<Check> {
    matches!(column, Column::RabbitMq | Column::RabbitMqRpc).then(|| {
        better(
            "connections",
            "RabbitMQ gives what a lost connection held to others at once",
            "with Redis or a file as broker, what runs goes on",
        )
    })
}

fn results(config: &Config, column: Column, backend: &Driver) -> Option<Check> {
    let what = "results";
    match column {
        Column::RedisElsewhere => Some(Check::warning(
            what,
            "they are stored elsewhere than messages: a result is written before the step that ends its task",
            "set `result_backend` to the broker's server; another database of it is enough",
        )),
        Column::Embedded if !(matches!(backend, Driver::Embedded(_)) && drivers::is_one_place(config)) => {
            Some(Check::warning(
                what,
                "they are stored elsewhere than messages: a result is written before the step that ends its task",
                "leave `result_backend` out: results are kept where messages come from",
            ))
        }
        Column::RabbitMqRpc => Some(Check::warning(
            what,
            "they are messages to who asked: nobody else can read them, and a task that ran already can't be told",
            "`result_backend = \"redis://…\"`, with `worker_deduplicate_successful_tasks = true` if no id is sent twice on purpose",
        )),
        Column::RabbitMq if !config.settings.worker_deduplicate_successful_tasks => Some(better(
            what,
            "a redelivered task runs again though its success is stored",
            "`worker_deduplicate_successful_tasks = true`, if no id is sent twice on purpose",
        )),
        _ => None,
    }
}

fn synchronous(config: &Config) -> Option<Check> {
    let set = config.parameters(EMBEDDED).find(|parameter| parameter.name == "synchronous");
    let is_full = set.is_some_and(|parameter| parameter.value == "full")
        || config.settings.broker_url.contains("synchronous=full");
    (!is_full).then(|| {
        better(
            "disk",
            "a power loss may take the last moments",
            "`synchronous = \"full\"` in [embedded] of rwork.toml; it costs a sync for each commit",
        )
    })
}

async fn durability(server: &Redis) -> Vec<Check> {
    match server.examine().await {
        Ok(facts) => [disk(&facts), fail_over(&facts), eviction(&facts)].into_iter().flatten().collect(),
        Err(error) => vec![Check::failure("broker", &error.into())],
    }
}

/// Loss that a crash of the server causes.
fn disk(facts: &Examination) -> Option<Check> {
    let what = "disk";
    let always = "`CONFIG SET appendfsync always`, and `appendfsync always` in redis.conf";
    match (facts.said.is("aof_enabled", "1"), facts.said.text("appendfsync")) {
        (Some(true), Some("always")) => None,
        (Some(true), _) => Some(Check::warning(
            what,
            "the append-only file is not synced at each write: a power loss takes the last seconds, and what it took may run twice",
            always,
        )),
        (Some(false), _) => Some(Check::warning(
            what,
            "no append-only file: a crash of the server takes what came since its last snapshot",
            format!("`CONFIG SET appendonly yes`, and `appendonly yes` in redis.conf; then {always}"),
        )),
        (None, _) => Some(Check::warning(
            what,
            "the server does not tell what it keeps on disk",
            "look for `appendonly yes` and `appendfsync always` in redis.conf",
        )),
    }
}

/// Loss that a fail-over causes.
fn fail_over(facts: &Examination) -> Option<Check> {
    let replicas = facts.said.number::<u64>("connected_slaves").filter(|replicas| *replicas > 0)?;
    (facts.said.number::<u64>("min-replicas-to-write") == Some(0)).then(|| {
        Check::warning(
            "fail-over",
            format!("{replicas} replicas, and the master writes without them too: a fail-over loses what they had not got"),
            "`CONFIG SET min-replicas-to-write 1`, and the same in redis.conf",
        )
    })
}

fn eviction(facts: &Examination) -> Option<Check> {
    let policy = facts.said.text("maxmemory_policy").filter(|policy| *policy != "noeviction")?;
    Some(Check::warning(
        "memory",
        format!("maxmemory-policy is `{policy}`: a full server throws messages away"),
        "`CONFIG SET maxmemory-policy noeviction`, and `maxmemory-policy noeviction` in redis.conf",
    ))
}

fn replicas(config: &Config) -> Option<Check> {
    let settings = &config.settings;
    let kinds = [settings.task_default_queue_type, settings.task_create_missing_queue_type];
    kinds.contains(&"classic").then(|| {
        better(
            "queues",
            "new queues are classic: in a cluster each is on one node",
            "`task_default_queue_type = \"quorum\"`, and `task_create_missing_queue_type` the same",
        )
    })
}
