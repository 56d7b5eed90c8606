//! Every form of a message, good and bad; the captured ones byte for byte.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{Compression, Headers, JSON, Properties, TaskId, TaskName, Timestamp};

/// The headers of `celery-wire.md` §1.1, as Celery 5.7 sent them.
const CAPTURED_HEADERS: &str = r#"{"lang": "py", "task": "wapp.add", "id": "my-id", "shadow": "shadowed.add", "eta": "2026-11-20T10:18:49.628546+00:00", "expires": "2026-11-20T10:19:49.628546+00:00", "group": null, "group_index": null, "retries": 0, "timelimit": [30, 20], "root_id": "my-id", "parent_id": null, "argsrepr": "(2,)", "kwargsrepr": "{'y': 3}", "origin": "gen29203@host1", "ignore_result": true, "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {}, "x-trace": "abc", "n": 1}"#;

/// The body of `celery-wire.md` §1.1.
const CAPTURED_BODY: &str = r#"[[2], {"y": 3}, {"callbacks": [{"task": "wapp.xsum", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}], "errbacks": [{"task": "wapp.errback_old", "args": [], "kwargs": {}, "options": {}, "subtask_type": null, "immutable": false}], "chain": null, "chord": null}]"#;

fn message(headers: &str, body: &str) -> Message {
    Message {
        headers: Bytes::copy_from_slice(headers.as_bytes()),
        properties: Properties { correlation_id: Some("my-id".to_owned()), ..Properties::default() },
        content_type: JSON.to_owned(),
        content_encoding: "utf-8".to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn read(headers: &str, body: &str) -> Result<TaskMessage, DecodeError> {
    decode(&message(headers, body), &DecodeLimits::default())
}

const NAMED: &str = r#"{"task": "t", "id": "i"}"#;
const EMPTY_BODY: &str = "[[], {}, null]";

#[test]
fn the_captured_message_is_read_and_written_back_byte_for_byte() {
    let captured = message(CAPTURED_HEADERS, CAPTURED_BODY);
    let decoded = decode(&captured, &DecodeLimits::default()).unwrap();
    let headers = &decoded.headers;
    assert_eq!(headers.task.as_str(), "wapp.add");
    assert_eq!(headers.display_name(), "shadowed.add");
    assert_eq!(headers.eta, Timestamp::parse_iso("2026-11-20T10:18:49.628546Z"));
    assert_eq!(headers.hard_time_limit, Some(Duration::from_secs(30)));
    assert_eq!(headers.soft_time_limit, Some(Duration::from_secs(20)));
    assert_eq!(headers.ignore_result, Some(true));
    assert_eq!(headers.other("x-trace").unwrap(), "\"abc\"");
    assert_eq!(headers.root(), &headers.id);
    assert_eq!((&*decoded.args, &*decoded.kwargs), (&b"[2]"[..], &b"{\"y\": 3}"[..]));
    assert!(decoded.embed.callbacks.as_ref().unwrap().starts_with(b"[{\"task\": \"wapp.xsum\""));
    assert!(decoded.embed.chain.is_none() && !decoded.embed.is_empty());
    assert_eq!(decoded.encode(), captured);
}

#[test]
fn arguments_are_slices_of_the_body() {
    let message = message(NAMED, "[ [1, 2] , {\"a\": NaN}, {} ]");
    let decoded = decode(&message, &DecodeLimits::default()).unwrap();
    let body = message.body.as_ptr() as usize..message.body.as_ptr() as usize + message.body.len();
    assert!(body.contains(&(decoded.args.as_ptr() as usize)));
    assert!(body.contains(&(decoded.kwargs.as_ptr() as usize)));
    assert_eq!(decoded.kwargs, "{\"a\": NaN}");
    assert!(decoded.embed.is_empty());
}

#[test]
fn little_is_enough() {
    for body in [
        EMPTY_BODY,
        "[[], {}, {}]",
        r#"[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]"#,
    ] {
        let decoded = read(r#"{"lang": "py", "task": "t", "id": "i"}"#, body).unwrap();
        assert_eq!(decoded.headers, Headers::new(TaskName::new("t").unwrap(), TaskId::new("i").unwrap()));
        assert!(decoded.embed.is_empty());
    }
    let odd = r#"{"task": "t", "id": "i", "argsrepr": 1, "origin": [], "shadow": {}, "retries": 2.0, "timelimit": null, "root_id": "", "lang": 7}"#;
    assert_eq!(read(odd, EMPTY_BODY).unwrap().headers.retries, 2);
    let twice = r#"{"task": "t", "id": "i", "id": "j", "x": 1, "x": 2}"#;
    let headers = read(twice, EMPTY_BODY).unwrap().headers;
    assert_eq!((headers.id.as_str(), headers.other.len()), ("j", 1));
    for (limits, hard, soft) in [
        ("[0, null]", None, None),
        ("[1.5]", Some(1500), None),
        ("[null, 2]", None, Some(2000)),
        ("[-1, 1e99]", None, None),
    ] {
        let headers = format!(r#"{{"task": "t", "id": "i", "timelimit": {limits}}}"#);
        let headers = read(&headers, EMPTY_BODY).unwrap().headers;
        assert_eq!(headers.hard_time_limit, hard.map(Duration::from_millis), "{limits}");
        assert_eq!(headers.soft_time_limit, soft.map(Duration::from_millis), "{limits}");
    }
}

#[test]
fn protocol_1_is_read() {
    let body = r#"{"task": "wapp.add", "id": "d725", "args": [1, 2], "kwargs": {}, "group": null, "group_index": null, "retries": 0, "eta": "2026-11-20T10:18:29.340527+00:00", "expires": "2026-11-20T10:18:39.340527+00:00", "utc": true, "callbacks": [{"task": "wapp.xsum"}], "errbacks": null, "timelimit": [null, null], "taskset": "g1", "chord": null}"#;
    let decoded = read(r#"{"x": 1}"#, body).unwrap();
    assert_eq!(decoded.headers.task.as_str(), "wapp.add");
    assert_eq!(decoded.headers.group.as_deref(), Some("g1"));
    assert_eq!(decoded.headers.argsrepr.as_deref(), Some("(1, 2)"));
    assert_eq!(decoded.headers.other, [("x".to_owned(), Bytes::from_static(b"1"))]);
    assert_eq!(decoded.args, "[1, 2]");
    assert_eq!(decoded.embed.callbacks.unwrap(), "[{\"task\": \"wapp.xsum\"}]");
    assert_eq!(read("", r#"{"task": "t", "id": "i"}"#).unwrap().args, "[]");
}

#[test]
fn headers_win_over_a_hybrid_body() {
    let body = r#"{"task": "other", "id": "other", "args": [1], "kwargs": {"a": 1}, "retries": 3}"#;
    let decoded = read(r#"{"task": "t", "id": "i", "x": true}"#, body).unwrap();
    assert_eq!((decoded.headers.task.as_str(), decoded.headers.id.as_str()), ("t", "i"));
    assert_eq!((decoded.headers.retries, &*decoded.args), (3, &b"[1]"[..]));
    assert_eq!(decoded.headers.argsrepr.as_deref(), Some("(1,)"));
}

#[test]
fn what_is_wrong_is_named() {
    for (headers, body, kind, text) in [
        ("nope", EMPTY_BODY, "invalid", "expected headers to be one JSON object"),
        ("[]", EMPTY_BODY, "undecodable", "expected headers to be one JSON object"),
        (
            "{}",
            EMPTY_BODY,
            "unknown-message",
            "expected a header `task` or a body with `task`, found neither",
        ),
        ("", "{}", "unknown-message", "found an object without `task`"),
        ("", "7", "unknown-message", "found neither, the body being a number"),
        (r#"{"task": "t"}"#, EMPTY_BODY, "invalid-header", "expected a header `id`, found none"),
        (r#"{"task": "t", "id": null}"#, EMPTY_BODY, "invalid-header", "expected a header `id`, found none"),
        (r#"{"task": "t", "id": 7}"#, EMPTY_BODY, "invalid-header", "expected header `id` to be a string"),
        (
            r#"{"task": "t", "id": "i", "eta": "xx"}"#,
            EMPTY_BODY,
            "invalid-header",
            "an ISO 8601 time between the years 1 and 9999 or null, found `xx`",
        ),
        (r#"{"task": "t", "id": "i", "expires": 1.5}"#, EMPTY_BODY, "invalid-header", "or null, found `1.5`"),
        (
            r#"{"task": "t", "id": "i", "eta": "9999-12-31T23:59:59-12:00"}"#,
            EMPTY_BODY,
            "invalid-header",
            "`eta` to be an ISO 8601 time between the years 1 and 9999",
        ),
        (r#"{"task": "t", "id": "i", "retries": -1}"#, EMPTY_BODY, "invalid-header", "`retries`"),
        (r#"{"task": "t", "id": "i", "retries": 1.5}"#, EMPTY_BODY, "invalid-header", "`retries`"),
        (
            r#"{"task": "t", "id": "i", "timelimit": [1, 2, 3]}"#,
            EMPTY_BODY,
            "invalid-header",
            "`timelimit` to be `[hard, soft]`",
        ),
        (r#"{"task": "t", "id": "i", "timelimit": ["a"]}"#, EMPTY_BODY, "invalid-header", "`timelimit`"),
        (
            r#"{"task": "t", "id": "i", "ignore_result": "no"}"#,
            EMPTY_BODY,
            "invalid-header",
            "a boolean or null, found `\"no\"`",
        ),
        (r#"{"task": "t", "id": "i", "stamps": []}"#, EMPTY_BODY, "invalid-header", "an object or null"),
        (
            r#"{"task": "t", "id": "i", "compression": "snappy"}"#,
            EMPTY_BODY,
            "undecodable",
            "`zstd` or their MIME types, found `snappy`",
        ),
        (
            r#"{"task": "t", "id": "i", "compression": "gzip"}"#,
            EMPTY_BODY,
            "undecodable",
            "expected a body that can be decompressed: expected a zlib stream",
        ),
        (NAMED, "", "undecodable", "expected the body to be an array `[args, kwargs, embed]`"),
        (NAMED, "[[], {}", "undecodable", "at byte 7"),
        (NAMED, "[[], {}]", "undecodable", "found 2 elements"),
        (NAMED, "[[], {}, {}, 1]", "undecodable", "found 4 elements"),
        (NAMED, "7", "undecodable", "found a number"),
        (NAMED, "[[], {}, 7]", "undecodable", "expected `embed` to be an object or null, found a number"),
        (NAMED, r#"[[], {}, {"chain": {}}]"#, "undecodable", "expected `chain` to be an array"),
        (NAMED, r#"[[], {}, {"chord": []}]"#, "undecodable", "expected `chord` to be a signature or null"),
        (NAMED, "{\"kwargs\": {}}", "undecodable", "an object without `args`"),
        (NAMED, r#"[["\ud8"], {}, null]"#, "undecodable", "the body"),
        (NAMED, "[5, {}, null]", "invalid-arguments", "args must be an array, not a number"),
        (NAMED, "[[], [1], null]", "invalid-arguments", "kwargs must be an object, not an array"),
        (NAMED, "[[], null, null]", "invalid-arguments", "kwargs must be an object, not null"),
    ] {
        let error = read(headers, body).unwrap_err();
        let expected = if kind == "invalid" { "undecodable" } else { kind };
        assert_eq!(error.kind(), expected, "{headers} {body}: {error}");
        assert!(error.to_string().contains(text), "{headers} {body}: {error}");
    }
}

#[test]
fn an_error_names_the_task_as_far_as_it_is_known() {
    let error = read(r#"{"id": "i", "task": "t", "eta": "xx"}"#, EMPTY_BODY).unwrap_err();
    assert_eq!((error.task_id.unwrap().as_str(), error.task.unwrap().as_str()), ("i", "t"));
    let error = read(NAMED, "[[], [1], null]").unwrap_err();
    assert_eq!(error.task_id.as_ref().map(TaskId::as_str), Some("i"));
    let (request, text) = error.into_request().unwrap();
    assert_eq!((&*request.kwargs, text.as_str()), (&b"{}"[..], "kwargs must be an object, not an array"));
    assert!(read("{}", EMPTY_BODY).unwrap_err().into_request().is_none());
}

#[test]
fn other_content_and_large_messages_are_refused_unread() {
    let limits = DecodeLimits { body_bytes_max: 8, headers_bytes_max: 64, ..DecodeLimits::default() };
    let refused = |message: &Message| decode(message, &limits).unwrap_err();
    let error = refused(&message(NAMED, "[[], {}, null]"));
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        ("too-large", "expected a body of at most 8 bytes, found 14")
    );
    assert!(error.task_id.is_some());
    assert_eq!(refused(&message(&" ".repeat(65), "")).kind(), "too-large");
    for (content_type, found) in
        [("", "none"), ("application/x-python-serialize", "`application/x-python-serialize`")]
    {
        let message = Message { content_type: content_type.to_owned(), ..message(NAMED, EMPTY_BODY) };
        let error = decode(&message, &DecodeLimits::default()).unwrap_err();
        assert_eq!(error.kind(), "content-refused");
        assert!(
            error
                .to_string()
                .starts_with(&format!("expected content type `application/json`, found {found}"))
        );
    }
    let message =
        Message { content_type: "Application/JSON; charset=utf-8".to_owned(), ..message(NAMED, EMPTY_BODY) };
    assert!(decode(&message, &DecodeLimits::default()).is_ok());
}

/// `[[2, 3], {"b": b"\xff"}, null]` as Python's msgpack packs it.
const MSGPACK_BODY: &[u8] = b"\x93\x92\x02\x03\x81\xa1b\xc4\x01\xff\xc0";

/// The same for YAML, as `yaml.safe_dump` writes it.
const YAML_BODY: &[u8] = b"- - 2\n  - 3\n- b: !!binary |\n    /w==\n- null\n";

#[test]
fn other_formats_are_read_where_they_are_accepted() {
    let all = AcceptContent::parse(["json", "msgpack", "yaml"]).unwrap();
    let limits = DecodeLimits { accept: all, ..DecodeLimits::default() };
    for (content_type, body) in [("application/x-msgpack", MSGPACK_BODY), ("application/x-yaml", YAML_BODY)] {
        let mut message = message(NAMED, EMPTY_BODY);
        message.content_type = content_type.to_owned();
        message.body = Bytes::from_static(body);
        let decoded = decode(&message, &limits).unwrap();
        assert_eq!(decoded.args, "[2, 3]");
        assert_eq!(decoded.kwargs, r#"{"b": {"__type__": "base64", "__value__": "/w=="}}"#);
        assert_eq!(decoded.encode().content_type, JSON);
        let refused = decode(&message, &DecodeLimits::default()).unwrap_err();
        assert_eq!(refused.kind(), "content-refused");
        let small = DecodeLimits { decompressed_bytes_max: 20, ..limits.clone() };
        assert_eq!(decode(&message, &small).unwrap_err().kind(), "too-large");
        message.body.truncate(body.len() / 3);
        let error = decode(&message, &limits).unwrap_err();
        assert_eq!(error.kind(), "undecodable", "{error}");
    }
    let mut pickle = message(NAMED, EMPTY_BODY);
    pickle.content_type = "application/x-python-serialize".to_owned();
    assert!(decode(&pickle, &limits).unwrap_err().to_string().ends_with("a pickle, which is never read"));
}

#[test]
fn compressed_bodies_are_read_by_any_name() {
    for name in ["gzip", "application/x-gzip", "bzip2", "lzma", "brotli", "application/zstd"] {
        let compression = Compression::of(name).unwrap();
        let headers = format!(r#"{{"task": "t", "id": "i", "compression": "{name}"}}"#);
        let mut message = message(&headers, CAPTURED_BODY);
        message.body = crate::compress(CAPTURED_BODY.as_bytes(), compression).unwrap().into();
        let decoded = decode(&message, &DecodeLimits::default()).unwrap();
        assert_eq!((&*decoded.args, decoded.headers.other.len()), (&b"[2]"[..], 0));
        let small =
            DecodeLimits { decompressed_bytes_max: CAPTURED_BODY.len() - 1, ..DecodeLimits::default() };
        let error = decode(&message, &small).unwrap_err();
        assert_eq!((error.kind(), error.task_id.is_some()), ("too-large", true), "{error}");
    }
}

#[test]
fn typed_values_are_kombus_or_registered() {
    let body = r#"[[{"__type__": "uuid", "__value__": {"hex": "05"}}, {"__type__": "x", "__value__": 1, "z": 0}], {}, {}]"#;
    assert_eq!(
        decode(&message(NAMED, body), &DecodeLimits::default()).unwrap().args,
        body[1..body.len() - 9]
    );
    let strange = message(NAMED, r#"[[{"__type__": "point", "__value__": [1, 2]}], {}, {}]"#);
    let error = decode(&strange, &DecodeLimits::default()).unwrap_err();
    assert_eq!(error.kind(), "undecodable");
    assert!(error.to_string().starts_with("expected typed values that kombu can read: "), "{error}");
    let limits = DecodeLimits { typed_values: vec!["point".to_owned()], ..DecodeLimits::default() };
    assert!(decode(&strange, &limits).is_ok());
}

#[test]
fn half_characters_are_replaced() {
    let decoded =
        read(r#"{"task": "t", "id": "i", "x": "\ud800"}"#, r#"[["\udc00 \ud83d\ude00"], {}, {}]"#).unwrap();
    assert_eq!(decoded.args, r#"["\ufffd \ud83d\ude00"]"#);
    assert_eq!(decoded.headers.other("x").unwrap(), r#""\ufffd""#);
    let typed = r#"[["\ud800", {"__type__": "bytes", "__value__": "x"}], {}, {}]"#;
    assert!(read(NAMED, typed).unwrap().args.starts_with(br#"["\ufffd", "#));
}

/// What brokers and kombu add about one delivery.
const ADDED: &str = r#"{"task": "t", "id": "i", "redelivered": true, "x-death": [{"count": 1}], "x-first-death-exchange": "e", "x-first-death-queue": "q", "x-first-death-reason": "expired", "x-last-death-exchange": "e", "x-last-death-queue": "q", "x-last-death-reason": "expired", "compression": "", "delivery_count": 2, "x-delivery-count": 1, "x-deathly": NaN}"#;

#[test]
fn what_brokers_add_is_not_given_on() {
    let decoded = read(ADDED, EMPTY_BODY).unwrap();
    assert_eq!(decoded.headers.other, [("x-deathly".to_owned(), Bytes::from_static(b"NaN"))]);
    let visible = crate::guest_headers(&Bytes::from_static(ADDED.as_bytes()));
    assert_eq!(visible, r#"{"task": "t", "id": "i", "x-deathly": NaN}"#);
    let plain = Bytes::from_static(CAPTURED_HEADERS.as_bytes());
    assert_eq!(crate::guest_headers(&plain).as_ptr(), plain.as_ptr());
    assert_eq!(crate::guest_headers(&Bytes::from_static(br#"{"x": "\ud800"}"#)), r#"{"x": "\ufffd"}"#);
    let broken = Bytes::from_static(b"{\"redelivered\"");
    assert_eq!(crate::guest_headers(&broken), broken);
}

prop_compose! {
    fn headers()(
        task in "[a-z]{1,8}(\\.[a-z]{1,8})?",
        ids in prop::collection::vec(prop::option::of("[a-z0-9é\"-]{1,20}"), 3),
        times in prop::collection::vec(prop::option::of(-1_000_000_000_000_000_i64..4_000_000_000_000_000), 2),
        texts in prop::collection::vec(prop::option::of(any::<String>()), 3),
        group in prop::option::of("[a-z]{1,9}"),
        numbers in any::<(Option<u32>, u32, u32)>(),
        limits in prop::collection::vec(prop::option::of(1_u64..1_000_000_000), 2),
        ignore_result in any::<Option<bool>>(),
        other in prop::collection::btree_map("x-[a-z]{1,5}", any::<i64>(), 0..4),
    ) -> Headers {
        let id = |n: usize| ids[n].as_ref().map(|id| TaskId::new(id).unwrap());
        Headers {
            shadow: texts[0].clone().filter(|text| !text.is_empty()),
            eta: times[0].map(Timestamp::from_micros),
            expires: times[1].map(Timestamp::from_micros),
            group,
            group_index: numbers.0,
            retries: numbers.1,
            hard_time_limit: limits[0].map(Duration::from_millis),
            soft_time_limit: limits[1].map(Duration::from_millis),
            root_id: id(1),
            parent_id: id(2),
            argsrepr: Some(texts[1].clone().unwrap_or_default()),
            kwargsrepr: Some(texts[2].clone().unwrap_or_default()),
            origin: texts[2].clone(),
            ignore_result,
            replaced_task_nesting: numbers.2,
            stamped_headers: group_of(&other),
            stamps: Some(Bytes::from_static(b"{}")),
            other: other.iter().map(|(name, number)| (name.clone(), number.to_string().into())).collect(),
            ..Headers::new(TaskName::new(task).unwrap(), id(0).unwrap_or_else(TaskId::generate))
        }
    }
}

fn group_of(other: &std::collections::BTreeMap<String, i64>) -> Option<Bytes> {
    (!other.is_empty())
        .then(|| json::array_of(&other.keys().map(|name| json::string(name)).collect::<Vec<_>>()))
}

proptest! {
    #[test]
    fn headers_survive_the_wire(headers in headers()) {
        let encoded = headers.encode();
        prop_assert_eq!(Headers::parse(&encoded).unwrap(), headers);
        prop_assert!(encoded.is_ascii());
    }

    #[test]
    fn messages_survive_the_wire(headers in headers(), args in prop::collection::vec(any::<f32>(), 0..5), follow in any::<[bool; 4]>()) {
        let part = |here: bool, text: &'static str| here.then(|| Bytes::from_static(text.as_bytes()));
        let args: Vec<String> = args.iter().map(|n| json::Value::Float(f64::from(*n)).to_string()).collect();
        let message = TaskMessage {
            headers,
            properties: Properties::default(),
            args: json::array_of(&args),
            kwargs: Bytes::from_static(b"{\"k\": [1, {}]}"),
            embed: Embed {
                callbacks: part(follow[0], "[{\"task\": \"a\"}]"),
                errbacks: part(follow[1], "[]"),
                chain: part(follow[2], "[{\"task\": \"b\"}]"),
                chord: part(follow[3], "{\"task\": \"c\"}"),
            },
        };
        prop_assert_eq!(decode(&message.encode(), &DecodeLimits::default()).unwrap(), message);
    }

    #[test]
    fn no_message_panics(headers in json::tests::soup(), body in json::tests::soup(), named in any::<bool>()) {
        let headers = if named { Bytes::from_static(NAMED.as_bytes()) } else { Bytes::from(headers) };
        let message = Message { headers, body: body.into(), content_type: JSON.to_owned(), ..Message::default() };
        match decode(&message, &DecodeLimits::default()) {
            Ok(decoded) => prop_assert!(decode(&decoded.encode(), &DecodeLimits::default()).is_ok()),
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_cut_message_is_refused(cut in 0..CAPTURED_BODY.len()) {
        prop_assert!(read(CAPTURED_HEADERS, &CAPTURED_BODY[..cut]).is_err());
    }
}
