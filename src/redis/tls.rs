//! TLS to Redis: authorities and a client certificate out of files, which are read at every connect.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::{
    config::TlsFiles,
    model::error::{Error, Kind},
};

/// What a handshake with one server needs.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?
        .with_root_certificates(authorities(files.ca.as_deref())?);
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&read(cert, "--redis.tls-cert-file")?).map_err(|error| of(cert, "cert", error))?;
    let key_der = PrivateKeyDer::from_pem_slice(&read(key, "--redis.tls-key-file")?)
        .map_err(|_| of(key, "key", "holds no private key in PEM that is not encrypted"))?;
    builder.with_client_auth_cert(chain, key_der).map_err(|error| unusable(&error))
}

/// The authorities of a file, or those of the system.
fn authorities(file: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match file {
        Some(file) => {
            let pem = read(file, "--redis.tls-ca-file")?;
            for certificate in certificates(&pem).map_err(|error| of(file, "ca", error))? {
                let unusable = |error| of(file, "ca", format!("holds a certificate that cannot be used: {error}"));
                store.add(certificate).map_err(unusable)?;
            }
        }
        None => {
            store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(store)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or("holds no certificate in PEM")
}

fn read(file: &Path, option: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(file)
        .map_err(|error| Error::new(Kind::Connect, format!("{option} {} cannot be read: {error}", file.display())))
}

fn of(file: &Path, which: &str, error: impl std::fmt::Display) -> Error {
    Error::new(Kind::Connect, format!("--redis.tls-{which}-file {}: {error}", file.display()))
}

fn unusable(error: &rustls::Error) -> Error {
    Error::new(Kind::Connect, format!("the TLS files cannot be used: {error}"))
}
