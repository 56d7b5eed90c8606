//! Text of guests, made safe for logs and terminals.

use std::borrow::Cow;
use std::fmt::Write;

/// Writes out what could move a cursor, colour a terminal or fake a line: control characters except the tab, and the
/// marks that turn the direction of text. Borrows what is clean, which is nearly everything.
pub(crate) fn neutralise(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_active(character) {
            // Writing to a string does not fail.
            let _ = write!(safe, "\\u{{{:x}}}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn is_active(character: char) -> bool {
    (character.is_control() && character != '\t')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// The longest start of `text` that fits in so many bytes and ends between characters.
pub(crate) fn truncate(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Neutral, line by line, and no longer than so many bytes.
pub(crate) fn neutralise_lines(text: &str, bytes_max: usize) -> String {
    let lines: Vec<_> = truncate(text, bytes_max).lines().map(neutralise).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_written_out() {
        for (input, expect) in [
            ("plain\ttext", "plain\ttext"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\r\nb", "a\\u{d}\\u{a}b"),
            ("\u{202e}evil", "\\u{202e}evil"),
            ("\u{9b}0m", "\\u{9b}0m"),
            ("grüße 你好", "grüße 你好"),
        ] {
            assert_eq!(neutralise(input), expect);
        }
    }

    #[test]
    fn truncation_ends_between_characters() {
        for (input, bytes_max, expect) in [("abc", 5, "abc"), ("abc", 2, "ab"), ("aé", 2, "a"), ("é", 0, "")]
        {
            assert_eq!(truncate(input, bytes_max), expect);
        }
    }
}
