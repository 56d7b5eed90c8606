//! There and back, over the wire's own encoding.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldTable};
use proptest::prelude::*;
use rwork_protocol::{Message, Properties};
use serde_json::{Value, json};

use super::*;

fn with_headers(headers: impl Into<Bytes>) -> Message {
    Message { headers: headers.into(), ..Message::default() }
}

fn round_trip(headers: &str) -> Bytes {
    let properties = write(&with_headers(headers.to_owned())).unwrap();
    read(&properties, Vec::new()).headers
}

fn table(headers: &str) -> FieldTable {
    write(&with_headers(headers.to_owned())).unwrap().headers().clone().unwrap()
}

#[test]
fn what_is_no_table_comes_back_byte_for_byte() {
    let long_name = format!("{{\"{}\":1}}", "n".repeat(256));
    for headers in [
        "[]",
        "\"text\"",
        "{\"a\":1",
        "not json",
        "{\"lone\":\"\\ud800\"}",
        "{\"big\": 9223372036854775808}",
        "{\"bigger\":{\"in\":[-18446744073709551616]}}",
        long_name.as_str(),
    ] {
        assert_eq!(round_trip(headers), headers, "{headers}");
    }
}

#[test]
fn celerys_headers_are_a_table_that_celery_reads() {
    let headers =
        r#"{"lang":"py","retries":3,"timelimit":[null,1.5],"stamps":{"a":["x"]},"ignore_result":false}"#;
    let table = table(headers);
    let field = |name: &str| table.inner().get(name).cloned().unwrap();
    assert_eq!(field("lang"), AMQPValue::LongString("py".into()));
    assert_eq!(field("retries"), AMQPValue::LongLongInt(3));
    assert_eq!(
        field("timelimit"),
        AMQPValue::FieldArray(vec![AMQPValue::Void, AMQPValue::Double(1.5)].into())
    );
    assert_eq!(field("ignore_result"), AMQPValue::Boolean(false));
    assert!(field("stamps").as_field_table().is_some());
    assert_eq!(table.inner().len(), 5, "nothing is added: {table:?}");
}

#[test]
fn every_kind_of_value_is_read() {
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("a", AMQPValue::ShortShortInt(-1)),
        ("b", AMQPValue::LongUInt(u32::MAX)),
        ("c", AMQPValue::Float(0.5)),
        ("d", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 150 })),
        ("e", AMQPValue::Timestamp(1_700_000_000)),
        ("f", AMQPValue::ByteArray(vec![0xff_u8, 0].into())),
        ("g", AMQPValue::ByteArray(b"text".to_vec().into())),
        ("h", AMQPValue::LongString(vec![0xfe_u8].into())),
        ("i", AMQPValue::Double(f64::NAN)),
        ("j", AMQPValue::Double(2.0)),
    ] {
        headers.insert(name.into(), value);
    }
    let message = read(&BasicProperties::default().with_headers(headers), Vec::new());
    let expect = json!({
        "a": -1, "b": u32::MAX, "c": 0.5, "d": 1.5, "e": 1_700_000_000, "f": "/wA=", "g": "text", "h": "/g==", "i": null, "j": 2.0,
    });
    assert_eq!(serde_json::from_slice::<Value>(&message.headers).unwrap(), expect);
}

#[test]
fn a_message_without_anything_has_empty_headers() {
    assert_eq!(read(&BasicProperties::default(), Vec::new()), with_headers("{}"));
}

#[test]
fn what_is_too_long_is_refused() {
    let long = |length| Some("x".repeat(length));
    let with = |properties| Message { properties, ..Message::default() };
    assert!(write(&with(Properties { correlation_id: long(255), ..Properties::default() })).is_ok());
    let refusal =
        write(&with(Properties { correlation_id: long(256), ..Properties::default() })).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "expected the property `correlation_id` to be at most 255 bytes on AMQP, got 256"
    );
    let headers = format!("{{\"argsrepr\":\"{}\"}}", "x".repeat(120 << 10));
    let refusal = write(&with_headers(headers)).unwrap_err();
    assert!(refusal.to_string().starts_with("expected headers of at most 122880 bytes on AMQP"), "{refusal}");
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".{0,40}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(".{0,60}")
}

proptest! {
    #[test]
    fn messages_come_back(
        headers in prop::collection::btree_map(".{0,60}", json_value(), 0..8),
        correlation_id in text(), reply_to in text(), expiration in text(),
        priority in any::<Option<u8>>(), delivery_mode in any::<Option<u8>>(),
        content_type in ".{0,60}", content_encoding in ".{0,60}", body in any::<Vec<u8>>(),
    ) {
        let headers = Value::Object(headers.into_iter().collect());
        let sent = Message {
            headers: serde_json::to_vec(&headers).unwrap().into(),
            properties: Properties { correlation_id, reply_to, priority, delivery_mode, expiration },
            content_type, content_encoding, body: body.into(),
        };
        let came = read(&write(&sent).unwrap(), sent.body.to_vec());
        prop_assert_eq!(serde_json::from_slice::<Value>(&came.headers).unwrap(), headers);
        prop_assert_eq!(Message { headers: Bytes::new(), ..came }, Message { headers: Bytes::new(), ..sent });
    }

    #[test]
    fn any_bytes_as_headers_come_back(headers in any::<Vec<u8>>()) {
        let came = read(&write(&with_headers(headers.clone())).unwrap(), Vec::new()).headers;
        match serde_json::from_slice::<serde_json::Map<String, Value>>(&headers) {
            Ok(fields) => prop_assert_eq!(serde_json::from_slice::<serde_json::Map<String, Value>>(&came).unwrap(), fields),
            Err(_) if headers.is_empty() => prop_assert_eq!(&came[..], b"{}"),
            Err(_) => prop_assert_eq!(&came[..], &headers[..]),
        }
    }
}
