//! Options from text, bad ones first.

use super::*;

#[test]
fn bad_transport_options_say_what_would_do() {
    for (name, value, text) in [
        ("visibility_timout", "5", "did you mean `visibility_timeout`?"),
        ("zzz", "5", "one of the transport options `client_name`"),
        ("visibility_timeout", "soon", "`visibility_timeout` to be a number of seconds above 0 (not `soon`)"),
        ("visibility_timeout", "0", "a number of seconds above 0"),
        ("visibility_timeout", "-1", "a number of seconds above 0"),
        ("priority_steps", "0,10", "numbers of 0..=9 in ascending order (not `0,10`)"),
        ("priority_steps", "3,0", "in ascending order"),
        ("priority_steps", "0,0", "in ascending order"),
        ("priority_steps", "", "in ascending order"),
        ("queue_order_strategy", "random", "`round_robin`, `sorted` or `priority` (not `random`)"),
        ("sep", "", "`sep` not to be empty"),
        ("unacked_restore_limit", "0", "a whole number above 0 (not `0`)"),
        ("ack_emulation", "false", "`ack_emulation` to be `true`"),
        ("client_name", "a b", "printable ASCII without spaces"),
        ("sentinel_kwargs.passwd", "x", "did you mean `sentinel_kwargs.password`?"),
        ("sentinel_kwargs.ssl", "perhaps", "`true` or `false`"),
        ("sentinel_kwargs.ssl_cert_reqs", "perhaps", "`required`, `optional` or `none`"),
    ] {
        let said = Transport::default().set(name, value).unwrap_err();
        assert!(said.contains(text), "{name}={value}: {said}");
    }
}

#[test]
fn transport_options_are_set_by_celerys_names() {
    let mut transport = Transport::default();
    for (name, value) in [
        ("visibility_timeout", "43200"),
        ("priority_steps", "[0, 5, 9]"),
        ("sep", ":"),
        ("queue_order_strategy", "sorted"),
        ("global_keyprefix", "pfx:"),
        ("unacked_key", "u"),
        ("unacked_restore_limit", "100"),
        ("unacked_restore_interval", "0.5"),
        ("unacked_restore_throttle", "1"),
        ("socket_timeout", "2.5"),
        ("polling_interval", "none"),
        ("deadletter_queue", "lost"),
        ("ack_emulation", "True"),
        ("fanout_prefix", "true"),
        ("socket_keepalive", "true"),
    ] {
        transport.set(name, value).unwrap_or_else(|expected| panic!("{name}: expected {expected}"));
    }
    assert_eq!(transport.visibility_timeout, Duration::from_secs(43_200));
    assert_eq!(transport.priority_steps, [0, 5, 9]);
    assert_eq!((transport.sep.as_str(), transport.global_keyprefix.as_str()), (":", "pfx:"));
    assert_eq!(transport.queue_order_strategy, QueueOrder::Sorted);
    assert_eq!(transport.unacked_key, "u");
    assert_eq!(transport.unacked_restore_limit, Some(100));
    assert_eq!(transport.unacked_restore_interval, Duration::from_millis(500));
    assert_eq!(transport.unacked_restore_throttle, 1);
    assert_eq!(transport.socket_timeout, Some(Duration::from_millis(2500)));
    assert_eq!(transport.polling_interval, None);
    assert_eq!(transport.deadletter_queue.as_deref(), Some("lost"));
}

#[test]
fn the_defaults_are_kombus() {
    let transport = Transport::default();
    assert_eq!(transport.visibility_timeout, Duration::from_secs(3600));
    assert_eq!(transport.priority_steps, [0, 3, 6, 9]);
    assert_eq!(transport.sep.as_bytes(), [6, 0x16]);
    assert_eq!(transport.unacked_mutex_expire, Duration::from_secs(300));
    assert_eq!((transport.unacked_restore_interval.as_secs(), transport.unacked_restore_throttle), (10, 10));
    assert_eq!(
        [&transport.unacked_key, &transport.unacked_index_key, &transport.unacked_mutex_key],
        ["unacked", "unacked_index", "unacked_mutex"]
    );
}

#[test]
fn options_show_no_password() {
    let url = "sentinel://me:hunter2@a:26379/0;sentinel://:hunter3@b";
    let mut options = Options::parse(url, Role::Broker).unwrap();
    options.transport.set("sentinel_kwargs.password", "hunter4").unwrap();
    let shown = format!("{options:?}");
    assert!(!shown.contains("hunter"), "{shown}");
}

#[test]
fn options_out_of_range_say_what_would_do() {
    let check = |change: fn(&mut Options), text: &str| {
        let mut options = Options::parse("redis://:hunter2@host", Role::Broker).unwrap();
        change(&mut options);
        let said = options.check().unwrap_err().to_string();
        assert!(said.contains(text) && !said.contains("hunter2"), "{said}");
    };
    check(|options| options.lease = Duration::from_millis(99), "`lease` to be 0.1..=10 seconds (not 0.099)");
    check(|options| options.lease = Duration::from_secs(11), "`lease` to be 0.1..=10 seconds (not 11)");
    check(|options| options.message_bytes_max = 0, "`message_bytes_max` to be 1..=268435456 (not 0)");
    check(|options| options.record_bytes_max = 1 << 30, "`record_bytes_max` to be 1..=536870912");
    assert!(Options::parse("redis://host", Role::Broker).unwrap().check().is_ok());
}

#[test]
fn redis_pys_parameters_are_taken_from_the_url() {
    let url = "redis://h/1?health_check_interval=30&socket_timeout=10&retry_on_timeout=true";
    let options = Options::parse(url, Role::Backend).unwrap();
    assert_eq!(options.transport.socket_timeout, Some(Duration::from_secs(10)));
    let url = "rediss://h/1?ssl_cert_reqs=none&socket_connect_timeout=2";
    let options = Options::parse(url, Role::Backend).unwrap();
    assert_eq!(options.transport.socket_connect_timeout, Some(Duration::from_secs(2)));
    let said =
        Options::parse("redis://:hunter2@h?socket_timeout=soon", Role::Broker).unwrap_err().to_string();
    assert!(
        said.contains("`socket_timeout` to be a number of seconds") && !said.contains("hunter2"),
        "{said}"
    );
}
