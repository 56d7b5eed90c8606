//! Ends of requests and answers, in Redis' protocol (RESP2 and RESP3) and in AMQP's frames.

/// What AMQP's clients say first.
const AMQP_HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";
/// Type, channel and size before an AMQP frame's payload.
const AMQP_FRAME: usize = 7;
/// Commands that are answered by pushes, or not at all.
const UNANSWERED: [&[u8]; 4] = [b"SUBSCRIBE", b"UNSUBSCRIBE", b"PSUBSCRIBE", b"PUNSUBSCRIBE"];

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// One answer to each request, in order.
    Redis,
    /// Frames, of which no answer is known to belong to a request.
    Amqp,
    /// Something else, encrypted perhaps: handed on as it comes.
    Opaque,
}

/// Reach of a request or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// It ends after so many bytes.
    Whole(usize),
    /// More must come.
    Open,
    /// It is none of this protocol.
    Foreign,
}

impl Wire {
    /// The protocol, by a client's first bytes.
    pub(super) fn of(first: &[u8]) -> Self {
        match first.first() {
            Some(b'*') => Self::Redis,
            Some(b'A') if AMQP_HEADER.starts_with(first) || first.starts_with(AMQP_HEADER) => Self::Amqp,
            _ => Self::Opaque,
        }
    }

    /// The end of the first request in these bytes.
    pub(super) fn request(self, bytes: &[u8]) -> Part {
        match self {
            Self::Redis => value(bytes),
            Self::Amqp if bytes.starts_with(AMQP_HEADER) => Part::Whole(AMQP_HEADER.len()),
            Self::Amqp if AMQP_HEADER.starts_with(bytes) => Part::Open,
            Self::Amqp => frame(bytes),
            Self::Opaque => Part::Foreign,
        }
    }

    /// The end of the first answer in these bytes.
    pub(super) fn answer(self, bytes: &[u8]) -> Part {
        match self {
            Self::Redis => value(bytes),
            Self::Amqp => frame(bytes),
            Self::Opaque => Part::Foreign,
        }
    }

    /// True when this request has one answer of its own.
    pub(super) fn is_answered(self, request: &[u8]) -> bool {
        let name = request.split(|byte| *byte == b'\n').nth(2).unwrap_or_default();
        let name = name.strip_suffix(b"\r").unwrap_or(name).to_ascii_uppercase();
        self == Self::Redis && !UNANSWERED.contains(&name.as_slice())
    }

    /// True when a server sends this unasked.
    pub(super) fn is_push(self, answer: &[u8]) -> bool {
        self == Self::Redis && answer.first() == Some(&b'>')
    }
}

fn frame(bytes: &[u8]) -> Part {
    let Some(size) = bytes.get(3..AMQP_FRAME) else { return Part::Open };
    let size: usize = size.iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    whole(bytes, AMQP_FRAME + size + 1)
}

fn whole(bytes: &[u8], end: usize) -> Part {
    if bytes.len() < end { Part::Open } else { Part::Whole(end) }
}

/// One value of RESP: `*1\r\n$4\r\nPING\r\n`, `+OK\r\n`, `>2\r\n…`.
fn value(bytes: &[u8]) -> Part {
    let Some(kind) = bytes.first() else { return Part::Open };
    let Some(line) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Part::Open };
    let count = bytes.get(1..line).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<i64>().ok());
    let count = |times: usize| count.map(|count| usize::try_from(count).unwrap_or(0) * times);
    let head = line + 2;
    match (kind, count(1)) {
        (b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(', _) => Part::Whole(head),
        // `$-1`: none.
        (b'$', Some(0)) if bytes.get(1) == Some(&b'-') => Part::Whole(head),
        (b'$' | b'=' | b'!', Some(length)) => whole(bytes, head + length + 2),
        (b'*' | b'~' | b'>', Some(count)) => values(bytes, head, count),
        (b'%', Some(_)) => values(bytes, head, count(2).unwrap_or(0)),
        // An attribute comes before the value that it belongs to.
        (b'|', Some(_)) => values(bytes, head, count(2).unwrap_or(0) + 1),
        _ => Part::Foreign,
    }
}

fn values(bytes: &[u8], mut end: usize, count: usize) -> Part {
    for _ in 0..count {
        match value(bytes.get(end..).unwrap_or_default()) {
            Part::Whole(length) => end += length,
            other => return other,
        }
    }
    Part::Whole(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_should() {
        for text in [
            "+OK\r\n",
            "-ERR no\r\n",
            ":12\r\n",
            "$3\r\na\r\n\r\n",
            "$0\r\n\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
            "%1\r\n+a\r\n#t\r\n",
            "|1\r\n+a\r\n+b\r\n_\r\n",
            "=7\r\ntxt:a\nb\r\n",
        ] {
            let whole = Part::Whole(text.len());
            assert_eq!(value(text.as_bytes()), whole, "{text:?}");
            assert_eq!(value(format!("{text}+OK\r\n").as_bytes()), whole, "{text:?} and more");
            for end in 0..text.len() {
                assert_eq!(value(&text.as_bytes()[..end]), Part::Open, "{end} bytes of {text:?}");
            }
        }
        assert_eq!(value(b"PING\r\n"), Part::Foreign);
    }

    #[test]
    fn commands_are_told_apart_by_their_answers() {
        let redis = Wire::of(b"*1\r\n");
        assert!(redis.is_answered(b"*1\r\n$4\r\nPING\r\n"));
        assert!(!redis.is_answered(b"*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n"));
        assert!(redis.is_push(b">1\r\n+a\r\n") && !redis.is_push(b"+OK\r\n"));
    }

    #[test]
    fn frames_end_where_they_should() {
        let amqp = Wire::of(b"AMQP\x00\x00\x09\x01");
        assert_eq!(amqp, Wire::Amqp);
        assert_eq!(amqp.request(b"AMQP\x00\x00\x09\x01more"), Part::Whole(8));
        assert_eq!(amqp.request(b"AMQP"), Part::Open);
        let heartbeat = b"\x08\x00\x00\x00\x00\x00\x00\xce";
        assert_eq!(amqp.answer(heartbeat), Part::Whole(8));
        assert_eq!(amqp.answer(b"\x01\x00\x01\x00\x00\x00\x02ab\xce\x08"), Part::Whole(10));
        assert_eq!(amqp.answer(&heartbeat[..7]), Part::Open);
    }
}
