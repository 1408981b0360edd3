//! TLS for our listeners: certificates, keys and names of algorithms into what rustls needs for a handshake.
//!
//! Does not know which file anything comes from.

use std::{fmt, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
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
            "TLS10" | "TLS11" => Err(format!("is {name}, which is not safe and not supported: say TLS12")),
            _ => Err(format!("is '{name}': say TLS12 or TLS13")),
        }
    }

    fn supported(self) -> &'static SupportedProtocolVersion {
        match self {
            Self::Tls12 => &TLS12,
            Self::Tls13 => &TLS13,
        }
    }
}

/// The certificates of a PEM text.
///
/// # Errors
/// Where there is none, or one that is broken. What the text holds is not shown: it may be a key.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| "holds no certificate in PEM".into())
}

/// The private key of a PEM text.
///
/// # Errors
/// Where there is none. What the text holds is not shown.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| "holds no private key in PEM that is not encrypted".into())
}

/// The authorities of a PEM text.
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

/// Cipher suites by the names that Go gives them. Those of TLS 1.3 are always on, as in Go: only those of TLS 1.2 can be
/// selected.
///
/// # Errors
/// For a suite that is not supported, with those that are.
pub fn cipher_suites(names: &[String]) -> Result<Vec<SupportedCipherSuite>, String> {
    let all = ring::ALL_CIPHER_SUITES;
    let name_of = |suite: &SupportedCipherSuite| suite.suite().as_str().unwrap_or("").replace("TLS13_", "TLS_");
    let mut selected: Vec<_> = all.iter().filter(|suite| suite.tls13().is_some()).copied().collect();
    for name in names {
        let Some(suite) = all.iter().find(|suite| name_of(suite) == *name) else {
            let all: Vec<_> = all.iter().map(name_of).collect();
            return Err(format!("names '{name}', which is not supported: choose from {}", all.join(", ")));
        };
        if !selected.contains(suite) {
            selected.push(*suite);
        }
    }
    Ok(selected)
}

/// Elliptic curves by the names that Go gives them, in this order.
///
/// # Errors
/// For a curve that is not supported, with those that are.
pub fn curves(names: &[String]) -> Result<Vec<&'static dyn SupportedKxGroup>, String> {
    let curve = |name: &String| match name.as_str() {
        "X25519" => Ok(ring::kx_group::X25519),
        "CurveP256" => Ok(ring::kx_group::SECP256R1),
        "CurveP384" => Ok(ring::kx_group::SECP384R1),
        _ => Err(format!("names '{name}', which is not supported: choose from X25519, CurveP256, CurveP384")),
    };
    names.iter().map(curve).collect()
}

/// What is asked of clients, from the least to the most.
#[derive(Debug)]
pub enum ClientAuth {
    /// No certificate.
    None,
    /// A certificate is optional; one that is sent must be signed by one of these authorities.
    VerifyIfGiven(RootCertStore),
    /// A certificate signed by one of these authorities.
    RequireAndVerify(RootCertStore),
}

/// [`ClientAuth`] without the authorities. A greater one lets fewer clients in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientAuthType {
    /// `NoClientCert`
    None,
    /// `VerifyClientCertIfGiven`
    VerifyIfGiven,
    /// `RequireAndVerifyClientCert`
    RequireAndVerify,
}

impl ClientAuthType {
    /// The name in the configuration file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NoClientCert",
            Self::VerifyIfGiven => "VerifyClientCertIfGiven",
            Self::RequireAndVerify => "RequireAndVerifyClientCert",
        }
    }
}

/// Everything that a handshake depends on.
pub struct TlsSettings {
    /// Our certificate, and those between it and its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// The certificate's key.
    pub key: PrivateKeyDer<'static>,
    /// What is asked of clients.
    pub client_auth: ClientAuth,
    /// The lowest and the highest version.
    pub versions: (Version, Version),
    /// `None` is rustls's choice.
    pub cipher_suites: Option<Vec<SupportedCipherSuite>>,
    /// `None` is rustls's choice.
    pub curves: Option<Vec<&'static dyn SupportedKxGroup>>,
    /// Whether the server's order of cipher suites counts, not the client's.
    pub prefer_server_order: bool,
}

/// How handshakes are made. Two are equal if they come from the same reading of the files.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    client_auth: ClientAuthType,
}

impl Tls {
    /// Checks the settings against each other.
    ///
    /// # Errors
    /// Where key and certificate do not belong together, or cannot be used.
    pub fn new(settings: TlsSettings) -> Result<Self, String> {
        let client_auth = match settings.client_auth {
            ClientAuth::None => ClientAuthType::None,
            ClientAuth::VerifyIfGiven(_) => ClientAuthType::VerifyIfGiven,
            ClientAuth::RequireAndVerify(_) => ClientAuthType::RequireAndVerify,
        };
        let mut config = server_config(settings).map_err(explain)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // No sessions are resumed, so that each handshake is checked against the files as they are. A scraper keeps its
        // connection, so this costs little.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self { config: Arc::new(config), client_auth })
    }

    /// What is asked of clients.
    #[must_use]
    pub fn client_auth(&self) -> ClientAuthType {
        self.client_auth
    }

    /// Begins a handshake.
    pub(super) fn accept(&self, client: TcpStream) -> Accept<TcpStream> {
        TlsAcceptor::from(Arc::clone(&self.config)).accept(client)
    }
}

fn server_config(settings: TlsSettings) -> Result<ServerConfig, rustls::Error> {
    let mut provider = ring::default_provider();
    if let Some(suites) = settings.cipher_suites {
        provider.cipher_suites = suites;
    }
    if let Some(curves) = settings.curves {
        provider.kx_groups = curves;
    }
    let provider = Arc::new(provider);
    let (first, last) = settings.versions;
    let versions = [Version::Tls12, Version::Tls13].into_iter().filter(|version| (first..=last).contains(version));
    let versions: Vec<_> = versions.map(Version::supported).collect();
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(verifier(settings.client_auth, &provider)?)
        .with_single_cert(settings.chain, settings.key)?;
    config.ignore_client_order = settings.prefer_server_order;
    Ok(config)
}

fn verifier(
    client_auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    let builder =
        |authorities| WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider));
    let verifier = match client_auth {
        ClientAuth::None => Ok(WebPkiClientVerifier::no_client_auth()),
        ClientAuth::VerifyIfGiven(authorities) => builder(authorities).allow_unauthenticated().build(),
        ClientAuth::RequireAndVerify(authorities) => builder(authorities).build(),
    };
    verifier.map_err(|error| rustls::Error::General(error.to_string()))
}

fn explain(error: rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "does not belong to the certificate".into(),
        error => format!("cannot be used with the certificate: {error}"),
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}
