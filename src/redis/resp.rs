//! Redis's protocol (RESP2) as bytes: where a reply ends, and what it says.
//!
//! redis-rs's parser takes half of the time of a collection, and collects a reply in memory up to whatever length the
//! peer announces. This one has limits, copies no strings, and leaves out the fields of entries, of which
//! only the size is needed.

use std::fmt;

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
            // A string or a number that is not the last item of its list, as nearly all are.
            if let Some((kind @ (b'$' | b':'), number @ ..=LONGEST_STRING, after)) = short_line(rest(buffer, self.at))
                && let Some(left @ 2..) = self.open.last_mut()
                && self.at < LONGEST_REPLY
            {
                let end = self.at + after + if kind == b'$' { number + 2 } else { 0 };
                if buffer.len() < end {
                    return Ok(None);
                }
                *left -= 1;
                self.at = end;
                continue;
            }
            let Some(header) = header(buffer, self.at)? else { return Ok(None) };
            if header.after > LONGEST_REPLY {
                return Err(format!("a reply is longer than {LONGEST_REPLY} bytes"));
            }
            self.at = match (header.kind, header.length) {
                (b'*', items) if items > 0 => {
                    if self.open.len() == DEEPEST {
                        return Err("a reply has too many lists within lists".to_owned());
                    }
                    self.open.push(items);
                    header.after
                    // The list itself is complete with its last item.
                }
                (b'$', _) if buffer.len() < header.end() => return Ok(None),
                _ => {
                    let end = header.end();
                    if self.complete_item() {
                        self.at = 0;
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

/// The line that an item begins with.
struct Header<'a> {
    kind: u8,
    /// The rest of the line, where it is not a number.
    line: &'a [u8],
    /// The number that the line is; `None` where it is none, or means null.
    number: Option<i64>,
    /// The bytes of a string, or the items of a list; 0 where it is null, or something else.
    length: usize,
    /// Where what follows begins.
    after: usize,
}

impl Header<'_> {
    /// Where the item ends; a list's first item begins there.
    fn end(&self) -> usize {
        if self.kind == b'$' && self.number.is_some() { self.after + self.length + 2 } else { self.after }
    }
}

/// The line that begins here, if its end is there.
fn header(buffer: &[u8], at: usize) -> Result<Option<Header<'_>>, String> {
    let bytes = rest(buffer, at);
    if let Some((kind, number, after)) = short_line(bytes) {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let header = Header { kind, line: b"", number: Some(number), length: length(kind, number)?, after: at + after };
        return Ok(Some(header));
    }
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    if !b"+-:$*".contains(&kind) {
        return Err(format!("a reply begins with byte {kind}, which is not Redis's protocol"));
    }
    let Some(end) = rest.iter().take(LONGEST_LINE).position(|byte| *byte == b'\n') else {
        let is_too_long = rest.len() >= LONGEST_LINE;
        return if is_too_long {
            Err(format!("a line of a reply is longer than {LONGEST_LINE} bytes"))
        } else {
            Ok(None)
        };
    };
    let line = rest.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let number = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
    let (number, length) = match (kind, number) {
        (b'$' | b'*', Some(-1)) | (b'+' | b'-', _) => (None, 0),
        (b'$' | b'*', None) => return Err("a reply announces a length that is no number, or too large".to_owned()),
        (_, Some(number)) => (Some(number), length(kind, number)?),
        (_, None) => (None, 0),
    };
    Ok(Some(Header { kind, line, number, length, after: at + end + 2 }))
}

fn rest(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// Reads the header of a string or a list, or an integer, with at most 18 digits, which nearly all have: the type, the number,
/// and where what follows begins. `None` for any other line.
#[inline]
fn short_line(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    // No number of so many digits is too large.
    const SHORT: usize = 18;
    let (&kind, digits) = bytes.split_first()?;
    if !matches!(kind, b'$' | b'*' | b':') {
        return None;
    }
    let mut number = 0;
    for (at, byte) in digits.iter().take(SHORT + 1).enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if at > 0 && digits.get(at + 1) == Some(&b'\n') => return Some((kind, number, at + "$\r\n".len())),
            _ => return None,
        }
    }
    None
}

/// The length that a string or a list announces, if that is within the limits.
fn length(kind: u8, number: i64) -> Result<usize, String> {
    let most = match kind {
        b'$' => LONGEST_STRING,
        b'*' => MOST_ITEMS,
        _ => return Ok(0),
    };
    match usize::try_from(number) {
        Ok(length) if length <= most => Ok(length),
        _ => Err(format!("a reply announces a length of {number}, more than {most}")),
    }
}

/// A reply, or a part of it. Strings are borrowed from the bytes that were received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Null,
    Int(i64),
    Text(&'a [u8]),
    List(List<'a>),
    Error(ServerError),
    /// It has an end, but not the form of a reply.
    Unreadable,
}

/// The strings of a list.
pub(super) fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let list = match (Cursor { reply: list, at: 0 }.item(0, false)) {
        Ok(Item::List(list)) => list,
        _ => List::default(),
    };
    list.filter_map(|item| if let Item::Text(word) = item { Some(word) } else { None })
}

/// The items of a list, which are read as they are asked for.
#[derive(Clone, Default)]
pub(crate) struct List<'a> {
    /// The reply from the next item on.
    rest: &'a [u8],
    left: usize,
    depth: usize,
    carries_entries: bool,
}

impl<'a> Iterator for List<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        self.left = self.left.checked_sub(1)?;
        match short_line(self.rest) {
            Some((b'$', bytes, after)) => {
                let text = self.rest.get(after..after + bytes).unwrap_or_default();
                self.rest = rest(self.rest, after + bytes + 2);
                return Some(Item::Text(text));
            }
            Some((b':', number, after)) => {
                self.rest = rest(self.rest, after);
                return Some(i64::try_from(number).map_or(Item::Unreadable, Item::Int));
            }
            _ => {}
        }
        let mut cursor = Cursor { reply: self.rest, at: 0 };
        let item = cursor.item(self.depth, self.carries_entries).unwrap_or(Item::Unreadable);
        if let Item::List(list) = &item {
            cursor.skip(list.left);
        }
        self.rest = rest(self.rest, cursor.at);
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for List<'_> {}

impl PartialEq for List<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.clone().eq(other.clone())
    }
}

impl fmt::Debug for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
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
            self.make_room(reply.len());
            self.bytes.extend_from_slice(reply);
        }
        self.ends.push((self.bytes.len(), carries_entries));
        Ok(())
    }

    /// Makes room for a reply, and for those that follow if they are as long as those so far.
    fn make_room(&mut self, bytes: usize) {
        let all = self.bytes.len() + bytes;
        if all > self.bytes.capacity() {
            let to_come = self.ends.capacity() - self.ends.len();
            self.bytes.reserve(bytes + to_come.saturating_sub(1) * (all / (self.ends.len() + 1)));
        }
    }

    /// Adds the last reply of others.
    pub(super) fn push_last(&mut self, of: &Self) {
        self.bytes.extend_from_slice(of.last());
        self.ends.push((self.bytes.len(), of.ends.last().is_some_and(|(_, carries_entries)| *carries_entries)));
    }

    /// Adds a reply that did not come from a server.
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

    /// The last reply.
    pub(super) fn last_item(&self) -> Item<'_> {
        self.items().last().unwrap_or(Item::Unreadable)
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
    /// Moves behind the next line, and behind the string that follows it.
    fn header(&mut self) -> Result<Header<'a>, String> {
        let header = header(self.reply, self.at)?.ok_or(INCOMPLETE)?;
        self.at = header.end();
        Ok(header)
    }

    /// Reads an item, but of a list only how long it is.
    fn item(&mut self, depth: usize, carries_entries: bool) -> Result<Item<'a>, String> {
        let begin = self.at;
        let Header { kind, line, number, length, after } = self.header()?;
        match (kind, number) {
            (b'$', Some(_)) => Ok(Item::Text(self.reply.get(after..after + length).unwrap_or_default())),
            (b'*', Some(_)) if carries_entries && depth == DEPTH_OF_FIELDS => self.size(length),
            (b'*', Some(_)) => {
                Ok(Item::List(List { rest: rest(self.reply, after), left: length, depth: depth + 1, carries_entries }))
            }
            (b'$' | b'*', None) => Ok(Item::Null),
            (b':', number) => number.map(Item::Int).ok_or_else(|| "a reply has an integer that is none".to_owned()),
            (b'+', _) => Ok(Item::Text(line)),
            // An error, as redis-rs reads it.
            _ => match redis::parse_redis_value(self.reply.get(begin..after).unwrap_or_default()) {
                Ok(Value::ServerError(error)) => Ok(Item::Error(error)),
                _ => Err("a reply has an error that cannot be read".to_owned()),
            },
        }
    }

    /// Moves behind so many items.
    fn skip(&mut self, items: usize) {
        let mut left = items;
        while left > 0 {
            left -= 1;
            match short_line(rest(self.reply, self.at)) {
                Some((b'$', bytes, after)) => self.at += after + bytes + 2,
                Some((kind, number, after)) => {
                    self.at += after;
                    left += if kind == b'*' { number } else { 0 };
                }
                None => match self.header() {
                    Ok(header) if header.kind == b'*' => left += header.length,
                    Ok(_) => {}
                    Err(_) => return,
                },
            }
        }
    }

    /// How many bytes the strings of a list have.
    fn size(&mut self, items: usize) -> Result<Item<'a>, String> {
        let mut size = 0;
        for _ in 0..items {
            let header = self.header()?;
            size += if header.kind == b'$' { header.length } else { 0 };
        }
        Ok(Item::Int(i64::try_from(size).unwrap_or(i64::MAX)))
    }

    /// Copies the reply, with the number of their bytes in place of an entry's fields.
    fn copy_without_fields(&mut self, depth: usize, to: &mut Vec<u8>) -> Result<(), String> {
        let begin = self.at;
        let header = self.header()?;
        let is_list = header.kind == b'*' && header.number.is_some();
        if is_list && depth == DEPTH_OF_FIELDS {
            if let Item::Int(size) = self.size(header.length)? {
                to.extend_from_slice(format!(":{size}\r\n").as_bytes());
            }
            return Ok(());
        }
        to.extend_from_slice(self.reply.get(begin..self.at).unwrap_or_default());
        for _ in 0..if is_list { header.length } else { 0 } {
            self.copy_without_fields(depth + 1, to)?;
        }
        Ok(())
    }
}

/// Writes a reply as a server does.
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

    fn values(replies: &Replies) -> Vec<Value> {
        replies.items().map(value).collect()
    }

    fn value(item: Item<'_>) -> Value {
        match item {
            Item::Null => Value::Nil,
            Item::Int(int) => Value::Int(int),
            Item::Text(bytes) => Value::BulkString(bytes.to_vec()),
            Item::List(items) => Value::Array(items.map(value).collect()),
            Item::Error(error) => Value::ServerError(error),
            Item::Unreadable => Value::SimpleString("unreadable".to_owned()),
        }
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn replies_are_read_in_pieces_of_any_size() {
        let bytes =
            b"+OK\r\n:-5\r\n$-1\r\n*-1\r\n*0\r\n$0\r\n\r\n*3\r\n$3\r\na\r\n\r\n*2\r\n:1\r\n*1\r\n$1\r\nb\r\n$-1\r\n";
        let nested = Value::Array(vec![Value::Int(1), Value::Array(vec![text("b")])]);
        let expected = [
            text("OK"),
            Value::Int(-5),
            Value::Nil,
            Value::Nil,
            Value::Array(vec![]),
            text(""),
            Value::Array(vec![text("a\r\n"), nested, Value::Nil]),
        ];
        for piece in 1..=bytes.len() {
            assert_eq!(values(&read(bytes, piece).unwrap()), expected, "{piece}");
        }
    }

    #[test]
    fn integers_of_any_length_are_read() {
        let powers = (0..19).map(|power| 10_i64.pow(power));
        for number in powers.flat_map(|power| [power, -power, power - 1]).chain([i64::MIN, i64::MAX]) {
            let replies = read(format!(":{number}\r\n*2\r\n:{number}\r\n:0\r\n").as_bytes(), 5).unwrap();
            let list = Value::Array(vec![Value::Int(number), Value::Int(0)]);
            assert_eq!(values(&replies), [Value::Int(number), list]);
        }
        assert_eq!(values(&read(b":9223372036854775808\r\n", 5).unwrap()), [value(Item::Unreadable)]);
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
        let replies = read(b":many\r\n:1\r\n*2\r\n:many\r\n:2\r\n", 3).unwrap();
        let unreadable = value(Item::Unreadable);
        let list = Value::Array(vec![unreadable.clone(), Value::Int(2)]);
        assert_eq!(values(&replies), [unreadable, Value::Int(1), list]);
    }

    #[test]
    fn the_fields_of_an_entry_are_measured_and_left_out() {
        for bytes in [3, 2 * KEPT_WHOLE] {
            let long = "x".repeat(bytes);
            let reply = format!(
                "*4\r\n$6\r\nlength\r\n:1\r\n$11\r\nfirst-entry\r\n*2\r\n$3\r\n7-0\r\n*4\r\n$1\r\na\r\n${bytes}\r\n{long}\r\n$-1\r\n$2\r\nef\r\n"
            );
            assert_eq!(Scanner::default().end_of_reply(reply.as_bytes()), Ok(Some(reply.len())));
            let of = |carries_entries, fields| {
                let mut replies = Replies::default();
                replies.push(reply.as_bytes(), carries_entries).unwrap();
                let entry = Value::Array(vec![text("7-0"), fields]);
                let expected = vec![text("length"), Value::Int(1), text("first-entry"), entry];
                assert_eq!(value(replies.only()), Value::Array(expected));
                replies.bytes.len()
            };
            let kept = of(true, Value::Int(i64::try_from(bytes).unwrap() + 3));
            assert!(kept < KEPT_WHOLE, "{kept}");
            let fields = vec![text("a"), text(&long), Value::Nil, text("ef")];
            of(false, Value::Array(fields));
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
