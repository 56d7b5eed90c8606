//! A message as columns, and back, byte for byte.

use bytes::Bytes;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Row, Statement};
use rwork_protocol::{InvalidName, Message, Properties, QueueName, TaskId};

/// The columns that hold a message, in the order of [`bind`] and [`read`].
macro_rules! columns {
    () => {
        "headers, content_type, content_encoding, correlation_id, reply_to, priority, delivery_mode, expiration, body"
    };
}
pub(crate) use columns;

/// Lowest and last priority: `msg.prio` is 0 to this.
const PRIORITY_LAST: u8 = 9;

/// Where a message stands in its queue: 0 first, as Celery on Redis; without a priority it stands with 0.
pub(crate) fn rank(message: &Message) -> u8 {
    message.properties.priority.unwrap_or(0).min(PRIORITY_LAST)
}

/// Binds the message's columns from parameter `first` on.
pub(crate) fn bind(statement: &mut Statement<'_>, first: usize, message: &Message) -> rusqlite::Result<()> {
    let Properties { correlation_id, reply_to, priority, delivery_mode, expiration } = &message.properties;
    let values: [&dyn ToSql; 9] = [
        &message.headers.as_ref(),
        &message.content_type,
        &message.content_encoding,
        correlation_id,
        reply_to,
        priority,
        delivery_mode,
        expiration,
        &message.body.as_ref(),
    ];
    for (index, value) in values.iter().enumerate() {
        statement.raw_bind_parameter(first + index, value)?;
    }
    Ok(())
}

/// Reads the message's columns from column `first` on.
pub(crate) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<Message> {
    Ok(Message {
        headers: blob(row, first)?,
        content_type: row.get(first + 1)?,
        content_encoding: row.get(first + 2)?,
        properties: Properties {
            correlation_id: row.get(first + 3)?,
            reply_to: row.get(first + 4)?,
            priority: row.get(first + 5)?,
            delivery_mode: row.get(first + 6)?,
            expiration: row.get(first + 7)?,
        },
        body: blob(row, first + 8)?,
    })
}

pub(crate) fn blob(row: &Row<'_>, index: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::copy_from_slice(row.get_ref(index)?.as_bytes()?))
}

/// Reads a queue's name.
pub(crate) fn queue(row: &Row<'_>, index: usize) -> rusqlite::Result<QueueName> {
    QueueName::new(row.get_ref(index)?.as_str()?).map_err(|error: InvalidName| {
        rusqlite::Error::FromSqlConversionFailure(index, rusqlite::types::Type::Text, Box::new(error))
    })
}

/// A count, which SQLite keeps signed.
pub(crate) fn count(row: &Row<'_>, index: usize) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(index)?).unwrap_or(0))
}

/// A task id as a key: a UUID in its usual form as 16 bytes, which halves the index, anything else as text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Uuid([u8; 16]),
    Text(TaskId),
}

impl Key {
    pub(crate) fn new(id: &TaskId) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        match uuid::Uuid::try_parse(id.as_str()) {
            Ok(uuid) if uuid.hyphenated().encode_lower(&mut buffer) == id.as_str() => {
                Self::Uuid(uuid.into_bytes())
            }
            _ => Self::Text(id.clone()),
        }
    }
}

impl ToSql for Key {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Uuid(bytes) => ValueRef::Blob(bytes),
            Self::Text(id) => ValueRef::Text(id.as_str().as_bytes()),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rusqlite::Connection;

    fn text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of("(?s).{0,20}")
    }

    fn bytes() -> impl Strategy<Value = Bytes> {
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    prop_compose! {
        fn message()(
            headers in bytes(), body in bytes(), content_type in text(), content_encoding in text(),
            correlation_id in text(), reply_to in text(), expiration in text(),
            priority in any::<Option<u8>>(), delivery_mode in any::<Option<u8>>(),
        ) -> Message {
            Message {
                headers, body,
                content_type: content_type.unwrap_or_default(),
                content_encoding: content_encoding.unwrap_or_default(),
                properties: Properties { correlation_id, reply_to, priority, delivery_mode, expiration },
            }
        }
    }

    proptest! {
        #[test]
        fn a_message_survives_its_columns(message in message()) {
            let db = Connection::open_in_memory().unwrap();
            let mut select = db.prepare("SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9").unwrap();
            bind(&mut select, 1, &message).unwrap();
            let mut rows = select.raw_query();
            prop_assert_eq!(read(rows.next().unwrap().unwrap(), 0).unwrap(), message);
        }

        #[test]
        fn distinct_ids_have_distinct_keys(left in "(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[a-z0-9]{1,16}") {
            let upper = left.to_uppercase();
            let keys = [&left, &upper].map(|id| Key::new(&TaskId::new(id).unwrap()));
            prop_assert_eq!(keys[0] == keys[1], left == upper);
        }
    }

    #[test]
    fn ranks_are_clamped_and_nothing_stands_with_zero() {
        for (priority, expected) in [(None, 0), (Some(0), 0), (Some(3), 3), (Some(9), 9), (Some(255), 9)] {
            let properties = Properties { priority, ..Properties::default() };
            assert_eq!(rank(&Message { properties, ..Message::default() }), expected);
        }
    }
}
