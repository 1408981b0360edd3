//! TLS to Redis: a private authority, a client certificate, and the checks that refuse.

use std::{fs, path::Path, process::Command};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::support::{Exporter, Flavor, Server, free_port, until};

/// What a certificate says; OpenSSL takes one that has its authority's name for self-signed.
fn named(name: &str, hosts: Vec<String>) -> CertificateParams {
    let mut params = CertificateParams::new(hosts).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// An authority, and a certificate and key that it signed, as files.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = named("authority", vec![]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(name), self.0.pem()).unwrap();
    }

    pub fn sign(&self, dir: &Path, name: &str, host: &str, valid: bool) {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name, vec![host.to_owned()]);
        if !valid {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.0).unwrap();
        fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A server with TLS, whose certificate is for this host, and the authority's file.
struct TlsServer {
    server: Server,
    dir: tempfile::TempDir,
    port: u16,
}

impl TlsServer {
    fn start(host: &str, valid: bool, wants_client_certificate: bool) -> Self {
        Self::start_with(host, valid, wants_client_certificate, &[])
    }

    /// With further options of redis-server.
    fn start_with(host: &str, valid: bool, wants_client_certificate: bool, more: &[&str]) -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let authority = Authority::new();
        authority.write(dir.path(), "ca.crt");
        authority.sign(dir.path(), "server", host, valid);
        authority.sign(dir.path(), "client", "exporter", true);
        Authority::new().write(dir.path(), "other.crt");
        let port = free_port();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (port_word, auth) = (port.to_string(), if wants_client_certificate { "yes" } else { "no" });
        let (cert, key, ca) = (file("server.crt"), file("server.key"), file("ca.crt"));
        let files = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
        let tls = ["--tls-port", &port_word, "--tls-auth-clients", auth];
        let server = Server::start_with(Flavor::Redis7, &[&files[..], &tls, more].concat());
        Self { server, dir, port }
    }

    fn file(&self, option: &str, name: &str) -> String {
        format!("--redis.tls-{option}-file={}", self.dir.path().join(name).display())
    }

    fn exporter(&self, files: &[String]) -> Exporter {
        let url = format!("--redis.url=rediss://localhost:{}", self.port);
        let mut args = vec![url.as_str()];
        args.extend(files.iter().map(String::as_str));
        Exporter::start_bare(&args)
    }

    /// It does not connect, and says why in words that a person can use.
    fn refuses(&self, files: &[String], why: &str) {
        let exporter = self.exporter(files);
        let page = exporter.scrape();
        assert!(!page.up());
        assert_eq!(page.errors("connect"), 1.0, "{page:?}\n{}", exporter.log());
        let log = exporter.logged(why);
        assert!(log.contains("rediss://localhost"), "{log}");
        assert!(!log.contains("PRIVATE KEY"), "{log}");
    }
}

#[test]
fn a_private_authority_is_trusted_when_it_is_named() {
    let server = TlsServer::start("localhost", true, false);
    assert!(server.exporter(&[server.file("ca", "ca.crt")]).scrape().up());
    server.refuses(&[server.file("ca", "other.crt")], "invalid peer certificate");
    server.refuses(&[], "invalid peer certificate");
}

#[test]
fn a_certificate_for_another_host_or_out_of_date_is_refused() {
    let server = TlsServer::start("elsewhere.example", true, false);
    server.refuses(&[server.file("ca", "ca.crt")], "not valid for name");
    let server = TlsServer::start("localhost", false, false);
    server.refuses(&[server.file("ca", "ca.crt")], "expired");
}

#[test]
fn a_client_certificate_is_shown() {
    let server = TlsServer::start("localhost", true, true);
    let ca = server.file("ca", "ca.crt");
    let client = [ca.clone(), server.file("cert", "client.crt"), server.file("key", "client.key")];
    let exporter = server.exporter(&client);
    assert!(exporter.scrape().up(), "{}", exporter.log());
    let page = server.exporter(&[ca]).scrape();
    assert!(!page.up());
    assert_eq!(page.errors("connect"), 1.0, "{page:?}");
}

#[test]
fn the_nodes_of_a_cluster_are_asked_over_tls() {
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes", "--cluster-port", &bus];
    let server = TlsServer::start_with("localhost", true, true, &cluster);
    server.server.run("CLUSTER ADDSLOTSRANGE 0 16383");
    until("the Cluster serves", || redis::cmd("EXISTS").arg("s").exec(&mut server.server.connection()).is_ok());
    server.server.run("XGROUP CREATE s g $ MKSTREAM");
    let files = [server.file("ca", "ca.crt"), server.file("cert", "client.crt"), server.file("key", "client.key")];
    let url = format!("--redis.url=rediss://localhost:{}", server.port);
    let exporter = Exporter::start_bare(&[&url, "--redis.cluster", "--stream=*", &files[0], &files[1], &files[2]]);
    assert_eq!(exporter.scrape().group("exists", "s", "g"), Some(1.0), "{}", exporter.log());
    let exporter = Exporter::start_bare(&[&url, "--redis.cluster", &server.file("ca", "other.crt")]);
    assert!(!exporter.scrape().up());
    exporter.logged("invalid peer certificate");
}

#[test]
fn a_connection_without_tls_to_a_tls_port_is_said() {
    let server = TlsServer::start("localhost", true, false);
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"))
        .args(["status", &format!("--redis.url=redis://localhost:{}", server.port)])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("then say rediss:// instead of redis://"), "{said}");
}
