//! Watches the frames of Redis's protocol as they are read, so that a reply of an insane size, or of another protocol,
//! ends the connection before it fills the memory.
//!
//! redis-rs collects a reply in memory as long as it comes, up to whatever length the peer announces.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest string of a reply. An entry's field of more is beyond what an exporter should move.
const LONGEST_STRING: usize = 8 << 20;
/// The most items of one list. `XINFO GROUPS` and `XINFO CONSUMERS` are asked below that.
const MOST_ITEMS: usize = 1 << 20;
/// The longest line: an error, or a number.
const LONGEST_LINE: usize = 64 << 10;

/// Where in a reply the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    /// At the beginning of a frame.
    Type,
    /// Behind the type, in a line whose digits so far make `number`.
    Line { kind: u8, number: usize, negative: bool, length: usize },
    /// In a string of which so many bytes are left, its line end included.
    String { left: usize },
}

/// Follows frames byte by byte.
#[derive(Debug)]
struct Frames(At);

impl Frames {
    fn follow(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while let Some((first, rest)) = bytes.split_first() {
            self.0 = match self.0 {
                At::String { left } => {
                    let read = left.min(bytes.len());
                    bytes = bytes.get(read..).unwrap_or_default();
                    self.0 = if left == read { At::Type } else { At::String { left: left - read } };
                    continue;
                }
                At::Type if b"+-:$*_,#!=(%~>|".contains(first) => {
                    At::Line { kind: *first, number: 0, negative: false, length: 0 }
                }
                At::Type => return Err(format!("a reply begins with byte {first}, which is not Redis's protocol")),
                At::Line { negative: true, .. } if *first == b'\n' => At::Type,
                At::Line { kind, number, .. } if *first == b'\n' => Self::after_line(kind, number)?,
                At::Line { length: LONGEST_LINE.., .. } => {
                    return Err(format!("a line of a reply is longer than {LONGEST_LINE} bytes"));
                }
                At::Line { kind, number, negative, length } => {
                    let number = match first {
                        b'0'..=b'9' => number.saturating_mul(10).saturating_add(usize::from(first - b'0')),
                        _ => number,
                    };
                    At::Line { kind, number, negative: negative || *first == b'-', length: length + 1 }
                }
            };
            bytes = rest;
        }
        Ok(())
    }

    fn after_line(kind: u8, number: usize) -> Result<At, String> {
        match kind {
            b'$' | b'!' | b'=' if number > LONGEST_STRING => {
                Err(format!("a reply announces a string of {number} bytes, more than {LONGEST_STRING}"))
            }
            b'*' | b'%' | b'~' | b'>' | b'|' if number > MOST_ITEMS => {
                Err(format!("a reply announces {number} items, more than {MOST_ITEMS}"))
            }
            b'$' | b'!' | b'=' => Ok(At::String { left: number + 2 }),
            _ => Ok(At::Type),
        }
    }
}

/// Why a connection was ended, once it was.
pub(crate) type Violation = Arc<OnceLock<String>>;

/// A stream whose incoming bytes are followed.
pub(crate) struct Framed<S> {
    inner: S,
    frames: Frames,
    violation: Violation,
}

impl<S> Framed<S> {
    pub(crate) fn new(inner: S, violation: Violation) -> Self {
        Self { inner, frames: Frames(At::Type), violation }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Framed<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buf))?;
        let new = buf.filled().get(before..).unwrap_or_default();
        if let Err(sentence) = self.frames.follow(new) {
            let error = io::Error::new(io::ErrorKind::InvalidData, sentence.clone());
            let _ = self.violation.set(sentence);
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Framed<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows the bytes in pieces of this size.
    fn follow(bytes: &[u8], piece: usize) -> Result<At, String> {
        let mut frames = Frames(At::Type);
        for piece in bytes.chunks(piece) {
            frames.follow(piece)?;
        }
        Ok(frames.0)
    }

    #[test]
    fn replies_are_followed_in_pieces_of_any_size() {
        let replies = b"+OK\r\n:-5\r\n$-1\r\n$0\r\n\r\n*2\r\n$3\r\na\r\n\r\n*-1\r\n%1\r\n+a\r\n:1\r\n=7\r\ntxt:abc\r\n_\r\n#t\r\n,1.5\r\n-ERR no\r\n";
        for piece in 1..=replies.len() {
            assert_eq!(follow(replies, piece), Ok(At::Type), "{piece}");
        }
        assert_eq!(follow(b"$5\r\nab", 3), Ok(At::String { left: 5 }));
    }

    const PIECES: &[&[u8]] = &[b"$3\r\nabc\r\n", b"*2\r\n", b":-1\r\n", b"+OK\r\n", b"$", b"9", b"-", b"\r\n", b"\n"];

    proptest! {
        #[test]
        fn any_bytes_are_followed_alike_in_pieces_and_at_once(
            pieces in prop::collection::vec(
                prop_oneof![
                    prop::sample::select(PIECES)
                        .prop_map(<[u8]>::to_vec),
                    prop::collection::vec(any::<u8>(), 0..4),
                ],
                0..20,
            ),
            piece in 1_usize..40,
        ) {
            let bytes = pieces.concat();
            let (cut, whole) = (follow(&bytes, piece), follow(&bytes, bytes.len().max(1)));
            prop_assert_eq!(cut, whole);
        }
    }

    #[test]
    fn insane_sizes_and_other_protocols_are_refused() {
        for (bytes, says) in [
            (&b"$2000000000\r\n"[..], "2000000000 bytes"),
            (b"$99999999999999999999999\r\n", "bytes"),
            (b"*2000000\r\n", "2000000 items"),
            (b"HTTP/1.1 400 Bad Request\r\n", "byte 72"),
            (b"\x15\x03\x01", "byte 21"),
        ] {
            for piece in [1, bytes.len()] {
                assert!(follow(bytes, piece).unwrap_err().contains(says));
            }
        }
        let line = [b"-".to_vec(), vec![b'x'; LONGEST_LINE + 2]].concat();
        assert!(follow(&line, 1000).unwrap_err().contains("line"));
    }
}
