//! Commands and replies over one stream of bytes. Several requests may be under way: their commands go out in the order
//! in which they were made, and their replies come back in that order.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{
    commands::Command,
    resp::{Item, Replies, Scanner},
};
use crate::model::error::{Cause, Error, Kind};

/// Bytes that one read may bring, about.
const READ: usize = 64 << 10;
/// A buffer that grew for a large reply is given back.
const KEPT_BUFFER: usize = 256 << 10;

/// One connection. Dropping the last handle closes it, whatever is under way.
#[derive(Clone, Debug)]
pub(super) struct Wire {
    requests: mpsc::UnboundedSender<Request>,
    /// Why it ended, once it did.
    ended: Arc<OnceLock<Error>>,
    reads: Arc<AtomicUsize>,
    _task: Arc<AbortOnDrop>,
}

/// Commands, packed, and where their replies go.
struct Request {
    bytes: Vec<u8>,
    waiting: Waiting,
}

/// A request that is to be answered yet.
struct Waiting {
    /// Of each command: whether its reply carries entries.
    commands: Vec<bool>,
    answered: Replies,
    to: oneshot::Sender<Replies>,
}

impl Wire {
    pub(super) fn new(stream: impl AsyncRead + AsyncWrite + Send + 'static) -> Self {
        let (requests, incoming) = mpsc::unbounded_channel();
        let (ended, reads) = (Arc::new(OnceLock::new()), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn({
            let (ended, reads) = (Arc::clone(&ended), Arc::clone(&reads));
            async move {
                let mut waiting = VecDeque::new();
                let Err(error) = drive(stream, incoming, &mut waiting, &reads).await;
                // Those that wait notice the end when they are dropped, and then want to know why.
                let _ = ended.set(error);
                drop(waiting);
            }
        });
        Self { requests, ended, reads, _task: Arc::new(AbortOnDrop(task.abort_handle())) }
    }

    /// Sends these commands in one write, and gives their replies in order.
    pub(super) async fn send(&self, commands: &[Command]) -> Result<Replies, Error> {
        if commands.is_empty() {
            return Ok(Replies::default());
        }
        let bytes = commands.iter().map(Command::packed).collect::<Vec<_>>().concat();
        let (to, replies) = oneshot::channel();
        let answered = Replies::for_commands(commands.len());
        let commands = commands.iter().map(Command::carries_entries).collect();
        let request = Request { bytes, waiting: Waiting { commands, answered, to } };
        self.requests.send(request).map_err(|_| self.end())?;
        replies.await.map_err(|_| self.end())
    }

    /// Did it end?
    pub(super) fn has_ended(&self) -> bool {
        self.ended.get().is_some()
    }

    /// How often something was read so far.
    pub(super) fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn end(&self) -> Error {
        self.ended.get().cloned().unwrap_or_else(|| Error::new(Kind::Connect, "the connection was closed"))
    }
}

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Writes what is asked and reads what is answered, until either fails.
async fn drive(
    stream: impl AsyncRead + AsyncWrite,
    mut incoming: mpsc::UnboundedReceiver<Request>,
    waiting: &mut VecDeque<Waiting>,
    reads: &AtomicUsize,
) -> Result<std::convert::Infallible, Error> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (mut out, mut buffer): (Vec<u8>, Vec<u8>) = Default::default();
    let (mut written, mut scanner) = (0, Scanner::default());
    loop {
        tokio::select! {
            request = incoming.recv() => {
                let mut next = Some(request.ok_or_else(|| Error::new(Kind::Connect, "nobody uses the connection"))?);
                // What was asked in the same moment travels in the same write.
                while let Some(request) = next {
                    out.extend_from_slice(&request.bytes);
                    waiting.push_back(request.waiting);
                    next = incoming.try_recv().ok();
                }
            }
            wrote = writer.write(out.get(written..).unwrap_or_default()), if written < out.len() => {
                written += wrote.map_err(|error| broken(&error))?;
                // TLS keeps records back until then.
                writer.flush().await.map_err(|error| broken(&error))?;
                if written == out.len() {
                    (out, written) = (Vec::new(), 0);
                }
            }
            read = async {
                buffer.reserve(READ);
                reader.read_buf(&mut buffer).await
            } => {
                if read.map_err(|error| broken(&error))? == 0 {
                    return Err(closed(waiting));
                }
                reads.fetch_add(1, Ordering::Relaxed);
                deliver(&mut buffer, &mut scanner, waiting)?;
            }
        }
    }
}

/// Gives each complete reply to the request that waits for it.
fn deliver(buffer: &mut Vec<u8>, scanner: &mut Scanner, waiting: &mut VecDeque<Waiting>) -> Result<(), Error> {
    let protocol = |sentence| Error::new(Kind::Protocol, sentence);
    let mut read = 0;
    while let Some(end) = scanner.end_of_reply(buffer.get(read..).unwrap_or_default()).map_err(protocol)? {
        let reply = buffer.get(read..read + end).unwrap_or_default();
        let Some(request) = waiting.front_mut() else {
            // Nothing was asked: Redis says why it does not take the connection, before it closes it.
            let reason = String::from_utf8_lossy(reply).trim_end().to_owned();
            return Err(Error::new(Kind::Connect, format!("Redis refused the connection: {reason}")));
        };
        let carries_entries = request.commands.get(request.answered.len()).copied().unwrap_or_default();
        request.answered.push(reply, carries_entries).map_err(protocol)?;
        read += end;
        if request.answered.len() == request.commands.len()
            && let Some(Waiting { answered, to, .. }) = waiting.pop_front()
        {
            // Whoever asked may have left.
            let _ = to.send(answered);
        }
    }
    buffer.drain(..read);
    if buffer.is_empty() && buffer.capacity() > KEPT_BUFFER {
        *buffer = Vec::new();
    }
    Ok(())
}

/// The connection was closed. An error that came before may say why.
fn closed(waiting: &VecDeque<Waiting>) -> Error {
    match waiting.front().map(|request| request.answered.items().last()) {
        Some(Some(Item::Error(error))) => Error::new(
            Kind::Connect,
            format!("Redis closed the connection: {} {}", error.code(), error.details().unwrap_or_default()),
        ),
        _ => Error::new(Kind::Connect, "Redis closed the connection").because(Cause::ConnectionBroke),
    }
}

fn broken(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::new(Kind::Timeout, error.to_string()),
        _ => Error::new(Kind::Connect, error.to_string()).because(Cause::ConnectionBroke),
    }
}
