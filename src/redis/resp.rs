//! Redis's protocol (RESP2) as bytes: where a reply ends, and what it says.
//!
//! redis-rs's parser takes half of the time of a collection, and collects a reply in memory up to whatever length the
//! peer announces. This one knows limits, and leaves out the fields of entries, of which only the size is needed.

use redis::Value;

/// The longest string of a reply. An entry's field of more is beyond what an exporter should move.
const LONGEST_STRING: usize = 8 << 20;
/// The most items of one list.
const MOST_ITEMS: usize = 1 << 20;
/// The longest line: an error, or a number.
const LONGEST_LINE: usize = 64 << 10;
/// Lists within lists.
const DEEPEST: usize = 8;
/// In a reply that carries entries, lists at this depth are an entry's fields and values.
const DEPTH_OF_FIELDS: usize = 2;

/// Finds the end of a reply, however it is cut into pieces: bytes that were looked at are not looked at again.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    at: usize,
    /// Items that are left in each list that is open, the outermost first.
    open: Vec<usize>,
}

impl Scanner {
    /// The length of the reply at the beginning of the buffer, once all of it is there. The buffer only grows until then.
    ///
    /// # Errors
    /// A sentence, where this is not RESP2, or a length is beyond the limits.
    pub(super) fn end_of_reply(&mut self, buffer: &[u8]) -> Result<Option<usize>, String> {
        loop {
            let Some((kind, line, after)) = line(buffer, self.at)? else { return Ok(None) };
            self.at = match (kind, length(kind, line)?) {
                (b'*', Some(items)) if items > 0 => {
                    if self.open.len() == DEEPEST {
                        return Err("a reply has too many lists within lists".to_owned());
                    }
                    self.open.push(items);
                    after
                    // The list itself is complete with its last item.
                }
                (b'$', Some(bytes)) if buffer.len() < after + bytes + 2 => return Ok(None),
                (kind, length) => {
                    let end = if kind == b'$' { length.map_or(after, |bytes| after + bytes + 2) } else { after };
                    if self.complete_item() {
                        *self = Self::default();
                        return Ok(Some(end));
                    }
                    end
                }
            };
        }
    }

    /// True where the item was the last one of the reply.
    fn complete_item(&mut self) -> bool {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return false;
            }
            self.open.pop();
        }
        true
    }
}

/// A line: its type, the rest of it, and where the next one begins.
type Line<'a> = (u8, &'a [u8], usize);

/// The line that begins here, if its end is there.
fn line(buffer: &[u8], at: usize) -> Result<Option<Line<'_>>, String> {
    let Some((kind, rest)) = buffer.get(at..).and_then(<[u8]>::split_first) else { return Ok(None) };
    if !b"+-:$*".contains(kind) {
        return Err(format!("a reply begins with byte {kind}, which is not Redis's protocol"));
    }
    match rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') {
        Some(end) => {
            let line = rest.get(..end).unwrap_or_default();
            Ok(Some((*kind, line.strip_suffix(b"\r").unwrap_or(line), at + end + 2)))
        }
        None if rest.len() >= LONGEST_LINE => Err(format!("a line of a reply is longer than {LONGEST_LINE} bytes")),
        None => Ok(None),
    }
}

/// The length that a string or a list announces; `None` for null, and for what has no length.
fn length(kind: u8, line: &[u8]) -> Result<Option<usize>, String> {
    let most = match kind {
        b'$' => LONGEST_STRING,
        b'*' => MOST_ITEMS,
        _ => return Ok(None),
    };
    match number(line) {
        Some(-1) => Ok(None),
        Some(length) => match usize::try_from(length) {
            Ok(length) if length <= most => Ok(Some(length)),
            _ => Err(format!("a reply announces a length of {length}, more than {most}")),
        },
        None => Err(format!("a reply announces a length that is no number, or more than {most}")),
    }
}

fn number(line: &[u8]) -> Option<i64> {
    std::str::from_utf8(line).ok()?.parse().ok()
}

/// Reads one complete reply, whose end a [`Scanner`] has found. Where the reply carries entries, an entry's fields are
/// replaced by the number of their bytes.
///
/// # Errors
/// A sentence, where this is not RESP2.
pub(super) fn decode(reply: &[u8], carries_entries: bool) -> Result<Value, String> {
    Decoder { reply, at: 0, carries_entries }.value(0)
}

struct Decoder<'a> {
    reply: &'a [u8],
    at: usize,
    carries_entries: bool,
}

impl Decoder<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, String> {
        let begin = self.at;
        let (kind, line, after) = line(self.reply, self.at)?.ok_or("a reply is incomplete")?;
        self.at = after;
        match kind {
            b'$' => Ok(length(kind, line)?.map_or(Value::Nil, |bytes| Value::BulkString(self.string(bytes).to_vec()))),
            b':' => number(line).map(Value::Int).ok_or_else(|| "a reply has an integer that is none".to_owned()),
            b'*' => match length(kind, line)? {
                None => Ok(Value::Nil),
                Some(items) if self.carries_entries && depth == DEPTH_OF_FIELDS => self.size(items),
                Some(items) => (0..items).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Value::Array),
            },
            b'+' if line == b"OK" => Ok(Value::Okay),
            b'+' => Ok(Value::SimpleString(String::from_utf8_lossy(line).into_owned())),
            // An error, as redis-rs reads it.
            _ => redis::parse_redis_value(self.reply.get(begin..after).unwrap_or_default())
                .map_err(|_| "a reply has an error that cannot be read".to_owned()),
        }
    }

    fn string(&mut self, bytes: usize) -> &[u8] {
        let begin = self.at;
        self.at += bytes + 2;
        self.reply.get(begin..begin + bytes).unwrap_or_default()
    }

    /// How many bytes the strings of a list have.
    fn size(&mut self, items: usize) -> Result<Value, String> {
        let mut size = 0;
        for _ in 0..items {
            let (kind, line, after) = line(self.reply, self.at)?.ok_or("a reply is incomplete")?;
            let bytes = if kind == b'$' { length(kind, line)? } else { None };
            self.at = bytes.map_or(after, |bytes| after + bytes + 2);
            size += bytes.unwrap_or(0);
        }
        Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
    }
}

/// Reads replies that arrive in pieces of this size, and says why it ended early.
#[cfg(any(test, fuzzing))]
pub(super) fn read_in_pieces(bytes: &[u8], piece: usize, carries_entries: bool) -> (Vec<Value>, Result<(), String>) {
    let (mut buffer, mut scanner, mut replies) = (Vec::new(), Scanner::default(), Vec::new());
    let mut read = |piece: &[u8]| {
        buffer.extend_from_slice(piece);
        while let Some(end) = scanner.end_of_reply(&buffer)? {
            replies.push(decode(buffer.get(..end).unwrap_or_default(), carries_entries)?);
            buffer.drain(..end);
        }
        Ok(())
    };
    let ended = bytes.chunks(piece).try_for_each(&mut read);
    (replies, ended)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::ServerErrorKind;

    use super::*;

    /// Reads replies that arrive in pieces of this size.
    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Value>, String> {
        let (replies, ended) = read_in_pieces(bytes, piece, false);
        ended.map(|()| replies)
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn replies_are_read_in_pieces_of_any_size() {
        let bytes = b"+OK\r\n+PONG\r\n:-5\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n*3\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n*1\r\n$1\r\nb\r\n$-1\r\n";
        let nested = Value::Array(vec![Value::Int(1), Value::Array(vec![text("b")])]);
        let expected = [
            Value::Okay,
            Value::SimpleString("PONG".into()),
            Value::Int(-5),
            Value::Nil,
            Value::Nil,
            Value::Array(vec![]),
            text(""),
            Value::Array(vec![text("a\r\n"), nested, Value::Nil]),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(read(bytes, piece).as_deref(), Ok(&expected[..]), "{piece}");
        }
    }

    #[test]
    fn an_error_is_read_as_redis_rs_reads_it() {
        let replies = read(b"-NOPERM no\r\n-LOADING Redis is loading\r\n-ODD thing\r\n", 7).unwrap();
        let code = |reply: &Value| match reply {
            Value::ServerError(error) => (error.kind(), error.code().to_owned()),
            reply => panic!("{reply:?}"),
        };
        assert_eq!(code(&replies[0]).0, Some(ServerErrorKind::NoPerm));
        assert_eq!(code(&replies[1]).0, Some(ServerErrorKind::BusyLoading));
        assert_eq!(code(&replies[2]).1, "ODD");
    }

    #[test]
    fn the_fields_of_an_entry_are_measured_and_left_out() {
        let reply = b"*2\r\n$11\r\nfirst-entry\r\n*2\r\n$3\r\n7-0\r\n*4\r\n$1\r\na\r\n$3\r\nbcd\r\n$-1\r\n$2\r\nef\r\n";
        assert_eq!(Scanner::default().end_of_reply(reply), Ok(Some(reply.len())));
        let entry = |fields| Value::Array(vec![text("first-entry"), Value::Array(vec![text("7-0"), fields])]);
        assert_eq!(decode(reply, true), Ok(entry(Value::Int(6))));
        let fields = Value::Array(vec![text("a"), text("bcd"), Value::Nil, text("ef")]);
        assert_eq!(decode(reply, false), Ok(entry(fields)));
    }

    #[test]
    fn insane_sizes_and_other_protocols_are_refused() {
        let deep = "*1\r\n".repeat(DEEPEST + 1);
        let line = format!("-{}", "x".repeat(LONGEST_LINE + 1));
        for (bytes, says) in [
            ("$2000000000\r\n", "2000000000"),
            ("$99999999999999999999999\r\n", "no number"),
            ("*2000000\r\n", "2000000"),
            ("$-2\r\n", "-2"),
            ("*x\r\n", "no number"),
            ("HTTP/1.1 400 Bad Request\r\n", "byte 72"),
            ("\u{15}\u{3}\u{1}", "byte 21"),
            (&deep, "lists within lists"),
            (&line, "longer than"),
        ] {
            for piece in [7_000.min(bytes.len()).div_ceil(7), bytes.len()] {
                let error = read(bytes.as_bytes(), piece).unwrap_err();
                assert!(error.contains(says), "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_redis_rs(shape in "[+:$*]([0-3]\r\n([:$+][0-2]\r\n([ab]{0,2}\r\n)?){0,4}|OK\r\n)") {
            let bytes = shape.as_bytes();
            if let Ok(Some(end)) = Scanner::default().end_of_reply(bytes)
                && let Ok(theirs) = redis::parse_redis_value(&bytes[..end])
            {
                prop_assert_eq!(decode(&bytes[..end], false), Ok(theirs));
            }
        }
    }
}
