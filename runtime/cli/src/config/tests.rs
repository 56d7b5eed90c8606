//! The layers, on each other.

use std::path::Path;
use std::time::Duration;

use super::*;

fn layered(file: &str, environment: &[(&str, &str)], flags: &[Flag]) -> Result<Config, Failure> {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    merge(Some((Path::new("/etc/rwork.toml"), file)), &environment, flags, &|_| None)
}

#[test]
fn the_later_layer_wins() {
    let flag = Flag::new("worker_concurrency", "-c", 8);
    let config = layered(
        "worker_concurrency = 2\ntask_default_queue = \"mail\"\nresult_expires = 60",
        &[("RWORK_WORKER_CONCURRENCY", "4"), ("RWORK_RESULT_EXPIRES", "0")],
        &[flag],
    )
    .unwrap();
    assert_eq!(config.settings.worker_concurrency, 8);
    assert_eq!(config.settings.task_default_queue, "mail");
    assert_eq!(config.settings.result_expires, None);
    assert_eq!(config.origin("worker_concurrency").to_string(), "-c");
    assert_eq!(config.origin("result_expires").to_string(), "RWORK_RESULT_EXPIRES");
    assert_eq!(config.origin("task_default_queue").to_string(), "/etc/rwork.toml:2");
    assert_eq!(config.origin("task_time_limit"), &Origin::Default);
}

#[test]
fn mistakes_name_the_place_and_what_was_expected() {
    let check = |file: &str, environment: &[(&str, &str)], expect: &str, hint: &str| {
        let error = anyhow::Error::from(layered(file, environment, &[]).unwrap_err());
        assert_eq!(error.to_string(), expect);
        assert_eq!(crate::failure::hints_of(&error).join("|"), hint);
    };
    check(
        "\nworker_concurency = 2",
        &[],
        "/etc/rwork.toml:2: unknown setting `worker_concurency`",
        "did you mean `worker_concurrency`?",
    );
    check("zzz = 1", &[], "/etc/rwork.toml:1: unknown setting `zzz`", "`rwork config` lists every setting");
    check("[task]\na = 1", &[], "/etc/rwork.toml:1: unknown setting `task`", "did you mean `tasks`?");
    check(
        "worker_concurrency = 0",
        &[],
        "/etc/rwork.toml:1: expected `worker_concurrency` to be a whole number in 1..=1024, got `0`",
        "",
    );
    check(
        "",
        &[("RWORK_TASK_ACKS_LATE", "maybe")],
        "RWORK_TASK_ACKS_LATE: expected `task_acks_late` to be true or false, got `maybe`",
        "",
    );
    check(
        "[tasks.\"math.add\"]\ntime_limits = 3",
        &[],
        "/etc/rwork.toml:2: unknown key `time_limits` in task options; did you mean `time_limit`?",
        "",
    );
    check(
        "[limits]\nmax_memry = 3",
        &[],
        "/etc/rwork.toml:2: unknown key `max_memry` in ceilings; did you mean `max_memory`?",
        "",
    );
    check(
        "[embedded]\nlease = []",
        &[],
        "/etc/rwork.toml:2: expected `lease` to be a string or a number, got `[…]`",
        "",
    );
    check(
        "[broker_transport_options]\nvisibilty_timeout = 60",
        &[],
        "/etc/rwork.toml:2: [broker_transport_options]: expected a known transport option, not `visibilty_timeout`",
        "did you mean `visibility_timeout`?",
    );
    check(
        "[result_backend_transport_options]\nsocket_timeout = [1, true]",
        &[],
        "/etc/rwork.toml:2: [result_backend_transport_options]: expected `socket_timeout` to be a number of seconds above 0 (not `1,true`)",
        "",
    );
    check(
        "[redis]\nlease = 60",
        &[],
        "/etc/rwork.toml:2: expected `lease` to be a number of seconds in 1..=10, got `60`",
        "",
    );
    check(
        "[redis]\nleese = 60",
        &[],
        "/etc/rwork.toml:2: unknown key of [redis] `leese`",
        "did you mean `lease`?",
    );
    check(
        "",
        &[("RWORK_BROKER_TRANSPORT_OPTIONS_PRIORITY_STEP", "0,9")],
        "RWORK_BROKER_TRANSPORT_OPTIONS_PRIORITY_STEP: [broker_transport_options]: expected a known transport option, not `priority_step`",
        "did you mean `priority_steps`?",
    );
    check(
        "broker_transport_options = 3",
        &[],
        "/etc/rwork.toml:1: expected `broker_transport_options` to be a table, got `3`",
        "",
    );
    check(
        "accept_content = []",
        &[],
        "/etc/rwork.toml:1: expected `accept_content` to be out of json, msgpack, yaml, auth, or their MIME types, got `[…]`",
        "",
    );
    check(
        "",
        &[("RWORK_ACCEPT_CONTENT", "json,pickle")],
        "RWORK_ACCEPT_CONTENT: expected `accept_content` to be out of json, msgpack, yaml, auth; a pickle is never read, since to read one is to run what is in it, got `json,pickle`",
        "",
    );
}

#[test]
fn the_environment_is_laid_over_the_tables_of_drivers() {
    let file = "[broker_transport_options]\nvisibility_timeout = 60\npriority_steps = [0, 5]\n\
                sentinel_kwargs = { password = \"pw\", ssl = true }\n[redis]\nlease = 2";
    let environment = [
        ("RWORK_BROKER_TRANSPORT_OPTIONS_VISIBILITY_TIMEOUT", "30"),
        ("RWORK_BROKER_TRANSPORT_OPTIONS_SENTINEL_KWARGS_USERNAME", "me"),
        ("RWORK_REDIS_LEASE", "3"),
        // Somebody else's.
        ("RWORK_REDIS_SERVER", "/usr/bin/redis-server"),
    ];
    let config = layered(file, &environment, &[]).unwrap();
    let shown =
        |parameter: &Parameter| format!("{} {} {}", parameter.key(), parameter.shown(), parameter.origin);
    assert_eq!(
        config.parameters.iter().map(shown).collect::<Vec<_>>(),
        [
            "broker_transport_options.priority_steps 0,5 /etc/rwork.toml:3",
            "broker_transport_options.sentinel_kwargs.password *** /etc/rwork.toml:4",
            "broker_transport_options.sentinel_kwargs.ssl true /etc/rwork.toml:4",
            "broker_transport_options.visibility_timeout 30 \
             RWORK_BROKER_TRANSPORT_OPTIONS_VISIBILITY_TIMEOUT",
            "broker_transport_options.sentinel_kwargs.username me \
             RWORK_BROKER_TRANSPORT_OPTIONS_SENTINEL_KWARGS_USERNAME",
            "redis.lease 3 RWORK_REDIS_LEASE",
        ]
    );
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
}

#[test]
fn every_default_passes_its_own_check() {
    for key in KEYS {
        let mut settings = Settings::default();
        let shown = (key.show)(&settings);
        if !shown.is_empty() {
            (key.set)(&mut settings, &Raw::Word(&shown)).unwrap_or_else(|expected| {
                panic!("{}: the default {shown} is not {expected}", key.name);
            });
            assert_eq!(settings, Settings::default(), "{}", key.name);
        }
    }
}

#[test]
fn variables_that_look_like_settings_are_warned_about() {
    let config = layered("", &[("RWORK_WORKER_CONCURENCY", "4"), ("RWORK_CHAOS", "full")], &[]).unwrap();
    assert_eq!(
        config.warnings,
        ["`RWORK_WORKER_CONCURENCY` is no setting; did you mean `RWORK_WORKER_CONCURRENCY`?"]
    );
}

#[test]
fn paths_are_relative_to_whoever_wrote_them() {
    let config = layered("plugins_dir = \"plugins\"", &[], &[]).unwrap();
    assert_eq!(config.resolve("plugins_dir", "plugins"), Path::new("/etc/plugins"));
    let config = layered("", &[("RWORK_PLUGINS_DIR", "plugins")], &[]).unwrap();
    assert_eq!(config.resolve("plugins_dir", "plugins"), Path::new("plugins"));
}

#[test]
fn settings_lie_below_what_is_said_of_a_task() {
    let config = layered(
        "task_time_limit = 10\n[tasks.\"slow.task\"]\ntime_limit = \"1h\"\nmemory = \"512MiB\"\n[limits]\nmax_time_limit = \"10m\"",
        &[],
        &[],
    )
    .unwrap();
    let none = rwork_plugin::TaskOptions::default();
    let options = |task: &str| config.deployment.options(task, &none);
    assert_eq!(options("any.task").time_limit, Some(Duration::from_secs(10)));
    assert_eq!(options("slow.task").time_limit, Some(Duration::from_secs(600)));
    assert_eq!(options("slow.task").memory_bytes_max, 512 << 20);
    assert_eq!(options("any.task").memory_bytes_max, 256 << 20);
}
