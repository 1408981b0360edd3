//! Redis's replies into plain facts: one pure function for each kind of reply.
//!
//! An unknown field is passed over. A field that is needed and missing, or of another shape, is an error of the kind
//! `protocol`. redis-rs's own typed replies are not used, since they refuse names that are not UTF-8 and a negative lag.

use std::collections::BTreeMap;

use super::resp::{Item, List};

use crate::model::{
    backlog::{Count, LagTrust},
    error::{Error, Kind},
    snapshot::{Clock, GroupFacts, Name, OldestPending, Server, StreamFacts, StreamId},
};

/// What became of one command.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reply<T> {
    /// Redis carried it out.
    Done(T),
    /// The key or group that it names is not there.
    Gone,
    /// Redis refused it, or the reply cannot be read.
    Failed(Error),
}

impl<T> Reply<T> {
    /// Reads a reply with one of the functions below.
    pub(crate) fn read<'a>(reply: Item<'a>, read: impl FnOnce(Item<'a>) -> Result<T, Error>) -> Self {
        match reply {
            Item::Error(error) => match (error.code(), error.details()) {
                // A script says it with its own name behind.
                ("ERR", Some(details)) if details.contains("no such key") => Self::Gone,
                ("NOGROUP", _) => Self::Gone,
                _ => Self::Failed(error.into()),
            },
            reply => read(reply).map_or_else(Self::Failed, Self::Done),
        }
    }
}

/// `TIME`: seconds and microseconds.
pub(crate) fn clock(reply: Item<'_>) -> Result<Clock, Error> {
    let [seconds, micros] = items(reply)?;
    let ms = number(seconds)?.checked_mul(1000).and_then(|ms| ms.checked_add(number(micros).ok()? / 1000));
    ms.map(|ms| Clock { ms }).ok_or_else(|| Error::protocol("a time"))
}

/// `INFO`: lines of `field:value`.
pub(crate) fn server(reply: Item<'_>) -> Result<Server, Error> {
    let mut server = Server::default();
    let mut is_appending = true;
    for line in bytes(reply)?.split(|byte| *byte == b'\n') {
        let Some((field, value)) = line.iter().position(|byte| *byte == b':').and_then(|at| line.split_at_checked(at))
        else {
            continue;
        };
        let value = value.get(1..).unwrap_or_default().trim_ascii_end();
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        let number = || {
            let wrong = || Error::protocol(format_args!("a number for {}", String::from_utf8_lossy(field)));
            digits(value).map(Some).ok_or_else(wrong)
        };
        match field {
            b"redis_version" => server.redis_version = text(),
            b"valkey_version" => server.valkey_version = text(),
            // Valkey has both, where it is told to show itself as a Redis.
            b"redis_mode" => server.mode = text(),
            b"server_mode" => server.mode = server.mode.take().or_else(text),
            b"role" => server.role = text(),
            b"maxmemory_policy" => server.maxmemory_policy = text(),
            b"uptime_in_seconds" => server.uptime_seconds = number()?,
            b"used_memory" => server.used_memory_bytes = number()?,
            b"maxmemory" => server.max_memory_bytes = number()?,
            b"connected_clients" => server.connected_clients = number()?,
            b"blocked_clients" => server.blocked_clients = number()?,
            b"evicted_keys" => server.evicted_keys = number()?,
            b"aof_enabled" => is_appending = value != b"0",
            b"aof_last_write_status" => server.aof_last_write_ok = Some(value == b"ok"),
            b"rdb_last_bgsave_status" => server.rdb_last_bgsave_ok = Some(value == b"ok"),
            _ => server.errors.extend(error_count(field, value)),
        }
    }
    // The server keeps saying err after the file was switched off, and accepts writes.
    server.aof_last_write_ok = server.aof_last_write_ok.map(|ok| ok || !is_appending);
    Ok(server)
}

/// A line of `INFO errorstats`: `errorstat_OOM:count=2752`.
fn error_count(field: &[u8], value: &[u8]) -> Option<(String, u64)> {
    let (error, count) = (field.strip_prefix(b"errorstat_")?, value.strip_prefix(b"count=")?);
    Some((String::from_utf8_lossy(error).into_owned(), digits(count)?))
}

/// `SCAN`: the cursor for the next page, 0 after the last one, and the keys of this page.
pub(crate) fn scan_page(reply: Item<'_>) -> Result<(u64, Vec<Name>), Error> {
    let [cursor, keys] = items(reply)?;
    let keys = list(keys)?.map(name).collect::<Result<_, _>>()?;
    Ok((number(cursor)?, keys))
}

/// `CLUSTER SLOTS`: the address of the master of each range of slots, by the last slot of the range. A node that does not
/// know its own address means that at which it was asked.
pub(crate) fn cluster_slots(reply: Item<'_>, asked: &str) -> Result<BTreeMap<u64, (String, u16)>, Error> {
    let range = |range: Item<'_>| {
        // First and last slot, then the master, then its replicas.
        let mut range = list(range)?.skip(1);
        let (Some(last), Some(master)) = (range.next(), range.next()) else {
            return Err(Error::protocol("a master for each range of slots"));
        };
        let mut master = list(master)?;
        let (Some(host), Some(port)) = (master.next(), master.next()) else {
            return Err(Error::protocol("a host and a port"));
        };
        let host = nullable(host, bytes)?.unwrap_or_default();
        let host = if host.is_empty() { asked.to_owned() } else { String::from_utf8_lossy(host).into_owned() };
        let port = u16::try_from(number(port)?).map_err(|_| Error::protocol("a port"))?;
        Ok((number(last)?, (host, port)))
    };
    list(reply)?.map(range).collect()
}

/// `HELLO`: for which groups this server's lag is exact, by its name and version.
pub(crate) fn lag_trust(reply: Item<'_>) -> Result<LagTrust, Error> {
    let (mut server, mut version) = (&b""[..], &b""[..]);
    for (field, value) in fields(reply)? {
        match field {
            b"server" => server = bytes(value)?,
            b"version" => version = bytes(value)?,
            _ => {}
        }
    }
    let version = String::from_utf8_lossy(version);
    let mut numbers = version.split('.').map_while(|number| number.parse::<u64>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    Ok(match server {
        b"redis" if version >= (8, 0) => LagTrust::Always,
        b"valkey" if version >= (8, 1) => LagTrust::Between,
        _ => LagTrust::Never,
    })
}

/// `XINFO STREAM` without its groups, and how many bytes its two entries have.
pub(crate) fn stream(reply: Item<'_>) -> Result<(StreamFacts, usize), Error> {
    let (mut length, mut group_count, mut last_generated) = (None, None, None);
    let (mut entries_added, mut first, mut last) = (None, None, None);
    for (field, value) in fields(reply)? {
        match field {
            b"length" => length = Some(number(value)?),
            b"groups" => group_count = Some(number(value)?),
            b"last-generated-id" => last_generated = Some(id(value)?),
            b"entries-added" => entries_added = Some(number(value)?),
            b"first-entry" => first = entry(value)?,
            b"last-entry" => last = entry(value)?,
            _ => {}
        }
    }
    let facts = StreamFacts {
        length: need(length, "length")?,
        group_count: need(group_count, "groups")?,
        last_generated: need(last_generated, "last-generated-id")?,
        entries_added,
        first: first.map(|(id, _)| id),
        last: last.map(|(id, _)| id),
    };
    let payload = [first, last].into_iter().flatten().map(|(_, bytes)| bytes).sum();
    Ok((facts, payload))
}

/// The bytes of the strings in a value.
fn size(value: &Item<'_>) -> usize {
    match value {
        Item::Text(bytes) => bytes.len(),
        // The fields, where they were left out.
        Item::Int(bytes) => usize::try_from(*bytes).unwrap_or(0),
        Item::List(values) => values.clone().map(|value| size(&value)).sum(),
        _ => 0,
    }
}

/// `XINFO GROUPS`.
pub(crate) fn groups(reply: Item<'_>) -> Result<Vec<(Name, GroupFacts)>, Error> {
    list(reply)?.map(group).collect()
}

fn group(reply: Item<'_>) -> Result<(Name, GroupFacts), Error> {
    let (mut group_name, mut consumers, mut pending, mut last_delivered) = (None, None, None, None);
    let (mut entries_read, mut lag) = (None, None);
    for (field, value) in fields(reply)? {
        match field {
            b"name" => group_name = Some(name(value)?),
            b"consumers" => consumers = Some(number(value)?),
            b"pending" => pending = Some(number(value)?),
            b"last-delivered-id" => last_delivered = Some(id(value)?),
            b"entries-read" => entries_read = nullable(value, integer)?,
            b"lag" => lag = nullable(value, integer)?,
            _ => {}
        }
    }
    let facts = GroupFacts {
        consumers: need(consumers, "consumers")?,
        pending: need(pending, "pending")?,
        last_delivered: need(last_delivered, "last-delivered-id")?,
        entries_read,
        lag,
    };
    Ok((need(group_name, "name")?, facts))
}

/// A stream at one moment, as the script reads it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moment {
    pub(crate) stream: StreamFacts,
    /// How many bytes the stream's first and last entry have.
    pub(crate) payload: usize,
    pub(crate) groups: Vec<(Name, GroupFacts)>,
    pub(crate) counts: Vec<Count>,
    /// The lowest entry that was counted.
    pub(crate) lowest: Option<StreamId>,
    /// How many entries were counted.
    pub(crate) counted: u64,
    /// The work that it took.
    pub(crate) work: u64,
    /// Bytes of the largest entry that was met.
    pub(crate) largest: usize,
}

/// The script's reply; `None` where the stream has more groups than the script takes.
pub(crate) fn moment(reply: Item<'_>) -> Result<Option<Moment>, Error> {
    if reply == Item::Null {
        return Ok(None);
    }
    let [length, entries_added, last_generated, first, last, payload, groups, counts, lowest, counted, work, largest] =
        items(reply)?;
    let groups = self::groups(groups)?;
    let stream = StreamFacts {
        length: number(length)?,
        group_count: groups.len() as u64,
        last_generated: id(last_generated)?,
        entries_added: nullable(entries_added, integer)?
            .and_then(|added| u64::try_from(added).ok())
            .filter(|added| *added < LUA_EXACT),
        first: nullable(first, id)?,
        last: nullable(last, id)?,
    };
    let counts = list(counts)?.map(count).collect::<Result<_, _>>()?;
    let size = |bytes| Ok::<_, Error>(usize::try_from(number(bytes)?).unwrap_or(usize::MAX));
    Ok(Some(Moment {
        stream,
        payload: size(payload)?,
        groups: groups.into_iter().map(exact_in_lua).collect(),
        counts,
        lowest: nullable(lowest, id)?,
        counted: number(counted)?,
        work: number(work)?,
        largest: size(largest)?,
    }))
}

/// Lua's numbers are exact below this.
const LUA_EXACT: u64 = 1 << 53;

fn exact_in_lua((name, facts): (Name, GroupFacts)) -> (Name, GroupFacts) {
    let exact = |counter: &i64| counter.unsigned_abs() < LUA_EXACT;
    let (entries_read, lag) = (facts.entries_read.filter(exact), facts.lag.filter(exact));
    (name, GroupFacts { entries_read, lag, ..facts })
}

fn count(reply: Item<'_>) -> Result<Count, Error> {
    let [after, entries, oldest, complete] = items(reply)?;
    Ok(Count {
        after: id(after)?,
        entries: number(entries)?,
        oldest: nullable(oldest, id)?,
        complete: number(complete)? == 1,
    })
}

/// The first entry of `XRANGE ... COUNT 1`.
pub(crate) fn first_entry(reply: Item<'_>) -> Result<Option<StreamId>, Error> {
    Ok(list(reply)?.next().map(entry).transpose()?.flatten().map(|(id, _)| id))
}

/// `XPENDING key group - + 1`: the lowest pending entry. One that no consumer holds has an empty or null name.
pub(crate) fn oldest_pending(reply: Item<'_>) -> Result<Option<OldestPending>, Error> {
    let Some(entry) = nullable(reply, list)?.and_then(|mut entries| entries.next()) else { return Ok(None) };
    let [entry_id, consumer, idle, deliveries] = items(entry)?;
    Ok(Some(OldestPending {
        id: id(entry_id)?,
        consumer: nullable(consumer, name)?.unwrap_or_else(|| "".into()),
        // XCLAIM may set the time of the last delivery to one that is still to come.
        idle_ms: u64::try_from(integer(idle)?).unwrap_or(0),
        deliveries: number(deliveries)?,
    }))
}

/// The summary form of `XPENDING`: each consumer that holds something, and how much.
pub(crate) fn pending_consumers(reply: Item<'_>) -> Result<Vec<(Name, u64)>, Error> {
    let [_count, _lowest, _highest, consumers] = items(reply)?;
    let consumer = |consumer| {
        let [consumer, pending] = items(consumer)?;
        Ok((name(consumer)?, number(pending)?))
    };
    nullable(consumers, list)?.unwrap_or_default().map(consumer).collect()
}

/// `XINFO CONSUMERS`: each consumer and its `idle` in milliseconds.
pub(crate) fn idle_consumers(reply: Item<'_>) -> Result<BTreeMap<Name, u64>, Error> {
    list(reply)?.map(idle_consumer).collect()
}

fn idle_consumer(reply: Item<'_>) -> Result<(Name, u64), Error> {
    let (mut consumer, mut idle) = (None, None);
    for (field, value) in fields(reply)? {
        match field {
            b"name" => consumer = Some(name(value)?),
            b"idle" => idle = Some(u64::try_from(integer(value)?).unwrap_or(0)),
            _ => {}
        }
    }
    Ok((need(consumer, "name")?, need(idle, "idle")?))
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, Error> {
    field.ok_or_else(|| Error::protocol(format_args!("a field '{name}'")))
}

fn nullable<'a, T>(value: Item<'a>, read: impl FnOnce(Item<'a>) -> Result<T, Error>) -> Result<Option<T>, Error> {
    if matches!(value, Item::Null) { Ok(None) } else { read(value).map(Some) }
}

/// Field and value pairs, in a flat list.
fn fields(reply: Item<'_>) -> Result<impl Iterator<Item = (&[u8], Item<'_>)>, Error> {
    let mut flat = list(reply)?;
    if !flat.len().is_multiple_of(2) {
        return Err(Error::protocol("pairs of field and value"));
    }
    // A field whose name is no string is none that is known.
    Ok(std::iter::from_fn(move || Some((bytes(flat.next()?).unwrap_or_default(), flat.next()?))))
}

/// A list of just this many.
fn items<const N: usize>(reply: Item<'_>) -> Result<[Item<'_>; N], Error> {
    let mut list = list(reply)?;
    if list.len() != N {
        return Err(Error::protocol(format_args!("a list of {N}")));
    }
    Ok(std::array::from_fn(|_| list.next().unwrap_or(Item::Unreadable)))
}

fn list(reply: Item<'_>) -> Result<List<'_>, Error> {
    match reply {
        Item::List(items) => Ok(items),
        Item::Error(error) => Err(error.into()),
        _ => Err(Error::protocol("a list")),
    }
}

fn bytes(reply: Item<'_>) -> Result<&[u8], Error> {
    match reply {
        Item::Text(bytes) => Ok(bytes),
        Item::Error(error) => Err(error.into()),
        _ => Err(Error::protocol("a string")),
    }
}

fn name(reply: Item<'_>) -> Result<Name, Error> {
    bytes(reply).map(Name::from)
}

fn integer(reply: Item<'_>) -> Result<i64, Error> {
    let wrong = || Error::protocol("an integer");
    match reply {
        Item::Int(integer) => Ok(integer),
        reply => std::str::from_utf8(bytes(reply)?).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong),
    }
}

fn number(reply: Item<'_>) -> Result<u64, Error> {
    let wrong = || Error::protocol("a number that is not negative");
    match reply {
        Item::Int(integer) => u64::try_from(integer).map_err(|_| wrong()),
        reply => std::str::from_utf8(bytes(reply)?).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong),
    }
}

fn id(reply: Item<'_>) -> Result<StreamId, Error> {
    let text = bytes(reply)?;
    let parts = text.iter().position(|byte| *byte == b'-').and_then(|dash| text.split_at_checked(dash));
    let id = parts.and_then(|(ms, seq)| Some(StreamId { ms: digits(ms)?, seq: digits(seq.get(1..)?)? }));
    id.ok_or_else(|| Error::new(Kind::Protocol, "unexpected reply: expected an id like 1740691320501-0"))
}

fn digits(text: &[u8]) -> Option<u64> {
    // No number of so many digits is too large.
    const SHORT: usize = 19;
    let digit = |byte: &u8| byte.checked_sub(b'0').filter(|digit| *digit <= 9).map(u64::from);
    match text.len() {
        0 => None,
        1..=SHORT => text.iter().try_fold(0, |number: u64, byte| Some(number * 10 + digit(byte)?)),
        _ => text.iter().try_fold(0, |number: u64, byte| number.checked_mul(10)?.checked_add(digit(byte)?)),
    }
}

/// The id of an entry, and how many bytes it has; null where there is no entry.
fn entry(reply: Item<'_>) -> Result<Option<(StreamId, usize)>, Error> {
    nullable(reply, |entry| {
        let [entry_id, fields] = items(entry)?;
        let bytes = size(&entry_id) + size(&fields);
        Ok((id(entry_id)?, bytes))
    })
}

/// Reads a reply as if it were that of every command.
#[cfg(any(test, fuzzing))]
pub(super) fn read_as_every_reply(reply: Item<'_>) {
    let _ = clock(reply.clone());
    let _ = server(reply.clone());
    let _ = scan_page(reply.clone());
    let _ = cluster_slots(reply.clone(), "asked");
    let _ = stream(reply.clone());
    let _ = groups(reply.clone());
    let _ = moment(reply.clone());
    let _ = lag_trust(reply.clone());
    let _ = first_entry(reply.clone());
    let _ = oldest_pending(reply.clone());
    let _ = pending_consumers(reply.clone());
    let _ = idle_consumers(reply);
}

/// Reads text as an id. One that is read says the same when it is written, but for zeros in front.
#[cfg(any(test, fuzzing))]
pub(super) fn read_as_id(text: &[u8]) {
    if let Ok(read) = id(Item::Text(text)) {
        assert_eq!(id(Item::Text(read.to_string().as_bytes())), Ok(read));
        assert!(read.next().is_none_or(|next| next > read));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;
    use crate::redis::resp::Replies;

    /// Reads a reply that has these values.
    #[allow(clippy::needless_pass_by_value, reason = "the calls read better")]
    fn read_by<T>(read: fn(Item<'_>) -> Result<T, Error>, reply: Value) -> Result<T, Error> {
        let mut replies = Replies::default();
        replies.push_value(&reply, false);
        read(replies.only())
    }

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn array(items: impl IntoIterator<Item = Value>) -> Value {
        Value::Array(items.into_iter().collect())
    }

    /// Fields as RESP2 sends them.
    fn flat(fields: &[(&str, Value)]) -> Value {
        array(fields.iter().flat_map(|(name, value)| [text(name), value.clone()]))
    }

    fn group_fields() -> Vec<(&'static str, Value)> {
        vec![
            ("name", text("lsstcam_consumer_group")),
            ("consumers", Value::Int(704)),
            ("pending", Value::Int(0)),
            ("last-delivered-id", text("1740691320501-1")),
            ("entries-read", Value::Int(72)),
            ("lag", Value::Int(9)),
        ]
    }

    fn one_group(fields: &[(&str, Value)]) -> Result<GroupFacts, Error> {
        read_by(groups, array([flat(fields)])).map(|mut groups| groups.remove(0).1)
    }

    fn with(mut fields: Vec<(&'static str, Value)>, name: &str, value: &Value) -> Vec<(&'static str, Value)> {
        for field in &mut fields {
            if field.0 == name {
                field.1 = value.clone();
            }
        }
        fields
    }

    #[test]
    fn the_group_of_the_procedures_is_read() {
        let group = one_group(&group_fields()).unwrap();
        assert_eq!((group.consumers, group.pending), (704, 0));
        assert_eq!(group.last_delivered, StreamId { ms: 1_740_691_320_501, seq: 1 });
        assert_eq!((group.entries_read, group.lag), (Some(72), Some(9)));
    }

    #[test]
    fn null_and_negative_lags_stay_what_they_are() {
        let lag = |value| one_group(&with(group_fields(), "lag", &value)).map(|group| group.lag);
        assert_eq!(lag(Value::Nil), Ok(None));
        assert_eq!(lag(Value::Int(-3)), Ok(Some(-3)));
        assert_eq!(lag(Value::Int(i64::MIN)), Ok(Some(i64::MIN)));
        assert_eq!(one_group(&group_fields()[..4]).unwrap().lag, None, "before 7.0 there is no such field");
    }

    #[test]
    fn a_field_that_is_missing_or_of_another_shape_is_a_protocol_error() {
        for name in ["name", "consumers", "pending", "last-delivered-id"] {
            let without: Vec<_> = group_fields().into_iter().filter(|(field, _)| *field != name).collect();
            let error = one_group(&without).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol);
            assert!(error.to_string().contains(name), "{error}");
        }
        for (name, value) in [
            ("name", Value::Int(1)),
            ("consumers", Value::Int(-1)),
            ("consumers", text("many")),
            ("pending", Value::Nil),
            ("last-delivered-id", text("1740691320501")),
            ("last-delivered-id", text("x-1")),
            ("last-delivered-id", text("99999999999999999999-0")),
            ("lag", text("behind")),
        ] {
            let error = one_group(&with(group_fields(), name, &value)).unwrap_err();
            assert_eq!(error.kind(), Kind::Protocol, "{name} {value:?}");
        }
        assert_eq!(
            read_by(groups, array([array([text("name")])])).unwrap_err().kind(),
            Kind::Protocol,
            "an odd number"
        );
    }

    #[test]
    fn of_an_entry_only_the_id_is_read() {
        let entry = |id: &str| array([text(id), array([text("detector"), text("7")])]);
        let fields = [
            ("length", Value::Int(2)),
            ("radix-tree-keys", Value::Int(1)),
            ("last-generated-id", text("9-1")),
            ("entries-added", Value::Int(5)),
            ("groups", Value::Int(1)),
            ("first-entry", entry("7-0")),
            ("last-entry", entry("9-1")),
        ];
        let (read, payload) = read_by(stream, flat(&fields)).unwrap();
        assert_eq!(payload, 2 * "7-0detector7".len());
        assert_eq!((read.first, read.last), (Some(StreamId { ms: 7, seq: 0 }), Some(StreamId { ms: 9, seq: 1 })));
        assert_eq!((read.length, read.group_count, read.entries_added), (2, 1, Some(5)));
        let empty = [&fields[..5], &[("first-entry", Value::Nil), ("last-entry", Value::Nil)]].concat();
        assert_eq!(read_by(stream, flat(&empty)).unwrap().0.first, None);
    }

    #[test]
    fn the_lowest_pending_entry_may_belong_to_nobody() {
        let entry = |consumer| array([array([text("5-0"), consumer, Value::Int(250), Value::Int(3)])]);
        let read = read_by(oldest_pending, entry(text("w"))).unwrap().unwrap();
        assert_eq!((read.id, read.idle_ms, read.deliveries), (StreamId { ms: 5, seq: 0 }, 250, 3));
        assert_eq!(read.consumer, "w".into());
        assert_eq!(read_by(oldest_pending, entry(Value::Nil)).unwrap().unwrap().consumer, "".into());
        assert_eq!((read_by(oldest_pending, array([])), read_by(oldest_pending, Value::Nil)), (Ok(None), Ok(None)));
        assert_eq!(read_by(oldest_pending, array([array([text("5-0")])])).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn the_summary_of_what_is_pending_may_have_no_consumers() {
        let summary = |consumers| array([Value::Int(3), text("5-0"), text("9-0"), consumers]);
        let consumers = array([array([text("w1"), text("2")]), array([text("w2"), text("1")])]);
        assert_eq!(read_by(pending_consumers, summary(consumers)), Ok(vec![("w1".into(), 2), ("w2".into(), 1)]));
        assert_eq!(read_by(pending_consumers, summary(array([]))), Ok(vec![]));
        assert_eq!(read_by(pending_consumers, summary(Value::Nil)), Ok(vec![]));
    }

    #[test]
    fn the_script_tells_a_stream_and_its_counts() {
        let reply = |added| {
            let counts = array([array([text("5-0"), Value::Int(4), text("6-0"), Value::Int(1)])]);
            let groups = array([flat(&group_fields())]);
            let stream = [Value::Int(5), added, text("9-0"), text("5-0"), text("9-0"), Value::Int(70), groups, counts];
            Value::Array([stream.as_slice(), &[text("6-0"), Value::Int(4), Value::Int(90), Value::Int(40)]].concat())
        };
        let read = read_by(moment, reply(Value::Int(10))).unwrap().unwrap();
        assert_eq!((read.stream.length, read.stream.entries_added, read.groups.len()), (5, Some(10), 1));
        assert_eq!((read.payload, read.largest, read.counted, read.work), (70, 40, 4, 90));
        assert_eq!(read.lowest, Some(StreamId { ms: 6, seq: 0 }));
        let (after, oldest) = (StreamId { ms: 5, seq: 0 }, Some(StreamId { ms: 6, seq: 0 }));
        assert_eq!(read.counts, [Count { after, entries: 4, oldest, complete: true }]);
        let beyond_lua = read_by(moment, reply(Value::Int(i64::MAX))).unwrap().unwrap();
        assert_eq!(beyond_lua.stream.entries_added, None, "Lua would have rounded it");
        assert_eq!(read_by(moment, Value::Nil), Ok(None), "too many groups");
    }

    #[test]
    fn the_lag_is_trusted_by_server_and_version() {
        let hello = |server, version| {
            read_by(lag_trust, flat(&[("server", text(server)), ("version", text(version))])).unwrap()
        };
        for (server, version, trust) in [
            ("redis", "7.4.1", LagTrust::Never),
            ("redis", "8.0.2", LagTrust::Always),
            ("redis", "8.10.0", LagTrust::Always),
            ("redis", "255.255.255", LagTrust::Always),
            ("valkey", "8.0.1", LagTrust::Never),
            ("valkey", "8.1.1", LagTrust::Between),
            ("valkey", "9.1.2", LagTrust::Between),
            ("valkey", "10.0.0", LagTrust::Between),
            ("keydb", "8.0.0", LagTrust::Never),
            ("redis", "unstable", LagTrust::Never),
        ] {
            assert_eq!(hello(server, version), trust, "{server} {version}");
        }
    }

    #[test]
    fn info_is_read_line_by_line() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nused_memory:123\r\n\
                    used_memory_human:1M\r\nmaxmemory:0\r\nrole:master\r\nevicted_keys:4\r\n\
                    aof_last_write_status:err\r\nrdb_last_bgsave_status:ok\r\nmaxmemory_policy:noeviction\r\n\
                    errorstat_OOM:count=2752\r\nerrorstat_odd\r\n";
        let server = read_by(server, text(info)).unwrap();
        assert_eq!(server.redis_version.as_deref(), Some("7.0.15"));
        assert_eq!((server.used_memory_bytes, server.max_memory_bytes), (Some(123), Some(0)));
        assert_eq!((server.evicted_keys, server.valkey_version), (Some(4), None));
        assert_eq!((server.aof_last_write_ok, server.rdb_last_bgsave_ok), (Some(false), Some(true)));
        assert_eq!(server.maxmemory_policy.as_deref(), Some("noeviction"));
        assert_eq!(server.errors, BTreeMap::from([("OOM".to_owned(), 2752)]));
        assert_eq!(read_by(super::server, text("used_memory:lots\r\n")).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn an_append_only_file_that_is_off_refuses_no_write() {
        let ok = |info: &str| read_by(server, text(info)).unwrap().aof_last_write_ok;
        assert_eq!(ok("aof_enabled:1\r\naof_last_write_status:err\r\n"), Some(false));
        assert_eq!(ok("aof_enabled:0\r\naof_last_write_status:err\r\n"), Some(true));
        assert_eq!(ok("aof_enabled:1\r\naof_last_write_status:ok\r\n"), Some(true));
        assert_eq!(ok("aof_enabled:0\r\n"), None);
    }

    #[test]
    fn the_masters_of_a_cluster_are_read_with_their_slots() {
        let node = |host, port| array([host, Value::Int(port), text("id"), array([])]);
        let range = |last, host| array([Value::Int(0), Value::Int(last), node(host, 1), node(text("replica"), 9)]);
        let ranges = array([range(1, text("10.0.0.1")), range(2, text("")), range(3, Value::Nil), range(4, text("?"))]);
        let masters = read_by(|reply| cluster_slots(reply, "asked"), ranges).unwrap();
        let expected = [(1, "10.0.0.1"), (2, "asked"), (3, "asked"), (4, "?")];
        assert!(masters.into_iter().eq(expected.map(|(last, host)| (last, (host.to_owned(), 1)))));
        for wrong in [array([Value::Int(0)]), array([Value::Int(0), Value::Int(1), array([text("a")])])] {
            assert!(read_by(|reply| cluster_slots(reply, "asked"), array([wrong])).is_err());
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::BulkString),
            "(name|lag|pending|length|0-1|7-0|5)".prop_map(|word| text(&word)),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| prop::collection::vec(inner, 0..8).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn no_reply_makes_us_panic(reply in any_value()) {
            let mut replies = Replies::default();
            replies.push_value(&reply, false);
            read_as_every_reply(replies.only());
        }
    }
}
