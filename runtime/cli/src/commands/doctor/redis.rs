//! A Redis server: what it keeps, what it throws away, how fast it answers, and what to change. The driver has the facts;
//! here they are judged.

use rwork_redis::{Examination, Redis};

use super::check::Check;
use super::latency;
use crate::config::show_bytes;

/// Clocks further apart than this show: in `eta` and `expires`, which producers and workers tell by their own clocks.
const CLOCK_APART_S: f64 = 1.0;
/// Memory or connections in use from which on it is time to act.
const NEARLY_FULL: f64 = 0.9;
/// The oldest version with what the scripts need.
const VERSION_MIN: (u32, u32) = (6, 2);

/// What a server is used for: a broker must not forget, a backend may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Broker,
    Backend,
}

/// What the lines about a server are called.
struct Names {
    server: &'static str,
    memory: &'static str,
    disk: &'static str,
    latency: &'static str,
    clock: &'static str,
    clients: &'static str,
}

const BROKER: Names = Names {
    server: "broker",
    memory: "broker memory",
    disk: "broker disk",
    latency: "broker latency",
    clock: "broker clock",
    clients: "broker clients",
};
const BACKEND: Names = Names {
    server: "backend",
    memory: "backend memory",
    disk: "backend disk",
    latency: "backend latency",
    clock: "backend clock",
    clients: "backend clients",
};

/// Asks the server and judges.
pub(super) async fn checks(redis: &Redis, used: Use) -> Vec<Check> {
    match redis.examine().await {
        Ok(facts) => judge(&facts, used),
        Err(error) => vec![Check::failure(used.names().server, &error.into())],
    }
}

fn judge(facts: &Examination, used: Use) -> Vec<Check> {
    let mut checks = vec![server(facts, used)];
    checks.extend([eviction(facts, used), memory(facts, used)].into_iter().flatten());
    checks.extend(disk(facts, used));
    checks.extend(
        [
            latency::check(used.names().latency, &facts.round_trips, "`SLOWLOG GET`, `LATENCY DOCTOR`"),
            clients(facts, used),
        ]
        .into_iter()
        .flatten(),
    );
    checks.push(clock(facts, used));
    checks
}

impl Use {
    fn names(self) -> &'static Names {
        match self {
            Self::Broker => &BROKER,
            Self::Backend => &BACKEND,
        }
    }

    fn kept(self) -> &'static str {
        match self {
            Self::Broker => "message",
            Self::Backend => "result",
        }
    }
}

fn server(facts: &Examination, used: Use) -> Check {
    let what = used.names().server;
    let Examination { version, mode, role, server, .. } = facts;
    let found = format!("{server} is Redis {version}, {mode}, {role}");
    if version_of(version).is_some_and(|version| version < VERSION_MIN) {
        let (major, minor) = VERSION_MIN;
        return Check::failed(
            what,
            found,
            format!("rwork needs Redis {major}.{minor} or newer: upgrade the server"),
        );
    }
    match (mode.as_str(), role.as_str()) {
        ("cluster", _) => {
            let hint =
                "this version can't use a cluster: name a server of its own, or sentinels (`sentinel://`)";
            Check::failed(what, found, hint)
        }
        ("sentinel", _) => {
            let hint = "this is a sentinel: write `sentinel://`, and set `master_name` in \
                        [broker_transport_options] (a backend's in [result_backend_transport_options])";
            Check::failed(what, found, hint)
        }
        (_, "replica" | "slave") => {
            let hint =
                "a replica takes no writes: name its master, or sentinels (`sentinel://`), which know it";
            Check::failed(what, found, hint)
        }
        _ if !facts.tracking => {
            let hint = "rwork looks for messages every 100 ms instead; allow it to be told: `ACL SETUSER <user> +client|tracking`";
            Check::warning(
                what,
                format!("{found}; it does not tell of new messages (`CLIENT TRACKING`)"),
                hint,
            )
        }
        _ if !facts.publishes => {
            let hint = "clients that wait for a result are not told of it; allow it: `ACL SETUSER <user> &*`";
            Check::warning(what, format!("{found}; it refuses to publish results (NOPERM)"), hint)
        }
        _ => Check::ok(what, found),
    }
}

/// `7.0.15` as numbers.
fn version_of(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Eviction: with a limit, any policy but one throws away messages that nobody has seen.
fn eviction(facts: &Examination, used: Use) -> Option<Check> {
    let (what, kept) = (used.names().memory, used.kept());
    let policy = facts.said.text("maxmemory_policy")?;
    let limited = facts.said.number::<u64>("maxmemory").is_some_and(|limit| limit > 0);
    let evicted = facts.said.number::<u64>("evicted_keys").unwrap_or_default();
    let hint = "`CONFIG SET maxmemory-policy noeviction`, and `maxmemory-policy noeviction` in redis.conf";
    if policy == "noeviction" {
        let found =
            format!("{evicted} keys were evicted since the server started: {kept}s may have been among them");
        return (evicted > 0)
            .then(|| Check::warning(what, found, "the policy is `noeviction` now: nothing more is lost"));
    }
    let so_far = if evicted > 0 { format!(", {evicted} so far") } else { String::new() };
    let found = match limited {
        true => format!("maxmemory-policy is `{policy}`: a full server throws {kept}s away{so_far}"),
        false => format!("maxmemory-policy is `{policy}`: with a memory limit it would throw {kept}s away"),
    };
    Some(match (used, limited) {
        (Use::Broker, true) => Check::failed(what, found, hint),
        _ => Check::warning(what, found, hint),
    })
}

fn memory(facts: &Examination, used: Use) -> Option<Check> {
    let what = used.names().memory;
    let taken = facts.said.number::<u64>("used_memory")?;
    let Some(limit) = facts.said.number::<u64>("maxmemory").filter(|limit| *limit > 0) else {
        return Some(Check::ok(what, format!("{} used, no limit but the machine's", show_bytes(taken))));
    };
    let found = format!("{} used of {}", show_bytes(taken), show_bytes(limit));
    if share(taken, limit) < NEARLY_FULL {
        return Some(Check::ok(what, found));
    }
    let hint = format!(
        "`CONFIG SET maxmemory {}`, and the same in redis.conf; `rwork queues` shows what waits, `result_expires` how long \
         results stay",
        limit.max(taken).saturating_mul(2)
    );
    Some(if taken >= limit {
        Check::failed(what, format!("{found}: it takes nothing more"), hint)
    } else {
        Check::warning(what, found, hint)
    })
}

/// A share for people; whole bytes and connections are exact in a float far beyond what there is.
#[allow(clippy::cast_precision_loss, reason = "a share of what fits a machine")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// What a crash of the server, or of its machine, takes with it.
fn disk(facts: &Examination, used: Use) -> Vec<Check> {
    let (what, kept) = (used.names().disk, used.kept());
    let mut checks = Vec::new();
    if facts.said.is("aof_last_write_status", "ok") == Some(false) {
        let found = "the last write to its append-only file failed: it takes nothing more";
        checks.push(Check::failed(what, found, "look at the server's log, and at the room on its disk"));
    }
    if facts.said.is("rdb_last_bgsave_status", "ok") == Some(false) {
        let found = "its last snapshot failed: unless told otherwise it takes nothing more";
        checks.push(Check::failed(
            what,
            found,
            "look at the server's log, and at the room on its disk and in memory",
        ));
    }
    let keep = "`CONFIG SET appendonly yes`, and `appendonly yes` in redis.conf";
    let rules = facts.said.text("save");
    let kept_how = match (facts.said.is("aof_enabled", "1"), facts.said.text("appendfsync"), rules) {
        (None, ..) => Check::ok(what, "it does not tell what it keeps on disk"),
        (Some(true), Some("always"), _) => {
            Check::ok(what, "append-only file, synced at each write: nothing is lost")
        }
        (Some(true), Some("no"), _) => Check::warning(
            what,
            format!(
                "append-only file, synced when the kernel likes: a power loss takes the {kept}s of half a minute"
            ),
            "`CONFIG SET appendfsync everysec`, and `appendfsync everysec` in redis.conf",
        ),
        (Some(true), ..) => Check::ok(
            what,
            format!(
                "append-only file, synced every second: a power loss may take the {kept}s of the last one"
            ),
        ),
        (Some(false), _, Some("")) => Check::warning(
            what,
            format!("nothing is kept on disk: a restart of the server loses every {kept}"),
            keep,
        ),
        (Some(false), _, rules) => {
            let rules = rules.map_or(String::new(), |rules| format!(" ({rules})"));
            let found = format!("snapshots only{rules}: a crash loses the {kept}s since the last one");
            match used {
                Use::Broker => Check::warning(what, found, keep),
                Use::Backend => Check::ok(what, found),
            }
        }
    };
    checks.push(kept_how);
    checks
}

fn clients(facts: &Examination, used: Use) -> Option<Check> {
    let what = used.names().clients;
    let (now, most) =
        (facts.said.number::<u64>("connected_clients")?, facts.said.number::<u64>("maxclients")?);
    let found = format!("{now} connections of {most}");
    Some(if share(now, most) < NEARLY_FULL {
        Check::ok(what, found)
    } else {
        let hint = format!("`CONFIG SET maxclients {}`, and the same in redis.conf", most.saturating_mul(2));
        Check::warning(what, found, hint)
    })
}

fn clock(facts: &Examination, used: Use) -> Check {
    let what = used.names().clock;
    let apart = facts.clock_ahead_s.abs();
    let found =
        format!("{apart:.3} s {}", if facts.clock_ahead_s < 0.0 { "behind ours" } else { "ahead of ours" });
    if apart < CLOCK_APART_S {
        return Check::ok(what, found);
    }
    let hint = "synchronise the clocks (NTP): `eta` and `expires` are told by the sender's clock and kept by the worker's";
    Check::warning(what, found, hint)
}
