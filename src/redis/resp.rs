//! Redis's protocol (RESP2) as bytes: where a reply ends, and what it says.
//!
//! redis-rs's parser takes half of the time of a collection, and collects a reply in memory up to whatever length the
//! peer announces. This one has limits, copies no strings, and leaves out the fields of entries, of which
//! only the size is needed.

use redis::{ServerError, Value};

/// The longest string of a reply. An entry's field of more is beyond what an exporter should move.
const LONGEST_STRING: usize = 8 << 20;
/// The longest reply: two entries with a string of the longest kind each, or a hundred thousand groups.
const LONGEST_REPLY: usize = 24 << 20;
/// The most items of one list.
const MOST_ITEMS: usize = 1 << 20;
/// The longest line: an error, or a number.
const LONGEST_LINE: usize = 64 << 10;
/// Lists within lists.
const DEEPEST: usize = 8;
/// A reply with entries that is longer is kept without their fields.
const KEPT_WHOLE: usize = 16 << 10;
/// A reply has about so many bytes.
const EXPECTED_BYTES: usize = 400;
/// Room for so many items is made at once.
const EXPECTED_ITEMS: usize = 64;
const INCOMPLETE: &str = "a reply is incomplete";
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
            if after > LONGEST_REPLY {
                return Err(format!("a reply is longer than {LONGEST_REPLY} bytes"));
            }
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
    // Nearly all are short: they need no look at an overflow.
    const SHORT: usize = 18;
    let (negative, digits) = line.strip_prefix(b"-").map_or((false, line), |digits| (true, digits));
    if digits.is_empty() || digits.len() > SHORT {
        return std::str::from_utf8(line).ok()?.parse().ok();
    }
    let digit = |number: i64, byte: &u8| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0'));
    let number = digits.iter().try_fold(0, digit)?;
    Some(if negative { -number } else { number })
}

/// A reply, or a part of it. Strings are borrowed from the bytes that were received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Null,
    Int(i64),
    Text(&'a [u8]),
    List(Vec<Item<'a>>),
    Error(ServerError),
    /// It has an end, but not the form of a reply.
    Unreadable,
}

/// The replies to the commands of one request, in order.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    bytes: Vec<u8>,
    /// Where each ends, and whether it carries entries.
    ends: Vec<(usize, bool)>,
}

impl Replies {
    /// Adds a complete reply, whose end a [`Scanner`] has found.
    ///
    /// # Errors
    /// A sentence, where this is not RESP2.
    pub(super) fn push(&mut self, reply: &[u8], carries_entries: bool) -> Result<(), String> {
        if carries_entries && reply.len() > KEPT_WHOLE {
            Cursor { reply, at: 0 }.copy_without_fields(0, &mut self.bytes)?;
        } else {
            self.bytes.extend_from_slice(reply);
        }
        self.ends.push((self.bytes.len(), carries_entries));
        Ok(())
    }

    /// Adds what redis-rs has read.
    pub(super) fn push_value(&mut self, value: &Value, carries_entries: bool) {
        encode(value, &mut self.bytes);
        self.ends.push((self.bytes.len(), carries_entries));
    }

    /// Makes room for the replies to so many commands.
    pub(super) fn for_commands(count: usize) -> Self {
        Self { bytes: Vec::with_capacity(count * EXPECTED_BYTES), ends: Vec::with_capacity(count) }
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Each reply, where an entry's fields are replaced by the number of their bytes.
    pub(super) fn items(&self) -> impl Iterator<Item = Item<'_>> {
        let starts = [0].into_iter().chain(self.ends.iter().map(|(end, _)| *end));
        starts.zip(&self.ends).map(|(start, (end, carries_entries))| {
            let mut cursor = Cursor { reply: self.bytes.get(start..*end).unwrap_or_default(), at: 0 };
            cursor.item(0, *carries_entries).unwrap_or(Item::Unreadable)
        })
    }

    /// The reply to the only command.
    pub(super) fn only(&self) -> Item<'_> {
        self.items().next().unwrap_or(Item::Unreadable)
    }

    /// The last reply, as it came.
    pub(super) fn last(&self) -> &[u8] {
        let start = self.ends.len().checked_sub(2).and_then(|before| self.ends.get(before)).map_or(0, |(end, _)| *end);
        self.bytes.get(start..).unwrap_or_default()
    }
}

/// One complete reply, read from its beginning.
struct Cursor<'a> {
    reply: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn item(&mut self, depth: usize, carries_entries: bool) -> Result<Item<'a>, String> {
        let begin = self.at;
        let (kind, line, after) = line(self.reply, self.at)?.ok_or(INCOMPLETE)?;
        self.at = after;
        match kind {
            b'$' => Ok(length(kind, line)?.map_or(Item::Null, |bytes| Item::Text(self.string(bytes)))),
            b':' => number(line).map(Item::Int).ok_or_else(|| "a reply has an integer that is none".to_owned()),
            b'*' => match length(kind, line)? {
                None => Ok(Item::Null),
                Some(items) if carries_entries && depth == DEPTH_OF_FIELDS => self.size(items),
                Some(items) => {
                    // The peer may announce many and send none.
                    let mut list = Vec::with_capacity(items.min(EXPECTED_ITEMS));
                    for _ in 0..items {
                        list.push(self.item(depth + 1, carries_entries)?);
                    }
                    Ok(Item::List(list))
                }
            },
            b'+' => Ok(Item::Text(line)),
            // An error, as redis-rs reads it.
            _ => match redis::parse_redis_value(self.reply.get(begin..after).unwrap_or_default()) {
                Ok(Value::ServerError(error)) => Ok(Item::Error(error)),
                _ => Err("a reply has an error that cannot be read".to_owned()),
            },
        }
    }

    fn string(&mut self, bytes: usize) -> &'a [u8] {
        let begin = self.at;
        self.at += bytes + 2;
        self.reply.get(begin..begin + bytes).unwrap_or_default()
    }

    /// How many bytes the strings of a list have.
    fn size(&mut self, items: usize) -> Result<Item<'a>, String> {
        let mut size = 0;
        for _ in 0..items {
            let (kind, line, after) = line(self.reply, self.at)?.ok_or(INCOMPLETE)?;
            let bytes = if kind == b'$' { length(kind, line)? } else { None };
            self.at = bytes.map_or(after, |bytes| after + bytes + 2);
            size += bytes.unwrap_or(0);
        }
        Ok(Item::Int(i64::try_from(size).unwrap_or(i64::MAX)))
    }

    /// Copies the reply, with the number of their bytes in place of an entry's fields.
    fn copy_without_fields(&mut self, depth: usize, to: &mut Vec<u8>) -> Result<(), String> {
        let begin = self.at;
        let (kind, line, after) = line(self.reply, self.at)?.ok_or(INCOMPLETE)?;
        self.at = after;
        match (kind, length(kind, line)?) {
            (b'*', Some(items)) if depth == DEPTH_OF_FIELDS => {
                if let Item::Int(size) = self.size(items)? {
                    to.extend_from_slice(format!(":{size}\r\n").as_bytes());
                }
            }
            (b'*', Some(items)) => {
                to.extend_from_slice(self.reply.get(begin..after).unwrap_or_default());
                for _ in 0..items {
                    self.copy_without_fields(depth + 1, to)?;
                }
            }
            (_, bytes) => {
                self.at = bytes.map_or(after, |bytes| after + bytes + 2);
                to.extend_from_slice(self.reply.get(begin..self.at).unwrap_or_default());
            }
        }
        Ok(())
    }
}

/// Writes a reply that redis-rs has read as it may have come.
fn encode(value: &Value, to: &mut Vec<u8>) {
    let mut text = |bytes: &[u8]| {
        to.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
        to.extend_from_slice(bytes);
        to.extend_from_slice(b"\r\n");
    };
    match value {
        Value::Int(number) => to.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        Value::BulkString(bytes) => text(bytes),
        Value::SimpleString(line) => text(line.as_bytes()),
        Value::Okay => text(b"OK"),
        Value::Array(items) | Value::Set(items) => {
            to.extend_from_slice(format!("*{}\r\n", items.len()).as_bytes());
            for item in items {
                encode(item, to);
            }
        }
        Value::ServerError(error) => {
            let line = format!("-{} {}", error.code(), error.details().unwrap_or_default());
            to.extend_from_slice(line.replace(['\r', '\n'], " ").as_bytes());
            to.extend_from_slice(b"\r\n");
        }
        // RESP3 is not asked for.
        _ => to.extend_from_slice(b"$-1\r\n"),
    }
}

/// Reads replies that arrive in pieces of this size, and says why it ended early.
#[cfg(any(test, fuzzing))]
pub(super) fn read_in_pieces(bytes: &[u8], piece: usize, carries_entries: bool) -> (Replies, Result<(), String>) {
    let (mut buffer, mut scanner, mut replies) = (Vec::new(), Scanner::default(), Replies::default());
    let mut read = |piece: &[u8]| {
        buffer.extend_from_slice(piece);
        while let Some(end) = scanner.end_of_reply(&buffer)? {
            replies.push(buffer.get(..end).unwrap_or_default(), carries_entries)?;
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
    fn read(bytes: &[u8], piece: usize) -> Result<Replies, String> {
        let (replies, ended) = read_in_pieces(bytes, piece, false);
        ended.map(|()| replies)
    }

    fn items(replies: &Replies) -> Vec<Item<'_>> {
        replies.items().collect()
    }

    #[test]
    fn replies_are_read_in_pieces_of_any_size() {
        let bytes =
            b"+OK\r\n:-5\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n*3\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n*1\r\n$1\r\nb\r\n$-1\r\n";
        let nested = Item::List(vec![Item::Int(1), Item::List(vec![Item::Text(b"b")])]);
        let expected = [
            Item::Text(b"OK"),
            Item::Int(-5),
            Item::Null,
            Item::Null,
            Item::List(vec![]),
            Item::Text(b""),
            Item::List(vec![Item::Text(b"a\r\n"), nested, Item::Null]),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(items(&read(bytes, piece).unwrap()), expected, "{piece}");
        }
    }

    #[test]
    fn an_error_is_read_as_redis_rs_reads_it() {
        let replies = read(b"-NOPERM no\r\n-LOADING Redis is loading\r\n-ODD thing\r\n", 7).unwrap();
        let code = |reply: Item<'_>| match reply {
            Item::Error(error) => (error.kind(), error.code().to_owned()),
            reply => panic!("{reply:?}"),
        };
        let codes: Vec<_> = replies.items().map(code).collect();
        assert_eq!(codes[0].0, Some(ServerErrorKind::NoPerm));
        assert_eq!(codes[1].0, Some(ServerErrorKind::BusyLoading));
        assert_eq!(codes[2].1, "ODD");
    }

    #[test]
    fn a_reply_that_cannot_be_read_does_not_take_the_next_one_with_it() {
        assert_eq!(items(&read(b":many\r\n:1\r\n", 3).unwrap()), [Item::Unreadable, Item::Int(1)]);
    }

    #[test]
    fn the_fields_of_an_entry_are_measured_and_left_out() {
        for bytes in [3, 2 * KEPT_WHOLE] {
            let value = "x".repeat(bytes);
            let reply = format!(
                "*4\r\n$6\r\nlength\r\n:1\r\n$11\r\nfirst-entry\r\n*2\r\n$3\r\n7-0\r\n*4\r\n$1\r\na\r\n${bytes}\r\n{value}\r\n$-1\r\n$2\r\nef\r\n"
            );
            assert_eq!(Scanner::default().end_of_reply(reply.as_bytes()), Ok(Some(reply.len())));
            let of = |carries_entries, fields| {
                let mut replies = Replies::default();
                replies.push(reply.as_bytes(), carries_entries).unwrap();
                let entry = Item::List(vec![Item::Text(b"7-0"), fields]);
                let expected = vec![Item::Text(b"length"), Item::Int(1), Item::Text(b"first-entry"), entry];
                assert_eq!(replies.only(), Item::List(expected));
                replies.bytes.len()
            };
            let kept = of(true, Item::Int(i64::try_from(bytes).unwrap() + 3));
            assert!(kept < KEPT_WHOLE, "{kept}");
            let fields = vec![Item::Text(b"a"), Item::Text(value.as_bytes()), Item::Null, Item::Text(b"ef")];
            of(false, Item::List(fields));
        }
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

    #[test]
    fn a_reply_of_many_strings_is_refused_before_all_of_it_is_there() {
        let mut reply = b"*1000000\r\n".to_vec();
        let string = [b"$1048576\r\n", "x".repeat(1 << 20).as_bytes(), b"\r\n"].concat();
        let mut scanner = Scanner::default();
        let refused = (0..64).find_map(|_| {
            reply.extend_from_slice(&string);
            scanner.end_of_reply(&reply).err()
        });
        assert!(refused.unwrap().contains("longer than"));
        assert!(reply.len() < LONGEST_REPLY + 2 * string.len(), "{}", reply.len());
    }

    proptest! {
        #[test]
        fn it_agrees_with_redis_rs(shape in "[+:$*]([0-3]\r\n([:$+][0-2]\r\n([ab]{0,2}\r\n)?){0,4}|OK\r\n)") {
            let bytes = shape.as_bytes();
            if let Ok(Some(end)) = Scanner::default().end_of_reply(bytes)
                && let Ok(theirs) = redis::parse_redis_value(&bytes[..end])
            {
                let (mut read, mut by_them) = (Replies::default(), Replies::default());
                read.push(&bytes[..end], false).unwrap();
                by_them.push_value(&theirs, false);
                prop_assert_eq!(read.only(), by_them.only());
            }
        }
    }
}
