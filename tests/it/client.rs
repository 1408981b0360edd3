//! A TLS client: what it trusts, and which certificate it sends.

use std::{io, net::TcpStream, path::Path, sync::Arc};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};

use crate::support::{Response, SOON, exchange};

/// A TLS client.
pub struct Client(Arc<ClientConfig>);

pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    /// Trusts the authority of this file, and sends the certificate of this name.
    pub fn new(
        dir: &Path,
        ca: &str,
        certificate: Option<&str>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join(ca)).unwrap()).unwrap();
        // The reverse of the server's order, so that a test can see whose order counts.
        let mut provider = ring::default_provider();
        provider.cipher_suites.reverse();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = CertificateDer::from_pem_file(dir.join(format!("{name}.crt"))).unwrap();
                let key = PrivateKeyDer::from_pem_file(dir.join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        // As Prometheus offers.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self(Arc::new(config))
    }

    pub fn connect(&self, address: &str) -> TlsStream {
        let client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        // As Go and curl do. Otherwise a request waits until the server acknowledges the end of the handshake.
        client.set_nodelay(true).unwrap();
        let connection = ClientConnection::new(Arc::clone(&self.0), ServerName::try_from("localhost").unwrap());
        StreamOwned::new(connection.unwrap(), client)
    }

    pub fn get(&self, address: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
        exchange(&mut self.connect(address), address, "GET", path, headers)
    }

    pub fn connects(&self, address: &str) -> bool {
        self.get(address, "/-/healthy", &[]).is_ok_and(|response| response.status == 200)
    }
}
