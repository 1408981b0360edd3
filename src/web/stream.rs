//! A client's bytes, plain or through TLS, and what they tell about the client's activity.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::Accept;

use crate::web::{connections::Activity, tls::Tls};

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A client's bytes. Each read and write is recorded in the connection's [`Activity`].
///
/// The handshake is made when the first bytes are read, so that it counts as a part of the wait for the first request.
pub(super) struct Stream {
    stage: Stage,
    activity: Arc<Activity>,
}

enum Stage {
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<dyn Bytes>),
    /// The handshake failed: there will be no bytes.
    Failed,
}

impl Stream {
    /// A client that has just connected.
    pub(super) fn new(client: TcpStream, tls: Option<&Tls>, activity: Arc<Activity>) -> Self {
        let stage = match tls {
            None => Stage::Open(Box::new(client)),
            Some(tls) => Stage::Handshake(Box::new(tls.accept(client))),
        };
        Self { stage, activity }
    }

    /// The bytes, when the handshake is complete.
    fn open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Bytes>>> {
        if let Stage::Handshake(handshake) = &mut self.stage {
            self.stage = match ready!(Pin::new(handshake).poll(context)) {
                Ok(stream) => Stage::Open(Box::new(stream)),
                Err(error) => {
                    // Mostly a port scan, so not for the normal log; but needed where a scraper cannot connect.
                    tracing::debug!(%error, "a TLS handshake failed");
                    self.stage = Stage::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match &mut self.stage {
            Stage::Open(bytes) => Ok(Pin::new(bytes)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.bytes_sent();
        }
        written
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(ready!(self.open(context))?.poll_read(context, buffer))?;
        self.activity.bytes_received(buffer.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.open(context))?.poll_write(context, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.open(context))?.poll_write_vectored(context, bytes);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.stage, Stage::Open(bytes) if bytes.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the handshake is complete nothing was written, so there is nothing to flush.
        if let Stage::Open(bytes) = &mut self.stage {
            ready!(Pin::new(bytes).poll_flush(context))?;
        }
        self.activity.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stage {
            Stage::Open(bytes) => Pin::new(bytes).poll_shutdown(context),
            _ => Poll::Ready(Ok(())),
        }
    }
}
