//! Half characters: Python writes a lone surrogate as `"\ud800"`, which is no text anywhere else.

use bytes::Bytes;

/// The same text with `\ufffd` for each escape that is half of a surrogate pair; `None` when there is none. No byte moves.
pub fn without_lone_surrogates(text: &Bytes) -> Option<Bytes> {
    let mut repaired = None;
    let mut place = 0;
    while let Some(found) = memchr::memchr(b'\\', text.get(place..).unwrap_or_default()) {
        let at = place + found;
        place = match escape(text, at) {
            Escape::Lone => {
                let out = repaired.get_or_insert_with(|| text.to_vec());
                if let Some(digits) = out.get_mut(at + 2..at + 6) {
                    digits.copy_from_slice(b"fffd");
                }
                at + 6
            }
            Escape::Pair => at + 12,
            Escape::Other => at + 2,
        };
    }
    repaired.map(Bytes::from)
}

enum Escape {
    /// Both halves of a pair.
    Pair,
    /// One half.
    Lone,
    /// Anything else.
    Other,
}

fn escape(text: &[u8], at: usize) -> Escape {
    match unit(text, at) {
        Some(0xd800..=0xdbff) if matches!(unit(text, at + 6), Some(0xdc00..=0xdfff)) => Escape::Pair,
        Some(0xd800..=0xdfff) => Escape::Lone,
        _ => Escape::Other,
    }
}

/// The number in an escape `\uXXXX` that begins here.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_halves_are_replaced() {
        for (text, repaired) in [
            (r#""\ud800""#, Some(r#""\ufffd""#)),
            (r#"["\udc00\ud83d\ude00", "\uD800x"]"#, Some(r#"["\ufffd\ud83d\ude00", "\ufffdx"]"#)),
            (r#""\ud83d\ud83d\ude00""#, Some(r#""\ufffd\ud83d\ude00""#)),
            (r#""\\ud800\u00e9""#, None),
            (r#""\\\ud800""#, Some(r#""\\\ufffd""#)),
            (r#""\ud8""#, None),
            ("\"\\", None),
            ("", None),
        ] {
            let found = without_lone_surrogates(&Bytes::copy_from_slice(text.as_bytes()));
            assert_eq!(found.as_deref(), repaired.map(str::as_bytes), "{text}");
        }
    }
}
