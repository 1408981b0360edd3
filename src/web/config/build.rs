//! Builds the configuration from the fields of the file, and reads the files that they name.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use hyper::header::{self, HeaderName, HeaderValue};

use super::{
    WebConfig,
    reload::Stamp,
    schema::{self, Headers, HttpServerConfig, Refused, TlsServerConfig, line_of},
};
use crate::web::{
    basic_auth::{Hash, Users},
    tls::{self, ClientAuth, Tls, TlsSettings, Version},
};

/// Reads files, and records them so that a change can be noticed.
pub(super) struct Files {
    /// Relative paths begin here: the directory of the configuration file.
    directory: PathBuf,
    pub(super) read: Vec<(PathBuf, Option<Stamp>)>,
}

impl Files {
    pub(super) fn beside(file: &Path) -> Self {
        Self { directory: file.parent().unwrap_or(Path::new("")).to_owned(), read: Vec::new() }
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        // The metadata first, so that a change between the two calls is noticed the next time.
        self.read.push((path.to_owned(), Stamp::of(path)));
        fs::read(path)
    }
}

/// A value that cannot be used: the path of its field, and why.
struct Invalid<'a> {
    path: Vec<&'a str>,
    reason: String,
}

impl<'a> Invalid<'a> {
    fn tls(field: &'a str, reason: impl Into<String>) -> Self {
        Self { path: vec!["tls_server_config", field], reason: reason.into() }
    }
}

/// Reads the configuration file and the files that it names.
pub(super) fn read(file: &Path, files: &mut Files) -> Result<WebConfig, String> {
    read_text(file, files).map_err(|refused| {
        let line = refused.line.map_or(String::new(), |line| format!(", line {line}"));
        format!("--web.config.file {}{line}: {}", file.display(), refused.reason)
    })
}

fn read_text(file: &Path, files: &mut Files) -> Result<WebConfig, Refused> {
    let refused = |reason| Refused { line: None, reason };
    let bytes = files.read(file).map_err(|error| refused(format!("it cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".into()))?;
    let fields = schema::parse(&text)?;
    build(&fields, files).map_err(|invalid| Refused {
        line: line_of(&text, &invalid.path),
        reason: format!("{} {}", invalid.path.join("."), invalid.reason),
    })
}

fn build<'a>(fields: &'a schema::File, files: &mut Files) -> Result<WebConfig, Invalid<'a>> {
    if fields.rate_limit.is_some() {
        let reason = "is not supported: scrapes at the same moment share one collection anyway";
        return Err(Invalid { path: vec!["rate_limit"], reason: reason.into() });
    }
    // An empty section is as if it were not there.
    let tls = fields.tls_server_config.as_ref().filter(|tls| **tls != TlsServerConfig::default());
    let names = fields.basic_auth_users.as_ref().filter(|names| !names.is_empty());
    Ok(WebConfig {
        tls: tls.map(|tls| build_tls(tls, files)).transpose()?,
        users: names.map(build_users).transpose()?,
        headers: fields.http_server_config.as_ref().map_or(Ok(Vec::new()), build_headers)?,
    })
}

fn build_tls<'a>(fields: &'a TlsServerConfig, files: &mut Files) -> Result<Tls, Invalid<'a>> {
    if fields.client_allowed_sans.is_some() {
        let reason = "is not supported: give the allowed clients an authority of their own (client_ca_file)";
        return Err(Invalid::tls("client_allowed_sans", reason));
    }
    let required = |pem: Option<Pem>, field| {
        let reason = format!("has no {field}: TLS needs a certificate and its key, cert_file and key_file");
        pem.ok_or_else(|| Invalid { path: vec!["tls_server_config"], reason })
    };
    let certificate = pem(["cert_file", "cert"], [fields.cert_file.as_ref(), fields.cert.as_ref()], files)?;
    let certificate = required(certificate, "cert_file")?;
    let key = pem(["key_file", "key"], [fields.key_file.as_ref(), fields.key.as_ref()], files)?;
    let key = required(key, "key_file")?;
    let settings = TlsSettings {
        chain: certificate.parse(tls::certificates)?,
        key: key.parse(tls::private_key)?,
        client_auth: client_auth(fields, files)?,
        versions: versions(fields)?,
        cipher_suites: select("cipher_suites", fields.cipher_suites.as_ref(), tls::cipher_suites)?,
        curves: select("curve_preferences", fields.curve_preferences.as_ref(), tls::curves)?,
        prefer_server_order: fields.prefer_server_cipher_suites.unwrap_or(true),
    };
    Tls::new(settings).map_err(|reason| Invalid::tls(key.field, reason))
}

/// A PEM text, and the field that it comes from.
struct Pem {
    field: &'static str,
    text: Vec<u8>,
}

impl Pem {
    fn parse<T>(&self, parse: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, Invalid<'static>> {
        parse(&self.text).map_err(|reason| Invalid::tls(self.field, reason))
    }
}

/// A PEM text from the one of two fields that is set: the first names a file, the second holds the text.
fn pem(
    [file_field, text_field]: [&'static str; 2],
    [file, text]: [Option<&String>; 2],
    files: &mut Files,
) -> Result<Option<Pem>, Invalid<'static>> {
    match (text_of(file), text_of(text)) {
        (None, None) => Ok(None),
        (None, Some(text)) => Ok(Some(Pem { field: text_field, text: text.into() })),
        (Some(_), Some(_)) => {
            Err(Invalid::tls(file_field, format!("is given, and so is {text_field}: keep one of them")))
        }
        (Some(file), None) => {
            let path = files.directory.join(file);
            let text = files.read(&path).map_err(|error| {
                Invalid::tls(file_field, format!("names {}, which cannot be read: {error}", path.display()))
            })?;
            Ok(Some(Pem { field: file_field, text }))
        }
    }
}

/// An empty text is as if it were not there.
fn text_of(field: Option<&String>) -> Option<&str> {
    field.map(String::as_str).filter(|text| !text.is_empty())
}

fn client_auth<'a>(fields: &'a TlsServerConfig, files: &mut Files) -> Result<ClientAuth, Invalid<'a>> {
    let name = text_of(fields.client_auth_type.as_ref()).unwrap_or("NoClientCert");
    let pem = pem(["client_ca_file", "client_ca"], [fields.client_ca_file.as_ref(), fields.client_ca.as_ref()], files)?;
    if let Some(pem) = pem.as_ref().filter(|_| name == "NoClientCert") {
        let reason = "is given, but clients are not asked for certificates: say client_auth_type: \
                      RequireAndVerifyClientCert";
        return Err(Invalid::tls(pem.field, reason));
    }
    let authorities = pem.map(|pem| pem.parse(tls::authorities)).transpose()?;
    let invalid = |reason| Err(Invalid::tls("client_auth_type", reason));
    match (name, authorities) {
        ("NoClientCert", _) => Ok(ClientAuth::None),
        ("VerifyClientCertIfGiven", Some(authorities)) => Ok(ClientAuth::VerifyIfGiven(authorities)),
        ("RequireAndVerifyClientCert", Some(authorities)) => Ok(ClientAuth::RequireAndVerify(authorities)),
        ("VerifyClientCertIfGiven" | "RequireAndVerifyClientCert", None) => {
            invalid(format!("is {name}, and there is no authority to verify certificates with: say client_ca_file"))
        }
        ("RequestClientCert" | "RequireAnyClientCert" | "RequireClientCert", _) => invalid(format!(
            "is {name}, which accepts any certificate and so refuses nobody: say RequireAndVerifyClientCert or \
             VerifyClientCertIfGiven"
        )),
        _ => invalid(format!("is '{name}': say NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert")),
    }
}

fn versions(fields: &TlsServerConfig) -> Result<(Version, Version), Invalid<'_>> {
    let version = |field, value, default| match text_of(value) {
        None => Ok(default),
        Some(name) => Version::new(name).map_err(|reason| Invalid::tls(field, reason)),
    };
    let first = version("min_version", fields.min_version.as_ref(), Version::Tls12)?;
    let last = version("max_version", fields.max_version.as_ref(), Version::Tls13)?;
    if first > last {
        return Err(Invalid::tls("min_version", "is above max_version: no version is left"));
    }
    Ok((first, last))
}

fn select<T>(
    field: &'static str,
    names: Option<&Vec<String>>,
    select: impl Fn(&[String]) -> Result<T, String>,
) -> Result<Option<T>, Invalid<'static>> {
    let names = names.filter(|names| !names.is_empty());
    names.map(|names| select(names)).transpose().map_err(|reason| Invalid::tls(field, reason))
}

fn build_users(fields: &BTreeMap<String, Option<String>>) -> Result<Users, Invalid<'_>> {
    let invalid = |reason: String| Invalid { path: vec!["basic_auth_users"], reason };
    let mut hashes = BTreeMap::new();
    for (name, hash) in fields {
        // The name is not shown: without a space behind the colon it holds the hash.
        if name.contains(':') {
            let reason = "has a name with a colon, which no client can send: say USER: HASH, with a space";
            return Err(invalid(reason.into()));
        }
        let hash = text_of(hash.as_ref()).map_or_else(|| Err("has no hash".into()), Hash::new);
        let hash = hash.map_err(|reason| Invalid { path: vec!["basic_auth_users", name], reason })?;
        hashes.insert(name.clone(), hash);
    }
    Users::new(hashes).map_err(|reason| invalid(format!("cannot be used: {reason}")))
}

fn build_headers(fields: &HttpServerConfig) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid<'_>> {
    if fields.http2 == Some(true) {
        let reason = "is true, but only HTTP/1.1 is supported: say false, or leave it out";
        return Err(Invalid { path: vec!["http_server_config", "http2"], reason: reason.into() });
    }
    fields.headers.as_ref().map_or(Ok(Vec::new()), header_list)
}

fn header_list(fields: &Headers) -> Result<Vec<(HeaderName, HeaderValue)>, Invalid<'_>> {
    // The last column is the values that are allowed; none means any.
    let all: [(_, HeaderName, _, &[&str]); 5] = [
        ("Content-Security-Policy", header::CONTENT_SECURITY_POLICY, &fields.content_security_policy, &[]),
        ("Strict-Transport-Security", header::STRICT_TRANSPORT_SECURITY, &fields.strict_transport_security, &[]),
        ("X-Content-Type-Options", header::X_CONTENT_TYPE_OPTIONS, &fields.x_content_type_options, &["nosniff"]),
        ("X-Frame-Options", header::X_FRAME_OPTIONS, &fields.x_frame_options, &["deny", "sameorigin"]),
        ("X-XSS-Protection", header::X_XSS_PROTECTION, &fields.x_xss_protection, &[]),
    ];
    let mut headers = Vec::new();
    for (field, name, value, allowed) in all {
        let Some(value) = text_of(value.as_ref()) else { continue };
        let invalid = |reason| Invalid { path: vec!["http_server_config", "headers", field], reason };
        if !allowed.is_empty() && !allowed.contains(&value) {
            return Err(invalid(format!("is '{value}': say {}", allowed.join(" or "))));
        }
        let value =
            HeaderValue::from_str(value).map_err(|_| invalid("holds a character that a header cannot".into()))?;
        headers.push((name, value));
    }
    Ok(headers)
}
