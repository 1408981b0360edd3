//! TLS at our own door: what files hold into what a handshake needs, and a client's bytes through it.
//!
//! Knows rustls. Does not know which file anything came from, nor what is said over the stream.

use std::{
    fmt,
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, ring as ours},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{Accept, TlsAcceptor};

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

impl Version {
    /// Reads a version as Go names it.
    ///
    /// # Errors
    /// What is wrong and what would be right.
    pub fn new(name: &str) -> Result<Self, String> {
        match name {
            "TLS12" => Ok(Self::Tls12),
            "TLS13" => Ok(Self::Tls13),
            "TLS10" | "TLS11" => {
                Err(format!("is {name}, which is no longer safe and which rustls does not have: say TLS12"))
            }
            _ => Err(format!("is '{name}': say TLS12 or TLS13")),
        }
    }

    fn known_to_rustls(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// Certificates out of a PEM text.
///
/// # Errors
/// Where there is none, or one that is broken. What the text holds is not shown: it may be a key.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| "holds no certificate in PEM".into())
}

/// The private key out of a PEM text.
///
/// # Errors
/// Where there is none. What the text holds is not shown.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM that is not encrypted".into())
}

/// The authorities out of a PEM text.
///
/// # Errors
/// Where there is none, or one that is no authority.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate).map_err(|error| format!("holds a certificate that cannot be used: {error}"))?;
    }
    Ok(store)
}

/// Cipher suites by the names that Go gives them: those of TLS 1.2 as chosen, in this order. Those of TLS 1.3 can't be
/// chosen, in Go as here: they are all on.
///
/// # Errors
/// For a suite that we don't have, with those that we do.
pub fn cipher_suites(names: &[&str]) -> Result<Vec<SupportedCipherSuite>, String> {
    let all = ours::ALL_CIPHER_SUITES;
    let name_of = |suite: &SupportedCipherSuite| suite.suite().as_str().unwrap_or("").replace("TLS13_", "TLS_");
    let mut chosen: Vec<_> = all.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
    for name in names {
        let Some(suite) = all.iter().find(|suite| name_of(suite) == *name) else {
            let all: Vec<_> = all.iter().map(name_of).collect();
            return Err(format!("names '{name}', which we don't have: choose of {}", all.join(", ")));
        };
        if !chosen.contains(suite) {
            chosen.push(*suite);
        }
    }
    Ok(chosen)
}

/// Elliptic curves by the names that Go gives them, in this order.
///
/// # Errors
/// For a curve that we don't have, with those that we do.
pub fn curves(names: &[&str]) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let curve = |name: &&str| match *name {
        "X25519" => Ok(ours::kx_group::X25519),
        "CurveP256" => Ok(ours::kx_group::SECP256R1),
        "CurveP384" => Ok(ours::kx_group::SECP384R1),
        _ => Err(format!("names '{name}', which we don't have: choose of X25519, CurveP256, CurveP384")),
    };
    names.iter().map(curve).collect()
}

/// Whether clients show certificates.
#[derive(Debug, Default)]
pub enum Clients {
    /// They are not asked for any.
    #[default]
    Unknown,
    /// They may show one, which one of these authorities must have signed.
    MayBeKnown(RootCertStore),
    /// They must show one, which one of these authorities must have signed.
    Known(RootCertStore),
}

/// Everything that a handshake depends on.
pub struct Settings {
    /// Our certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
    /// Whether clients show certificates.
    pub clients: Clients,
    /// The versions to speak, from the first to the second.
    pub versions: (Version, Version),
    /// The cipher suites, if they were chosen.
    pub cipher_suites: Option<Vec<SupportedCipherSuite>>,
    /// The elliptic curves, if they were chosen.
    pub curves: Option<Vec<&'static dyn SupportedKxGroup>>,
    /// Whether the order of suites is ours, not the client's.
    pub our_order: bool,
}

/// How handshakes are made. Two are equal if they were made by the same reading of the files.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Puts it together.
    ///
    /// # Errors
    /// Where key and certificate do not belong together, or cannot be used.
    pub fn new(settings: Settings) -> Result<Self, String> {
        let mut provider = ours::default_provider();
        if let Some(suites) = settings.cipher_suites {
            provider.cipher_suites = suites;
        }
        if let Some(curves) = settings.curves {
            provider.kx_groups = curves;
        }
        let config =
            Self::config(Arc::new(provider), settings.versions, settings.clients, settings.chain, settings.key);
        let mut config = config.map_err(explain)?;
        config.ignore_client_order = settings.our_order;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A scraper keeps its connection. Each handshake is a full one, so that it is checked by the files as they are.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self(Arc::new(config)))
    }

    fn config(
        provider: Arc<CryptoProvider>,
        (first, last): (Version, Version),
        clients: Clients,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<ServerConfig, rustls::Error> {
        let versions = [Version::Tls12, Version::Tls13].into_iter().filter(|version| (first..=last).contains(version));
        let versions: Vec<_> = versions.map(Version::known_to_rustls).collect();
        let verifier = |authorities: RootCertStore| {
            WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(&provider))
        };
        let verifier = match clients {
            Clients::Unknown => Ok(WebPkiClientVerifier::no_client_auth()),
            Clients::MayBeKnown(authorities) => verifier(authorities).allow_unauthenticated().build(),
            Clients::Known(authorities) => verifier(authorities).build(),
        };
        let verifier = verifier.map_err(|error| rustls::Error::General(error.to_string()))?;
        ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
    }
}

fn explain(error: rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "does not belong to the certificate".into(),
        error => format!("cannot be used with the certificate: {error}"),
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A client's bytes, as they are or through TLS.
///
/// The handshake is made when the first bytes are asked for, so that whoever waits for a first request waits for the
/// handshake within the same time, and ends both alike.
pub struct Stream(Stage);

enum Stage {
    Handshake(Box<Accept<TcpStream>>),
    Open(Box<dyn Bytes>),
    /// The handshake failed: there will be no bytes.
    Failed,
}

impl Stream {
    /// A client that has just connected.
    #[must_use]
    pub fn new(client: TcpStream, tls: Option<&Tls>) -> Self {
        Self(match tls {
            None => Stage::Open(Box::new(client)),
            Some(tls) => Stage::Handshake(Box::new(TlsAcceptor::from(Arc::clone(&tls.0)).accept(client))),
        })
    }

    /// The bytes, as soon as the handshake is made.
    fn open(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Bytes>>> {
        if let Stage::Handshake(handshake) = &mut self.0 {
            self.0 = match ready!(Pin::new(handshake).poll(context)) {
                Ok(stream) => Stage::Open(Box::new(stream)),
                Err(error) => {
                    // Mostly somebody who looks which ports are open: no news, but good to know when a scraper can't.
                    tracing::debug!(%error, "a TLS handshake failed");
                    self.0 = Stage::Failed;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(match &mut self.0 {
            Stage::Open(bytes) => Ok(Pin::new(bytes)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.open(context))?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.open(context))?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.open(context))?.poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        matches!(&self.0, Stage::Open(bytes) if bytes.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stage::Open(bytes) => Pin::new(bytes).poll_flush(context),
            // Nothing was written, so there is nothing to wait for.
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Stage::Open(bytes) => Pin::new(bytes).poll_shutdown(context),
            _ => Poll::Ready(Ok(())),
        }
    }
}
