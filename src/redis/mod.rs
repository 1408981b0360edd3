//! Redis: where it is, the commands that are sent, what their replies say, and what one collection does with them.
//! Nothing outside this folder knows the redis crate.
//!
//! ```text
//! collect -> discovery, streams, groups -> connection, commands, replies
//!        |                           \-> counting
//!        |-> connect -> cluster, open -> wire
//!        \-> progress -> Snapshot
//! ```

mod cluster;
pub mod collect;
mod commands;
mod connect;
mod connection;
mod counting;
mod discovery;
pub mod endpoint;
mod errors;
mod groups;
mod open;
pub mod progress;
mod replies;
mod resp;
mod streams;
mod tls;
mod wire;

/// Reads these bytes as replies, whole and in pieces, and each of them as the reply to every command.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_replies(bytes: &[u8]) {
    for carries_entries in [false, true] {
        let whole = resp::read_in_pieces(bytes, bytes.len().max(1), carries_entries);
        let pieces = resp::read_in_pieces(bytes, 7, carries_entries);
        assert!(whole.0.items().eq(pieces.0.items()) && whole.1 == pieces.1, "{whole:?}, in pieces {pieces:?}");
        whole.0.items().for_each(replies::read_as_every_reply);
    }
}

/// Reads these bytes as the id of an entry.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_any_id(bytes: &[u8]) {
    replies::read_as_id(bytes);
}
