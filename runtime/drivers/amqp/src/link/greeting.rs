//! What a server says of itself when we enter, in the first frame of a connection, which the client library keeps to itself.

use lapin::protocol::connection::parse_start;
use lapin::types::{AMQPValue, FieldTable};

/// Of a frame: its type, a channel and a size. Of a method: its class and its number.
const FRAME_HEAD: usize = 7;
const METHOD_HEAD: usize = 4;
/// `connection.start`
const START: [u8; METHOD_HEAD] = [0, 10, 0, 10];

/// What a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting {
    /// `RabbitMQ`
    pub(crate) product: Option<String>,
    /// `3.10.8`
    pub(crate) version: Option<String>,
    /// `rabbit@host`
    pub(crate) cluster: Option<String>,
}

impl Greeting {
    /// From a connection's first bytes.
    pub(super) fn read(first: &[u8]) -> Self {
        let method = first.get(FRAME_HEAD..).and_then(|frame| frame.strip_prefix(&START));
        let Some((_, start)) = method.and_then(|arguments| parse_start(arguments).ok()) else {
            return Self::default();
        };
        let text = |name: &str| text(&start.server_properties, name);
        Self { product: text("product"), version: text("version"), cluster: text("cluster_name") }
    }
}

fn text(properties: &FieldTable, name: &str) -> Option<String> {
    match properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As RabbitMQ 3.10.8 sends it, shortened.
    const RABBIT: &[u8] = b"\x01\x00\x00\x00\x00\x00\x58\x00\x0a\x00\x0a\x00\x09\x00\x00\x00\x33\
        \x07productS\x00\x00\x00\x08RabbitMQ\x07versionS\x00\x00\x00\x063.10.8\x09copyright\x56\
        \x00\x00\x00\x0ePLAIN AMQPLAIN\x00\x00\x00\x05en_US\xce";

    #[test]
    fn a_server_says_what_it_is() {
        let greeting = Greeting::read(RABBIT);
        let expect = Greeting {
            product: Some("RabbitMQ".to_owned()),
            version: Some("3.10.8".to_owned()),
            cluster: None,
        };
        assert_eq!(greeting, expect);
        for strange in [&b""[..], b"AMQP\x00\x00\x09\x01", &RABBIT[..40]] {
            assert_eq!(Greeting::read(strange), Greeting::default());
        }
    }
}
