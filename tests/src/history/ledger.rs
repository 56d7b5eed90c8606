//! The server's own account: every write that a Redis did, read from its append-only file, says where each message went.
//!
//! What it is for: kombu takes a message out of its list by `BRPOP` and notes it in `unacked` by a second command. A worker
//! of Celery's that is killed between the two, or loses its server there, has lost the message, and no other worker can know
//! of it. That is told from a loss of rwork's here and not by guessing: the account shows the bare pop (rwork's has a count
//! and notes what it took in the same step), and that the message was put nowhere after it.
//!
//! The file must be whole: the server runs with `auto-aof-rewrite-percentage 0`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// The longest value that a server may hold, 512 MB: past it a file is no append-only file.
const VALUE_BYTES_MAX: usize = 512 << 20;

/// Ids of the tasks whose message was popped by kombu and never noted, in the account of the server that runs in this
/// directory, with the default keys in database 0.
///
/// # Errors
/// When the account can't be read.
pub fn dropped_by_kombu(directory: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut ledger = Ledger::default();
    for path in files(&directory.join("appendonlydir"))? {
        let shown = path.display();
        let file = std::fs::File::open(&path).with_context(|| format!("failed to open {shown}"))?;
        ledger.read(BufReader::new(file)).with_context(|| format!("failed to read {shown}"))?;
    }
    Ok(ledger.in_nobodys_hands)
}

/// The increments, in order. A base that is written at the start is empty.
fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("failed to list {}", directory.display()))?
    {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // `appendonly.aof.1.incr.aof`
        let Some(name) = name.strip_suffix(".incr.aof") else { continue };
        let number: u64 = name.rsplit('.').next().unwrap_or_default().parse()?;
        found.push((number, path));
    }
    anyhow::ensure!(
        found.len() == 1,
        "expected one increment that was never rewritten, found {}",
        found.len()
    );
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Where messages are, by their tasks' ids.
#[derive(Debug, Default)]
struct Ledger {
    lists: HashMap<Vec<u8>, VecDeque<String>>,
    /// Popped without a count, and put nowhere since.
    in_nobodys_hands: BTreeSet<String>,
}

impl Ledger {
    fn read(&mut self, mut account: impl BufRead) -> anyhow::Result<()> {
        while let Some(command) = command(&mut account)? {
            self.apply(&command)?;
        }
        Ok(())
    }

    fn apply(&mut self, command: &[Vec<u8>]) -> anyhow::Result<()> {
        let Some((name, arguments)) = command.split_first() else { return Ok(()) };
        match (name.to_ascii_uppercase().as_slice(), arguments) {
            (b"LPUSH", [list, values @ ..]) => {
                for value in values {
                    if let Some(id) = self.found(value) {
                        self.lists.entry(list.clone()).or_default().push_front(id);
                    }
                }
            }
            (b"RPUSH", [list, values @ ..]) => {
                for value in values {
                    if let Some(id) = self.found(value) {
                        self.lists.entry(list.clone()).or_default().push_back(id);
                    }
                }
            }
            (b"RPOP", [list]) => {
                if let Some(id) = self.lists.get_mut(list).and_then(VecDeque::pop_back) {
                    self.in_nobodys_hands.insert(id);
                }
            }
            (b"RPOP", [list, count]) => {
                let count: usize = std::str::from_utf8(count)?.parse()?;
                if let Some(list) = self.lists.get_mut(list) {
                    list.truncate(list.len().saturating_sub(count));
                }
            }
            (b"LMOVE", [from, to, out, into]) => {
                let from = self.lists.entry(from.clone()).or_default();
                let moved = if out == b"LEFT" { from.pop_front() } else { from.pop_back() };
                let to = self.lists.entry(to.clone()).or_default();
                match (moved, into.as_slice()) {
                    (Some(id), b"LEFT") => to.push_front(id),
                    (Some(id), _) => to.push_back(id),
                    (None, _) => {}
                }
            }
            (b"HSET", [_, fields @ ..]) => {
                for pair in fields.chunks_exact(2) {
                    pair.last().and_then(|value| self.found(value));
                }
            }
            (b"DEL" | b"UNLINK", keys) => keys.iter().for_each(|key| _ = self.lists.remove(key)),
            (b"RENAME" | b"LPOP" | b"LREM" | b"LTRIM" | b"LSET" | b"LINSERT" | b"RPOPLPUSH", _) => {
                anyhow::bail!("`{}` is no command that queues are served with", String::from_utf8_lossy(name))
            }
            _ => {}
        }
        Ok(())
    }

    /// The id of the message in this value, which is in somebody's hands again. None: it is no message.
    fn found(&mut self, value: &[u8]) -> Option<String> {
        let id = id(value)?;
        self.in_nobodys_hands.remove(&id);
        Some(id)
    }
}

#[derive(Deserialize)]
struct Envelope {
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    correlation_id: String,
}

/// Of an envelope in a list, or of `[envelope, exchange, routing key]` in `unacked`.
fn id(value: &[u8]) -> Option<String> {
    let envelope = match value.first()? {
        b'{' => serde_json::from_slice(value),
        b'[' => serde_json::from_slice(value).map(|(envelope, _, _): (Envelope, String, String)| envelope),
        _ => return None,
    };
    Some(envelope.ok()?.properties.correlation_id)
}

/// `*2\r\n$4\r\nRPOP\r\n$6\r\ncelery\r\n`. None: the end, or a command that a kill has cut.
fn command(account: &mut impl BufRead) -> anyhow::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = number(account, b'*')? else { return Ok(None) };
    let mut words = Vec::with_capacity(count.min(1_000));
    for _ in 0..count {
        let Some(length) = number(account, b'$')? else { return Ok(None) };
        anyhow::ensure!(length <= VALUE_BYTES_MAX, "a value of {length} bytes");
        let mut word = vec![0; length + 2];
        if account.read_exact(&mut word).is_err() {
            return Ok(None);
        }
        anyhow::ensure!(word.ends_with(b"\r\n"), "a value that does not end where it should");
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

fn number(account: &mut impl BufRead, sign: u8) -> anyhow::Result<Option<usize>> {
    let mut line = Vec::new();
    account.take(32).read_until(b'\n', &mut line)?;
    let Some(line) = line.strip_suffix(b"\r\n") else { return Ok(None) };
    let digits = line.strip_prefix(&[sign]).context("a line that is none of an append-only file")?;
    Ok(Some(std::str::from_utf8(digits)?.parse()?))
}

#[cfg(test)]
mod tests;
