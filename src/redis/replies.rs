//! Redis values into plain facts, strictly.
//!
//! One pure function for each kind of reply. A field that we don't know is passed over; one that we need and that is
//! missing, or has another shape, is an error of the kind `protocol`: never a panic, never a made-up number. We read
//! `redis::Value` ourselves, since redis-rs's typed replies refuse names that are not UTF-8 and a negative lag.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use crate::{
    model::error::{Error, Kind},
    model::snapshot::{Clock, Consumer, Counted, Group, Name, PendingSummary, Server, Stream, StreamId},
};

/// What became of one question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<T> {
    /// It was answered.
    Yes(T),
    /// The key or group that it was about is not there.
    Gone,
    /// Redis refused it, or its answer cannot be read.
    No(Error),
}

impl<T> Answer<T> {
    /// Reads a reply with one of the functions below.
    pub fn read(reply: Value, read: impl FnOnce(Value) -> Result<T, Error>) -> Self {
        match reply {
            Value::ServerError(error) => match (error.code(), error.details()) {
                ("ERR", Some("no such key")) | ("NOGROUP", _) => Self::Gone,
                _ => Self::No(error.into()),
            },
            reply => read(reply).map_or_else(Self::No, Self::Yes),
        }
    }

    /// The same answer, made into something else.
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Answer<U> {
        match self {
            Self::Yes(fact) => Answer::Yes(map(fact)),
            Self::Gone => Answer::Gone,
            Self::No(error) => Answer::No(error),
        }
    }
}

/// `TIME`: seconds and microseconds.
///
/// # Errors
/// Kind `protocol`, as everywhere in this room.
pub fn clock(reply: Value) -> Result<Clock, Error> {
    let [seconds, micros] = items(reply)?;
    let ms = number(seconds)?.checked_mul(1000).and_then(|ms| ms.checked_add(number(micros).ok()? / 1000));
    ms.map(|ms| Clock { ms }).ok_or_else(|| Error::protocol("a time"))
}

/// `INFO`: lines of `field:value`.
///
/// # Errors
/// Kind `protocol` where it is no text, or one of our fields is no number.
pub fn server(reply: Value) -> Result<Server, Error> {
    let text = match reply {
        Value::VerbatimString { text, .. } => text,
        reply => String::from_utf8_lossy(&bytes(reply)?).into_owned(),
    };
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let text_of = |name| field(name).map(str::to_owned);
    let number_of = |name| {
        field(name).map(str::parse).transpose().map_err(|_| Error::protocol(format_args!("a number for {name}")))
    };
    Ok(Server {
        redis_version: text_of("redis_version"),
        valkey_version: text_of("valkey_version"),
        mode: text_of("redis_mode").or_else(|| text_of("server_mode")),
        role: text_of("role"),
        uptime_seconds: number_of("uptime_in_seconds")?,
        used_memory_bytes: number_of("used_memory")?,
        max_memory_bytes: number_of("maxmemory")?,
        connected_clients: number_of("connected_clients")?,
        blocked_clients: number_of("blocked_clients")?,
        evicted_keys: number_of("evicted_keys")?,
    })
}

/// `SCAN`: the cursor for the next page, 0 after the last one, and the keys of this page.
///
/// # Errors
/// Kind `protocol`.
pub fn scan_page(reply: Value) -> Result<(u64, Vec<Name>), Error> {
    let [cursor, keys] = items(reply)?;
    let keys = list(keys)?.into_iter().map(name).collect::<Result<_, _>>()?;
    Ok((number(cursor)?, keys))
}

/// `CLUSTER SLOTS`: the masters' addresses, each once.
///
/// # Errors
/// Kind `protocol`.
pub fn cluster_masters(reply: Value) -> Result<BTreeSet<(String, u16)>, Error> {
    let master = |range: Value| {
        // First and last slot, then the master, then its replicas.
        let node =
            list(range)?.into_iter().nth(2).ok_or_else(|| Error::protocol("a master for each range of slots"))?;
        let mut node = list(node)?.into_iter();
        let (Some(host), Some(port)) = (node.next(), node.next()) else {
            return Err(Error::protocol("a host and a port"));
        };
        let host = String::from_utf8_lossy(&bytes(host)?).into_owned();
        let port = u16::try_from(number(port)?).map_err(|_| Error::protocol("a port"))?;
        Ok((host, port))
    };
    list(reply)?.into_iter().map(master).collect()
}

/// `XINFO STREAM`, without the groups, which are another question.
///
/// # Errors
/// Kind `protocol`.
pub fn stream(reply: Value) -> Result<Stream, Error> {
    let (mut length, mut groups, mut last_generated) = (None, None, None);
    let (mut entries_added, mut first, mut last) = (None, None, None);
    for (field, value) in fields(reply)? {
        match field.as_slice() {
            b"length" => length = Some(number(value)?),
            b"groups" => groups = Some(number(value)?),
            b"last-generated-id" => last_generated = Some(id(value)?),
            b"entries-added" => entries_added = Some(number(value)?),
            b"first-entry" => first = entry_id(value)?,
            b"last-entry" => last = entry_id(value)?,
            _ => {}
        }
    }
    Ok(Stream {
        length: need(length, "length")?,
        group_count: need(groups, "groups")?,
        last_generated: need(last_generated, "last-generated-id")?,
        entries_added,
        first,
        last,
        groups: BTreeMap::new(),
        missing_groups: Vec::new(),
        refused: Vec::new(),
    })
}

/// `XINFO GROUPS`.
///
/// # Errors
/// Kind `protocol`.
pub fn groups(reply: Value) -> Result<Vec<(Name, Group)>, Error> {
    list(reply)?.into_iter().map(group).collect()
}

fn group(reply: Value) -> Result<(Name, Group), Error> {
    let (mut group_name, mut consumers, mut pending, mut last_delivered) = (None, None, None, None);
    let (mut entries_read, mut lag) = (None, None);
    for (field, value) in fields(reply)? {
        match field.as_slice() {
            b"name" => group_name = Some(name(value)?),
            b"consumers" => consumers = Some(number(value)?),
            b"pending" => pending = Some(number(value)?),
            b"last-delivered-id" => last_delivered = Some(id(value)?),
            b"entries-read" => entries_read = nullable(value, integer)?,
            b"lag" => lag = nullable(value, integer)?,
            _ => {}
        }
    }
    let group = Group {
        consumers: need(consumers, "consumers")?,
        last_delivered: need(last_delivered, "last-delivered-id")?,
        entries_read,
        lag,
        pending: need(pending, "pending")?,
        pending_summary: None,
        counted: None,
        busy_consumers: Vec::new(),
    };
    Ok((need(group_name, "name")?, group))
}

/// The summary form of `XPENDING`: how many, and more about them where there are any.
///
/// # Errors
/// Kind `protocol`.
pub fn pending(reply: Value) -> Result<(u64, Option<PendingSummary>), Error> {
    let [count, oldest, _newest, consumers] = items(reply)?;
    let count = number(count)?;
    let summary = match nullable(oldest, id)? {
        Some(oldest) => Some(PendingSummary { oldest, consumers: list(consumers)?.len() as u64 }),
        None if count == 0 => None,
        None => return Err(Error::protocol("a lowest id where something is pending")),
    };
    Ok((count, summary))
}

/// Our script's answer: how many it counted, and the first of them. More than `max` is more than it may count. Whether
/// it was undisturbed is for the next question to say.
///
/// # Errors
/// Kind `protocol`.
pub fn counted(reply: Value, max: u32) -> Result<Counted, Error> {
    let [entries, oldest] = items(reply)?;
    let entries = number(entries)?;
    let entries_known = (entries <= u64::from(max)).then_some(entries);
    Ok(Counted { entries: entries_known, oldest: nullable(oldest, id)?, undisturbed: false })
}

/// `XRANGE ... COUNT 1`: the first entry of a range, and no count.
///
/// # Errors
/// Kind `protocol`.
pub fn oldest(reply: Value) -> Result<Counted, Error> {
    let oldest = list(reply)?.into_iter().next().map(entry_id).transpose()?.flatten();
    Ok(Counted { entries: None, oldest, undisturbed: false })
}

/// `XINFO CONSUMERS`: those that hold something pending, most first, at most `max` of them.
///
/// # Errors
/// Kind `protocol`.
pub fn busy_consumers(reply: Value, max: usize) -> Result<Vec<Consumer>, Error> {
    let mut busy = Vec::new();
    for reply in list(reply)? {
        let consumer = consumer(reply)?;
        if consumer.pending > 0 {
            busy.push(consumer);
        }
    }
    busy.sort_by(|a, b| b.pending.cmp(&a.pending).then_with(|| a.name.cmp(&b.name)));
    busy.truncate(max);
    Ok(busy)
}

fn consumer(reply: Value) -> Result<Consumer, Error> {
    let (mut consumer_name, mut pending, mut idle) = (None, None, None);
    for (field, value) in fields(reply)? {
        match field.as_slice() {
            b"name" => consumer_name = Some(name(value)?),
            b"pending" => pending = Some(number(value)?),
            b"idle" => idle = Some(number(value)?),
            _ => {}
        }
    }
    Ok(Consumer {
        name: need(consumer_name, "name")?,
        pending: need(pending, "pending")?,
        idle_ms: need(idle, "idle")?,
    })
}

fn need<T>(field: Option<T>, name: &str) -> Result<T, Error> {
    field.ok_or_else(|| Error::protocol(format_args!("a field '{name}'")))
}

fn nullable<T>(value: Value, read: impl FnOnce(Value) -> Result<T, Error>) -> Result<Option<T>, Error> {
    if value == Value::Nil { Ok(None) } else { read(value).map(Some) }
}

/// Field and value pairs: a flat list in RESP2, a map in RESP3.
fn fields(reply: Value) -> Result<Vec<(Vec<u8>, Value)>, Error> {
    let pairs = match reply {
        Value::Map(pairs) => pairs,
        reply => {
            let mut flat = list(reply)?.into_iter();
            let mut pairs = Vec::with_capacity(flat.len() / 2);
            while let Some(field) = flat.next() {
                pairs.push((field, flat.next().ok_or_else(|| Error::protocol("pairs of field and value"))?));
            }
            pairs
        }
    };
    pairs.into_iter().map(|(field, value)| Ok((bytes(field)?, value))).collect()
}

/// A list of just this many.
fn items<const N: usize>(reply: Value) -> Result<[Value; N], Error> {
    list(reply)?.try_into().map_err(|_| Error::protocol(format_args!("a list of {N}")))
}

fn list(reply: Value) -> Result<Vec<Value>, Error> {
    match reply {
        Value::Array(items) | Value::Set(items) => Ok(items),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(Error::protocol("a list")),
    }
}

fn bytes(reply: Value) -> Result<Vec<u8>, Error> {
    match reply {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Okay => Ok(b"OK".to_vec()),
        Value::ServerError(error) => Err(error.into()),
        _ => Err(Error::protocol("a string")),
    }
}

fn name(reply: Value) -> Result<Name, Error> {
    bytes(reply).map(Name::from)
}

fn integer(reply: Value) -> Result<i64, Error> {
    let wrong = || Error::protocol("an integer");
    match reply {
        Value::Int(integer) => Ok(integer),
        reply => std::str::from_utf8(&bytes(reply)?).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong),
    }
}

fn number(reply: Value) -> Result<u64, Error> {
    let wrong = || Error::protocol("a number that is not negative");
    match reply {
        Value::Int(integer) => u64::try_from(integer).map_err(|_| wrong()),
        reply => std::str::from_utf8(&bytes(reply)?).ok().and_then(|text| text.parse().ok()).ok_or_else(wrong),
    }
}

fn id(reply: Value) -> Result<StreamId, Error> {
    let wrong = || Error::new(Kind::Protocol, "unexpected reply: expected an id like 1740691320501-0");
    let bytes = bytes(reply)?;
    let (ms, seq) = std::str::from_utf8(&bytes).ok().and_then(|text| text.split_once('-')).ok_or_else(wrong)?;
    Ok(StreamId { ms: ms.parse().map_err(|_| wrong())?, seq: seq.parse().map_err(|_| wrong())? })
}

/// The id of an entry, whose payload is dropped here; null where there is no entry.
fn entry_id(reply: Value) -> Result<Option<StreamId>, Error> {
    nullable(reply, |entry| {
        let [entry_id, _payload] = items(entry)?;
        id(entry_id)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    fn one_group(fields: &[(&str, Value)]) -> Result<Group, Error> {
        groups(array([flat(fields)])).map(|mut groups| groups.remove(0).1)
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
    fn a_map_of_resp3_is_read_like_the_list_of_resp2() {
        let map = group_fields().into_iter().map(|(name, value)| (text(name), value)).collect();
        assert_eq!(groups(array([Value::Map(map)])), groups(array([flat(&group_fields())])));
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
        assert_eq!(groups(array([array([text("name")])])).unwrap_err().kind(), Kind::Protocol, "an odd number");
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
        let read = stream(flat(&fields)).unwrap();
        assert_eq!((read.first, read.last), (Some(StreamId { ms: 7, seq: 0 }), Some(StreamId { ms: 9, seq: 1 })));
        assert_eq!((read.length, read.group_count, read.entries_added), (2, 1, Some(5)));
        let empty = [&fields[..5], &[("first-entry", Value::Nil), ("last-entry", Value::Nil)]].concat();
        assert_eq!(stream(flat(&empty)).unwrap().first, None);
    }

    #[test]
    fn a_summary_of_nothing_pending_has_nulls() {
        let nothing = array([Value::Int(0), Value::Nil, Value::Nil, Value::Nil]);
        assert_eq!(pending(nothing), Ok((0, None)));
        let consumers = array([array([text("w1"), text("2")]), array([text("w2"), text("1")])]);
        let some = array([Value::Int(3), text("5-0"), text("9-0"), consumers]);
        let summary = PendingSummary { oldest: StreamId { ms: 5, seq: 0 }, consumers: 2 };
        assert_eq!(pending(some), Ok((3, Some(summary))));
        let odd = array([Value::Int(3), Value::Nil, Value::Nil, Value::Nil]);
        assert_eq!(pending(odd).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn one_more_than_may_be_counted_is_no_number() {
        let reply = |entries| array([Value::Int(entries), text("5-0")]);
        assert_eq!(counted(reply(10), 10).unwrap().entries, Some(10));
        let beyond = counted(reply(11), 10).unwrap();
        assert_eq!((beyond.entries, beyond.oldest), (None, Some(StreamId { ms: 5, seq: 0 })));
        assert_eq!(
            counted(array([Value::Int(0), Value::Nil]), 10),
            Ok(Counted { entries: Some(0), oldest: None, undisturbed: false })
        );
    }

    #[test]
    fn info_is_read_line_by_line() {
        let info = "# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\nused_memory:123\r\n\
                    used_memory_human:1M\r\nmaxmemory:0\r\nrole:master\r\nevicted_keys:4\r\n";
        let server = server(text(info)).unwrap();
        assert_eq!(server.redis_version.as_deref(), Some("7.0.15"));
        assert_eq!((server.used_memory_bytes, server.max_memory_bytes), (Some(123), Some(0)));
        assert_eq!((server.evicted_keys, server.valkey_version), (Some(4), None));
        assert_eq!(super::server(text("used_memory:lots\r\n")).unwrap_err().kind(), Kind::Protocol);
    }

    #[test]
    fn the_masters_of_a_cluster_are_read_each_once() {
        let node = |port| array([text("10.0.0.1"), Value::Int(port), text("id"), array([])]);
        let range = |port| array([Value::Int(0), Value::Int(100), node(port), node(9)]);
        let masters = cluster_masters(array([range(1), range(2), range(1)])).unwrap();
        assert_eq!(masters.into_iter().map(|(_, port)| port).collect::<Vec<_>>(), [1, 2]);
        assert!(cluster_masters(array([array([Value::Int(0)])])).is_err());
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            prop::collection::vec(any::<u8>(), 0..6).prop_map(Value::BulkString),
            "(name|lag|pending|length|0-1|7-0|5)".prop_map(|word| text(&word)),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_reply_makes_us_panic(reply in any_value()) {
            let _ = clock(reply.clone());
            let _ = server(reply.clone());
            let _ = scan_page(reply.clone());
            let _ = cluster_masters(reply.clone());
            let _ = stream(reply.clone());
            let _ = groups(reply.clone());
            let _ = pending(reply.clone());
            let _ = counted(reply.clone(), 10);
            let _ = oldest(reply.clone());
            let _ = busy_consumers(reply, 10);
        }
    }
}
