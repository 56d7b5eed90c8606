//! Names of keys by what they begin with.

use rwork_protocol::service::Error;

use crate::link::Wire;
use crate::reply;

/// Keys looked at by one step: a millisecond of the server's time.
const STEP_KEYS: usize = 5000;

/// Tells of every key that matches a pattern, until it is told to stop; a key may come twice.
pub(crate) async fn scan(
    wire: &Wire,
    act: &str,
    pattern: &str,
    mut each_page: impl FnMut(Vec<String>) -> bool,
) -> Result<(), Error> {
    let mut cursor = "0".to_owned();
    loop {
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP_KEYS);
        let page = wire.command(act, &cmd).await?;
        let read = || {
            let mut parts = reply::list(page)?.into_iter();
            Some((reply::text(parts.next()?)?, reply::texts(parts.next()?)))
        };
        let (next, keys) = read().ok_or_else(|| reply::odd(&wire.url, act, "a page of keys"))?;
        if !each_page(keys) || next == "0" {
            return Ok(());
        }
        cursor = next;
    }
}

/// A text as a pattern that matches itself.
pub(crate) fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_matches_only_itself() {
        for (prefix, pattern) in [("pfx:", "pfx:"), ("a*b?[c]", "a\\*b\\?\\[c\\]"), ("\\", "\\\\")] {
            assert_eq!(literal(prefix), pattern);
        }
    }
}
