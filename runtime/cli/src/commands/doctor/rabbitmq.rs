//! A RabbitMQ server: what it is, what it allows, how fast it answers, and what to change. The driver has the facts; here
//! they are judged.

use rwork_amqp::{Amqp, Examination, QueueInUse};

use super::check::Check;
use super::latency;

/// Channels that a worker needs: one for each queue and a few to publish, to look and to hand over.
const CHANNELS_MIN: u16 = 16;

/// Asks the server and judges.
pub(super) async fn checks(server: &Amqp) -> Vec<Check> {
    match server.examine().await {
        Ok(facts) => judge(&facts),
        Err(error) => vec![Check::failure("broker", &error.into())],
    }
}

fn judge(facts: &Examination) -> Vec<Check> {
    let mut checks = vec![server(facts), room(facts), limits(facts)];
    checks.extend(facts.queues.iter().map(queue));
    checks.extend(latency::check("broker latency", &facts.round_trips, "look at its load, and at its disk"));
    checks
}

fn server(facts: &Examination) -> Check {
    let named = [facts.product.as_deref(), facts.version.as_deref()];
    let named: Vec<&str> = named.into_iter().flatten().collect();
    let node = facts.cluster.as_ref().map(|cluster| format!(", cluster `{cluster}`")).unwrap_or_default();
    let found = format!("{} at {}{node}", named.join(" "), facts.server);
    if facts.product.as_deref() == Some("RabbitMQ") {
        return Check::ok("broker", found);
    }
    Check::warning(
        "broker",
        found,
        "rwork is made for RabbitMQ, and tested with nothing else that speaks AMQP 0-9-1",
    )
}

/// Alarms: whoever publishes during one waits.
fn room(facts: &Examination) -> Check {
    let what = "broker room";
    match (&facts.blocked, facts.confirmed_in) {
        (Some(why), _) => Check::failed(
            what,
            format!("it takes no messages: {why}"),
            "free memory or disk on that server, or let workers drain the queues: `rabbitmqctl status` tells its limits",
        ),
        (None, None) => Check::failed(
            what,
            "it has not confirmed a message in time",
            "look at its log, at its load and at its disk",
        ),
        (None, Some(time)) => {
            Check::ok(what, format!("no alarm; a message is confirmed in {:.2} ms", time.as_secs_f64() * 1e3))
        }
    }
}

/// A queue as it is. What a policy adds to it is not to be seen over AMQP.
fn queue(queue: &QueueInUse) -> Check {
    let what = "broker queue";
    let name = &queue.name;
    let Some(kind) = &queue.kind else {
        return Check::ok(what, format!("`{name}`: none yet, the first worker makes it"));
    };
    let others: Vec<String> = queue
        .arguments
        .iter()
        .filter(|(argument, _)| argument != "x-queue-type")
        .map(|(argument, value)| format!(", {argument} {value}"))
        .collect();
    let (ready, consumers, others) = (queue.ready, queue.consumers, others.concat());
    let found = format!("`{name}`: {kind}{others}, {ready} ready, {consumers} consumer(s)");
    if kind == "stream" {
        let hint = "nothing can be taken away from a stream: use another name in `queues`, or delete it";
        return Check::failed(what, found, hint);
    }
    Check::ok(what, found)
}

fn limits(facts: &Examination) -> Check {
    let what = "broker limits";
    let beat = match facts.heartbeat_s {
        0 => "no heartbeat".to_owned(),
        seconds => format!("a heartbeat every {seconds} s"),
    };
    let channels = match facts.channel_max {
        0 => "any number of channels".to_owned(),
        most => format!("{most} channels"),
    };
    let found = format!("{channels} for each connection, frames of {} bytes, {beat}", facts.frame_max);
    if facts.channel_max != 0 && facts.channel_max < CHANNELS_MIN {
        let hint =
            format!("a worker wants {CHANNELS_MIN} and one for each queue: `channel_max` in rabbitmq.conf");
        return Check::warning(what, found, hint);
    }
    if facts.heartbeat_s == 0 {
        let hint = "a dead line is noticed late: set `broker_heartbeat`, and `heartbeat` in rabbitmq.conf";
        return Check::warning(what, found, hint);
    }
    Check::ok(what, found)
}
