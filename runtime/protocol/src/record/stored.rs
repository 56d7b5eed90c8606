//! Stored bytes and what they say: written by any Celery worker, with any serializer, compressed or not.

use crate::service::BoxError;
use crate::{Record, State, decompress_stored, is_compressed};
use bytes::Bytes;

/// A record that needs more room than this was not written by a result of any use; it could take all our memory.
const PLAIN_BYTES_MAX: usize = 256 << 20;
/// How Celery's JSON records begin.
const BEGIN: &[u8] = b"{\"status\": \"";
/// Bytes that serializers put between the key `status` and its value.
const BETWEEN_MAX: usize = 8;

/// Reads a record.
///
/// # Errors
/// When it can't be decompressed, or is not JSON.
pub fn read(stored: Bytes) -> Result<Record, BoxError> {
    let plain = if is_compressed(&stored) { decompress_stored(&stored, PLAIN_BYTES_MAX)? } else { stored };
    Ok(Record::decode(&plain)?)
}

/// Whether what stands there is a success, which is final. What can't be decoded (another `result_serializer`) is looked
/// through for its status.
pub fn is_success(stored: &Bytes) -> bool {
    let plain = if is_compressed(stored) {
        match decompress_stored(stored, PLAIN_BYTES_MAX) {
            Ok(plain) => plain,
            Err(_) => return false,
        }
    } else {
        stored.clone()
    };
    match Record::decode(&plain) {
        Ok(record) => record.status == State::Success,
        Err(_) => says_success(&plain),
    }
}

/// msgpack: `a6 "status" a7 "SUCCESS"`; YAML: `status: SUCCESS`; pickle: `"status" 94 8c 07 "SUCCESS"`.
fn says_success(plain: &[u8]) -> bool {
    let (key, value) = (b"status".as_slice(), b"SUCCESS".as_slice());
    plain.windows(key.len()).enumerate().filter(|(_, window)| *window == key).any(|(at, _)| {
        let after = plain.get(at + key.len()..).unwrap_or_default();
        let near = after.get(..BETWEEN_MAX + value.len()).unwrap_or(after);
        near.windows(value.len()).any(|window| window == value)
    })
}

/// Whether these bytes are certainly a ready state's: such are never hidden by what comes later.
pub fn is_surely_ready(stored: &[u8]) -> bool {
    stored.strip_prefix(BEGIN).is_some_and(|rest| {
        [b"SUCCESS\"".as_slice(), b"FAILURE\"", b"REVOKED\""].iter().any(|state| rest.starts_with(state))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_found_in_every_serializer() {
        for (stored, expect) in [
            (b"{\"status\": \"SUCCESS\", \"result\": 1, \"task_id\": \"i\"}".as_slice(), true),
            (b"{\"result\": 1, \"status\":\"SUCCESS\", \"task_id\": \"i\"}", true),
            (b"{\"status\": \"PROGRESS\", \"result\": {\"status\": \"SUCCESS\"}, \"task_id\": \"i\"}", false),
            (b"{\"status\": \"SUCCESSFUL\", \"result\": null, \"task_id\": \"i\"}", false),
            (b"\x87\xa6status\xa7SUCCESS\xa6result\x05", true),
            (b"\x87\xa6status\xa7FAILURE\xa6result\x05", false),
            (b"children: []\nstatus: SUCCESS\n", true),
            (b"\x80\x04\x95}\x94(\x8c\x06status\x94\x8c\x07SUCCESS\x94", true),
            (b"status", false),
            (b"", false),
        ] {
            assert_eq!(is_success(&Bytes::from_static(stored)), expect, "{}", stored.escape_ascii());
        }
    }

    #[test]
    fn a_ready_state_is_known_by_its_first_bytes() {
        for (stored, expect) in [
            (b"{\"status\": \"REVOKED\", ".as_slice(), true),
            (b"{\"status\": \"SUCCESS", false),
            (b"{\"status\": \"SUCCESSFUL\"", false),
            (b"{\"status\": \"STARTED\", ", false),
        ] {
            assert_eq!(is_surely_ready(stored), expect, "{}", stored.escape_ascii());
        }
    }
}
