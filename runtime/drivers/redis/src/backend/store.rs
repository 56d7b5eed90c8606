//! Storing: one script call for many records, each written with its expiry and told to whoever waits in one step.

use bytes::Bytes;
use redis::Value;
use rwork_backend::{Error, Store, Stored};
use rwork_protocol::{State, stored};
use tokio::time::Instant;

use crate::error;
use crate::handle::Inner;
use crate::link::Script;

/// Records stored by one call, so that no call stops the server for long.
const CALL_RECORDS_MAX: usize = 256;
/// The same in bytes; a single record may be larger.
const CALL_BYTES_MAX: usize = 4 << 20;
/// How often a value that changes under our eyes is looked at again; somebody else writes it, and one more write comes.
const LOOKS_MAX: usize = 5;
/// About 100 years: Redis refuses times that overflow its clock.
const EXPIRY_MS_MAX: u128 = 1 << 42;

static STORE: Script = Script::new(concat!(include_str!("record.lua"), include_str!("store.lua")));

/// A record on its way.
#[derive(Debug)]
struct Entry {
    key: String,
    value: Bytes,
    /// Whether it is a ready state's, which somebody may wait for.
    is_ready: bool,
    /// True for a success, which is never too late.
    is_final: bool,
    expiry_ms: Option<u64>,
    /// What stood there when it was looked at, and was no success.
    seen: Option<Bytes>,
    became: Option<Result<Stored, Full>>,
}

/// There is no room for a record.
#[derive(Debug)]
struct Full;

/// Stores a batch in order, what is no success before `moment`; what there is no room for keeps nothing else from being
/// stored.
pub(super) async fn store(
    inner: &Inner,
    batch: &[Store],
    moment: Option<Instant>,
) -> Result<Vec<Stored>, Error> {
    let mut entries = batch.iter().map(|store| entry(inner, store)).collect::<Result<Vec<_>, _>>()?;
    let mut rest = entries.as_mut_slice();
    while !rest.is_empty() {
        let (call, others) = rest.split_at_mut(call_length(rest));
        settle(inner, call, moment).await?;
        rest = others;
    }
    let became = |entry: Entry| entry.became.unwrap_or(Ok(Stored::Kept));
    entries.into_iter().map(became).collect::<Result<_, Full>>().map_err(|Full| error::full(&inner.url))
}

fn entry(inner: &Inner, store: &Store) -> Result<Entry, Error> {
    let value = store.record.encode();
    let (limit, size) = (inner.options.record_bytes_max, value.len());
    if size > limit {
        return Err(Error::TooLarge { limit, size });
    }
    Ok(Entry {
        key: inner.result_keys.record(&store.record.task_id),
        value,
        is_ready: store.record.status.is_ready(),
        is_final: store.record.status == State::Success,
        expiry_ms: expiry_ms(store),
        seen: None,
        became: None,
    })
}

/// How long a record lives.
pub(crate) fn expiry_ms(store: &Store) -> Option<u64> {
    let milliseconds = |expires: std::time::Duration| expires.as_millis().clamp(1, EXPIRY_MS_MAX);
    store.expires.and_then(|expires| u64::try_from(milliseconds(expires)).ok())
}

fn call_length(entries: &[Entry]) -> usize {
    let mut bytes = 0;
    let fitting = entries.iter().take(CALL_RECORDS_MAX).take_while(|entry| {
        bytes += entry.value.len();
        bytes <= CALL_BYTES_MAX
    });
    fitting.count().max(1)
}

/// Calls until each record is written, or a success stands in its place.
async fn settle(inner: &Inner, entries: &mut [Entry], moment: Option<Instant>) -> Result<(), Error> {
    for look in 0.. {
        let mut open: Vec<&mut Entry> = entries.iter_mut().filter(|entry| entry.became.is_none()).collect();
        if open.is_empty() || look == LOOKS_MAX {
            break;
        }
        let answers = call(inner, &open, moment).await?;
        let unheard =
            open.iter_mut().zip(answers).filter_map(|(entry, answer)| entry.answered(inner, answer));
        inner.late.note(unheard);
    }
    Ok(())
}

impl Entry {
    /// Takes the script's answer in. Returns the channel of a ready record that nobody has heard of.
    fn answered(&mut self, inner: &Inner, answer: Value) -> Option<String> {
        match answer {
            Value::Int(told @ 1..) => {
                self.became = Some(Ok(Stored::Written));
                if told == 3 {
                    inner.late.warn_of_refusal();
                }
                return (told == 2 && self.is_ready).then(|| self.key.clone());
            }
            Value::BulkString(current) => {
                let current = Bytes::from(current);
                self.became = stored::is_success(&current).then_some(Ok(Stored::Kept));
                self.seen = Some(current);
            }
            Value::Int(-2) => {
                inner.clock.doubt();
                self.became = Some(Ok(Stored::Late));
            }
            Value::Int(i64::MIN..=-1) => self.became = Some(Err(Full)),
            _ => self.became = Some(Ok(Stored::Kept)),
        }
        None
    }
}

async fn call(inner: &Inner, entries: &[&mut Entry], moment: Option<Instant>) -> Result<Vec<Value>, Error> {
    let moment = match moment {
        Some(moment) => inner.clock.at(&inner.commands, moment).await?.to_string(),
        None => String::new(),
    };
    let keys: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    let mut call = STORE.call(&keys);
    for entry in entries {
        call.arg(&entry.value[..]);
        match entry.expiry_ms {
            Some(expiry) => call.arg(expiry),
            None => call.arg(""),
        };
        match &entry.seen {
            Some(seen) => call.arg("1").arg(&seen[..]),
            None => call.arg("").arg(""),
        };
        call.arg(if entry.is_final { "" } else { &moment });
    }
    let answer = inner.commands.script("store results", &call).await?;
    Ok(answer.into_sequence().unwrap_or_default())
}
