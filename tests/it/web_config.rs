//! The web configuration file: TLS, passwords and headers of the HTTP server, and how the file is read again.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    CipherSuite, NamedGroup,
    version::{TLS12, TLS13},
};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::{
    client::Client,
    http::Silent,
    support::{Exporter, Page, Response, SOON, Server, exchange, free_port, until},
    tls::Authority,
};

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// A web configuration file, an authority, and the certificates that it signed for the exporter and for a client.
struct Files {
    dir: TempDir,
    authority: Authority,
}

impl Files {
    fn new(config: &str) -> Self {
        let files = Self { dir: TempDir::new().unwrap(), authority: Authority::new() };
        files.authority.write(files.dir.path(), "ca.crt");
        files.authority.sign(files.dir.path(), "server", "localhost", true);
        files.authority.sign(files.dir.path(), "client", "prometheus", true);
        files.write("web.yml", config);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn option(&self) -> String {
        format!("--web.config.file={}", self.dir.path().join("web.yml").display())
    }

    /// The exporter with this configuration. Its Redis does not exist: these tests need none.
    fn exporter(&self) -> Exporter {
        Exporter::start_bare(&[&self.option(), "--redis.url=redis://127.0.0.1:1"])
    }

    /// A client that trusts our authority.
    fn client(&self) -> Client {
        Client::new(self.dir.path(), "ca.crt", None, &[&TLS12, &TLS13])
    }

    fn with_certificate(&self, name: &str) -> Client {
        Client::new(self.dir.path(), "ca.crt", Some(name), &[&TLS12, &TLS13])
    }
}

/// Sends a request and leaves the connection open. Returns the response's head.
fn request_on(client: &mut (impl Read + Write), login: &str) -> io::Result<String> {
    let head = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\n\r\n");
    client.write_all(head.as_bytes())?;
    let mut response = vec![0; 1024];
    let read = client.read(&mut response)?;
    Ok(String::from_utf8_lossy(&response[..read]).into_owned())
}

fn verifying(client_auth_type: &str) -> String {
    format!("{TLS}  client_ca_file: ca.crt\n  client_auth_type: {client_auth_type}\n")
}

fn hash(password: &str, cost: u32) -> String {
    bcrypt::hash(password, cost).unwrap()
}

fn users(users: &[(&str, &str, u32)]) -> String {
    let lines = users.iter().map(|(name, password, cost)| format!("  {name}: {}\n", hash(password, *cost)));
    ["basic_auth_users:\n".to_owned()].into_iter().chain(lines).collect::<Vec<_>>().concat()
}

fn login(name: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
}

/// The status for this login, over plain HTTP.
fn status(exporter: &Exporter, name: &str, password: &str) -> u16 {
    exporter.get("/-/healthy", &[("Authorization", &login(name, password))]).status
}

#[test]
fn a_client_that_trusts_our_authority_connects_over_tls() {
    let files = Files::new(TLS);
    Authority::new().write(files.dir.path(), "other.crt");
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[&files.option()]);
    let page = files.client().get(&exporter.address, "/metrics", &[]).unwrap();
    assert!(page.text().contains("\nredis_up 1\n"));
    assert!(exporter.logged("message=serving").contains("tls=true users=0"), "{}", exporter.log());

    let untrusting = Client::new(files.dir.path(), "other.crt", None, &[&TLS13]);
    let refused = untrusting.get(&exporter.address, "/metrics", &[]).unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[test]
fn a_client_without_tls_gets_no_response_and_no_line_in_the_log() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    for bytes in ["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "\u{16}\u{3}\u{1}", "", "\0\0\0\0\0\0\0\0\0\0"] {
        let mut client = TcpStream::connect(&exporter.address).unwrap();
        client.write_all(bytes.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut response = Vec::new();
        let _ = client.read_to_end(&mut response);
        assert!(response.len() < 10, "an alert at most: {response:?}");
    }
    assert!(files.client().connects(&exporter.address));
    assert_eq!(exporter.log().lines().count(), 1, "{}", exporter.log());
}

#[test]
fn client_certificates_are_verified() {
    let files = Files::new("");
    Authority::new().sign(files.dir.path(), "unknown", "prometheus", true);
    files.authority.sign(files.dir.path(), "expired", "prometheus", false);
    for (client_auth_type, without) in [("RequireAndVerifyClientCert", false), ("VerifyClientCertIfGiven", true)] {
        files.write("web.yml", &verifying(client_auth_type));
        let exporter = files.exporter();
        assert!(files.with_certificate("client").connects(&exporter.address));
        assert!(!files.with_certificate("unknown").connects(&exporter.address));
        assert!(!files.with_certificate("expired").connects(&exporter.address));
        assert_eq!(files.client().connects(&exporter.address), without, "{client_auth_type}");
    }
}

#[test]
fn versions_cipher_suites_and_curves_are_those_of_the_file() {
    let files = Files::new(&format!("{TLS}  min_version: TLS13\n"));
    let exporter = files.exporter();
    let client = |version| Client::new(files.dir.path(), "ca.crt", None, &[version]);
    assert_eq!((client(&TLS12).connects(&exporter.address), client(&TLS13).connects(&exporter.address)), (false, true));

    files.write("web.yml", &format!("{TLS}  max_version: TLS12\n"));
    assert_eq!((client(&TLS12).connects(&exporter.address), client(&TLS13).connects(&exporter.address)), (true, false));

    let selected = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
                  curve_preferences: [CurveP384]\n";
    for (more, suite, curve) in [
        (selected, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, NamedGroup::secp384r1),
        ("", CipherSuite::TLS13_AES_256_GCM_SHA384, NamedGroup::X25519),
        ("  prefer_server_cipher_suites: false\n", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, NamedGroup::X25519),
    ] {
        files.write("web.yml", &format!("{TLS}{more}"));
        let mut connection = files.client().connect(&exporter.address);
        request_on(&mut connection, "").unwrap();
        let agreed = &connection.conn;
        assert_eq!(agreed.negotiated_cipher_suite().unwrap().suite(), suite, "{more}");
        assert_eq!(agreed.negotiated_key_exchange_group().unwrap().name(), curve, "{more}");
        assert_eq!(agreed.alpn_protocol(), Some(&b"http/1.1"[..]), "the client also offers h2");
    }
}

#[test]
fn certificates_can_be_in_the_file_itself() {
    let files = Files::new("");
    let indented = |name: &str| {
        let text = fs::read_to_string(files.dir.path().join(name)).unwrap();
        format!("    {}\n", text.trim_end().replace('\n', "\n    "))
    };
    let (cert, key) = (indented("server.crt"), indented("server.key"));
    files.write("web.yml", &format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}"));
    assert!(files.client().connects(&files.exporter().address));
}

#[test]
fn every_path_needs_a_user_and_the_right_password() {
    let files = Files::new(&users(&[("alice", "wonder:land", 4), ("bob", "builder", 4)]));
    let exporter = files.exporter();
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/nothing"] {
        let refused = exporter.get(path, &[]);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic"), "{path}");
        assert_eq!(refused.body, b"401 Unauthorized\n");
        let admitted = exporter.get(path, &[("Authorization", &login("alice", "wonder:land"))]);
        assert_eq!(admitted.status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    assert_eq!(status(&exporter, "bob", "builder"), 200);
    for (name, password) in
        [("alice", "builder"), ("bob", ""), ("carol", "builder"), ("", ""), ("ALICE", "wonder:land")]
    {
        assert_eq!(status(&exporter, name, password), 401, "{name}:{password}");
    }
    for header in ["", "Basic", "Basic x", "Bearer YWxpY2U6d29uZGVyOmxhbmQ="] {
        assert_eq!(exporter.get("/", &[("Authorization", header)]).status, 401, "{header}");
    }
    let mut client = TcpStream::connect(&exporter.address).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    let refused = request_on(&mut client, &login("alice", "wrong")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "the connection is closed after a 401");
}

fn time(mut work: impl FnMut()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// The shortest of several times.
fn fastest(mut work: impl FnMut()) -> Duration {
    [(); 4].map(|()| time(&mut work)).into_iter().min().unwrap()
}

#[test]
fn a_right_password_is_hashed_once_and_the_time_does_not_tell_which_users_exist() {
    let files = Files::new(&users(&[("alice", "right", 9), ("bob", "b", 9), ("carol", "c", 9)]));
    let exporter = files.exporter();
    let first = time(|| assert_eq!(status(&exporter, "alice", "right"), 200));
    let cached = fastest(|| assert_eq!(status(&exporter, "alice", "right"), 200));
    let wrong = fastest(|| assert_eq!(status(&exporter, "alice", "wrong"), 401));
    let unknown = fastest(|| assert_eq!(status(&exporter, "dave", "wrong"), 401));
    println!("first {first:?}, cached {cached:?}, wrong password {wrong:?}, unknown user {unknown:?}");
    assert!(cached * 5 < first, "cached {cached:?}, first {first:?}");
    let ratio = unknown.as_secs_f64() / wrong.as_secs_f64();
    // Without a hash to check, it would be a hundred times less.
    assert!((0.1..10.0).contains(&ratio), "unknown user {unknown:?}, wrong password {wrong:?}");
}

/// A client with this source address.
fn connect_from(source: &str, exporter: &Exporter) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let source: SocketAddr = format!("{source}:0").parse().unwrap();
    socket.bind(&source.into()).unwrap();
    socket.connect(&exporter.address.parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.set_read_timeout(Some(3 * SOON)).unwrap();
    socket.into()
}

/// Sends logins with wrong passwords from these addresses, and does not wait for the responses.
fn guess<'a>(exporter: &Exporter, sources: impl Iterator<Item = &'a str>) -> Vec<TcpStream> {
    let guess = |(number, source)| {
        let mut client = connect_from(source, exporter);
        let login = login("alice", &format!("guess{number}"));
        let head = format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\n\r\n");
        client.write_all(head.as_bytes()).unwrap();
        client
    };
    sources.enumerate().map(guess).collect()
}

fn scrape_from(source: &str, exporter: &Exporter) -> Response {
    let headers = [("Authorization", &*login("alice", "right"))];
    exchange(&mut connect_from(source, exporter), &exporter.address, "GET", "/metrics", &headers).unwrap()
}

#[test]
fn wrong_passwords_take_one_thread_and_delay_no_password_that_was_right_before() {
    let files = Files::new(&users(&[("alice", "right", 9)]));
    let exporter = files.exporter();
    assert_eq!(status(&exporter, "alice", "right"), 200);
    let guesses = guess(&exporter, ["127.0.0.1"; 100].into_iter());
    let page = Page(scrape_from("127.0.0.1", &exporter).text());
    // The one that serves, the one that checks, and perhaps one that has just checked.
    let threads = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let threads = threads.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().to_owned();
    assert!(threads.parse::<u32>().unwrap() <= 4, "{threads} threads");
    assert!(!page.up());
    let unanswered = guesses.iter().filter(|client| !has_response(client)).count();
    assert!(unanswered > 20, "the scrape waited for guesses: {unanswered} are left");
}

/// Whether a response, or the end of the connection, has arrived.
fn has_response(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let arrived = client.peek(&mut [0]).is_ok();
    client.set_nonblocking(false).unwrap();
    arrived
}

/// Three hundred guesses just after a start, then the first scrape. Returns how many guesses were checked before it.
fn checked_before_the_scrape<'a>(sources: impl Iterator<Item = &'a str>, scraper: &str) -> usize {
    let files = Files::new(&users(&[("alice", "right", 10)]));
    let exporter = files.exporter();
    let guesses = guess(&exporter, sources);
    let response = scrape_from(scraper, &exporter);
    assert_eq!(response.status, 200);
    let mut checked = 0;
    for mut client in guesses.into_iter().filter(has_response) {
        let mut head = [0; 12];
        client.read_exact(&mut head).unwrap();
        match &head {
            b"HTTP/1.1 401" => checked += 1,
            head => assert_eq!(head, b"HTTP/1.1 503", "{}", String::from_utf8_lossy(head)),
        }
    }
    checked
}

#[test]
fn a_right_password_waits_for_a_few_checks_whatever_others_guess() {
    // Connecting three hundred clients takes a while, and checks go on meanwhile.
    let one_address = checked_before_the_scrape(["127.0.0.2"; 300].into_iter(), "127.0.0.1");
    let same_address = checked_before_the_scrape(["127.0.0.1"; 300].into_iter(), "127.0.0.1");
    let addresses: Vec<_> = (0..300).map(|number| format!("127.0.1.{}", number % 250 + 1)).collect();
    let many_addresses = checked_before_the_scrape(addresses.iter().map(String::as_str), "127.0.0.1");
    println!("checks before the right password: {one_address}, {same_address}, {many_addresses}");
    assert!(one_address.max(same_address).max(many_addresses) < 30);
}

#[test]
fn changed_users_apply_from_the_next_request_on() {
    let files = Files::new(&users(&[("alice", "old", 4)]));
    let exporter = files.exporter();
    let mut kept = TcpStream::connect(&exporter.address).unwrap();
    assert!(request_on(&mut kept, &login("alice", "old")).unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(status(&exporter, "bob", "b"), 401);

    files.write("web.yml", &users(&[("alice", "new", 4), ("bob", "b", 4)]));
    assert!(request_on(&mut kept, &login("alice", "old")).unwrap().starts_with("HTTP/1.1 401"));
    assert_eq!((status(&exporter, "alice", "new"), status(&exporter, "bob", "b")), (200, 200));
    assert_eq!(exporter.log().matches("read the web configuration again").count(), 1, "{}", exporter.log());
}

#[test]
fn a_rotated_certificate_is_used_from_the_next_handshake_on() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    let old = files.client();
    let mut kept = old.connect(&exporter.address);
    assert!(!request_on(&mut kept, "").unwrap().contains("connection: close"));

    let rotated = Authority::new();
    rotated.write(files.dir.path(), "ca.crt");
    rotated.sign(files.dir.path(), "server", "localhost", true);
    assert!(files.client().connects(&exporter.address), "{}", exporter.log());
    assert!(!old.connects(&exporter.address));
    let last = request_on(&mut kept, "").unwrap();
    assert!(
        last.starts_with("HTTP/1.1 200") && last.contains("connection: close"),
        "the client has to make a new handshake: {last}"
    );
}

#[test]
fn a_secret_that_kubernetes_swaps_is_read_again() {
    let files = Files::new("");
    let path = |name: &str| files.dir.path().join(name);
    for (version, password) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir(path(version)).unwrap();
        files.write(&format!("{version}/web.yml"), &users(&[("alice", password, 4)]));
    }
    symlink("v1", path("..data")).unwrap();
    fs::remove_file(path("web.yml")).unwrap();
    symlink("..data/web.yml", path("web.yml")).unwrap();
    let exporter = files.exporter();
    assert_eq!((status(&exporter, "alice", "one"), status(&exporter, "alice", "two")), (200, 401));

    symlink("v2", path("..data_tmp")).unwrap();
    fs::rename(path("..data_tmp"), path("..data")).unwrap();
    assert_eq!((status(&exporter, "alice", "one"), status(&exporter, "alice", "two")), (401, 200));
}

#[test]
fn a_broken_file_is_logged_once_and_the_previous_configuration_stays() {
    let good = format!("{TLS}{}", users(&[("alice", "s3cret", 4)]));
    let files = Files::new(&good);
    let (exporter, client) = (files.exporter(), files.client());
    let alice = login("alice", "s3cret");
    let admits = || client.get(&exporter.address, "/", &[("Authorization", &alice)]).unwrap().status == 200;
    let admits_only_alice = || admits() && client.get(&exporter.address, "/", &[]).unwrap().status == 401;
    let refusals = || exporter.log().matches("cannot be used").count();

    for (number, (broken, why)) in [
        ("basic_auth_users: [", "line 2"),
        ("", "has no tls_server_config any more"),
        (TLS, "has no basic_auth_users any more"),
        (&format!("{good}  bob: s3cret\n"), "line 6: basic_auth_users.bob is no bcrypt hash"),
        (&good.replace("server.key", "client.key"), "line 3: tls_server_config.key_file does not belong"),
    ]
    .into_iter()
    .enumerate()
    {
        files.write("web.yml", broken);
        for _ in 0..3 {
            assert!(admits_only_alice(), "{broken}");
        }
        assert!(exporter.logged(why).contains("level=error"), "{}", exporter.log());
        assert_eq!(refusals(), number + 1, "{}", exporter.log());
    }
    // Longer than the time after which the same file is tried again.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_500) {
        assert!(admits_only_alice());
    }
    assert_eq!(refusals(), 5, "{}", exporter.log());
    fs::remove_file(files.dir.path().join("web.yml")).unwrap();
    assert!(admits());
    exporter.logged("No such file");

    files.write("web.yml", &good);
    assert!(admits());
    let log = exporter.logged("read the web configuration again");
    assert!(!log.contains("s3cret") && !log.contains("$2b$") && !log.contains(&alice[6..]), "{log}");
}

#[test]
fn a_file_that_checks_clients_less_is_refused_until_a_restart() {
    let required = verifying("RequireAndVerifyClientCert");
    let files = Files::new(&required);
    let exporter = files.exporter();
    let truncated_after = |end: &str| &required[..required.find(end).unwrap() + end.len()];
    for (number, (weaker, why)) in [
        (truncated_after("server.key\n"), "from RequireAndVerifyClientCert to NoClientCert"),
        (&verifying("VerifyClientCertIfGiven"), "from RequireAndVerifyClientCert to VerifyClientCertIfGiven"),
        (&verifying("NoClientCert").replace("  client_ca_file: ca.crt\n", ""), "to NoClientCert"),
        (truncated_after("ca.crt\n"), "say client_auth_type"),
        (truncated_after("tls_server_config:\n"), "has no tls_server_config any more"),
    ]
    .into_iter()
    .enumerate()
    {
        files.write("web.yml", weaker);
        for _ in 0..3 {
            assert!(!files.client().connects(&exporter.address), "{weaker}");
            assert!(files.with_certificate("client").connects(&exporter.address), "{weaker}");
        }
        exporter.logged(why);
        assert_eq!(exporter.log().matches("cannot be used").count(), number + 1, "{}", exporter.log());
    }

    files.write("web.yml", &format!("{required}  min_version: TLS13\n"));
    let tls12 = Client::new(files.dir.path(), "ca.crt", Some("client"), &[&TLS12]);
    assert!(!tls12.connects(&exporter.address));
    files.write("web.yml", &required);
    assert!(tls12.connects(&exporter.address), "an older version is no other client");

    files.write("web.yml", &verifying("VerifyClientCertIfGiven"));
    assert!(files.client().connects(&files.exporter().address), "after a restart");
}

#[test]
fn a_certificate_without_its_key_yet_is_not_used() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    assert!(files.client().connects(&exporter.address));
    let next = TempDir::new().unwrap();
    files.authority.sign(next.path(), "server", "localhost", true);
    let copy = |name: &str| fs::copy(next.path().join(name), files.dir.path().join(name)).unwrap();
    copy("server.crt");
    assert!(files.client().connects(&exporter.address), "with the previous certificate and key");
    exporter.logged("does not belong to the certificate");
    copy("server.key");
    assert!(files.client().connects(&exporter.address));
    exporter.logged("read the web configuration again");
}

/// What the program writes about this file before it ends with status 2.
fn refusal(files: &Files) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter")).arg(files.option()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: --web.config.file ") && said.contains("web.yml"), "{said}");
    said
}

#[test]
fn an_invalid_file_exits_2_with_its_line() {
    let files = Files::new("");
    files.write("empty.pem", "");
    let good = hash("s3cret", 4);
    let key = fs::read_to_string(files.dir.path().join("server.key")).unwrap();
    let one_line = key.replace('\n', " ");
    let tls = |more: &str| format!("{TLS}{more}");
    for (config, line, says) in [
        ("a: [", 2, "not YAML"),
        ("tls_server_config:\n\tcert_file: x", 2, "not YAML"),
        ("basic_auth_users:\n  a: x\n  a: y\n", 2, "not YAML"),
        ("tls_config: {}\n", 1, "tls_config is no field: there are tls_server_config"),
        ("\nrate_limit:\n  burst: 1\n", 2, "rate_limit is not supported"),
        ("tls_server_config: server.crt\n", 1, "tls_server_config should be fields"),
        ("tls_server_config:\n  min_version: TLS12\n", 1, "tls_server_config has no cert_file"),
        ("tls_server_config:\n  cert_file: server.crt\n", 1, "tls_server_config has no key_file"),
        ("tls_server_config: {cert_file: nowhere, key_file: x}\n", 1, "cert_file names /"),
        ("tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n", 2, "cert_file holds no certificate"),
        ("tls_server_config:\n  cert_file: server.crt\n  key_file: empty.pem\n", 3, "key_file holds no private key"),
        ("tls_server_config:\n  cert_file: server.crt\n  key_file: client.key\n", 3, "key_file does not belong"),
        (&tls("  key: x\n"), 3, "key_file is given, and so is key"),
        (&format!("tls_server_config:\n  cert_file: server.crt\n  key: {one_line}"), 3, "key holds no private key"),
        (&format!("tls_server_config: {one_line}"), 1, "should be fields"),
        (&tls("  min_version: TLS10\n"), 4, "min_version is TLS10"),
        (&tls("  max_version: 1.3\n"), 4, "max_version is '1.3': say TLS12"),
        (&tls("  max_version: [TLS13]\n"), 4, "max_version should be a string"),
        (&tls("  max_version: TLS12\n  min_version: TLS13\n"), 5, "above max_version"),
        (&tls("  client_ca_file: ca.crt\n"), 4, "say client_auth_type"),
        (&tls("  client_auth_type: RequireAndVerifyClientCert\n"), 4, "say client_ca_file"),
        (&tls("  client_auth_type: RequireAnyClientCert\n"), 4, "refuses nobody"),
        (&tls("  client_auth_type: Yes\n  client_ca_file: ca.crt\n"), 4, "client_auth_type is 'Yes': say NoClientCert"),
        (&tls("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: empty.pem\n"), 5, "holds no certificate"),
        (&tls("  client_allowed_sans: [a]\n"), 4, "client_allowed_sans is not supported"),
        (&tls("  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_SHA]\n"), 4, "choose from TLS_AES_256"),
        (&tls("  cipher_suites: TLS_AES_128_GCM_SHA256\n"), 4, "should be a sequence"),
        (&tls("  curve_preferences:\n    - CurveP521\n"), 4, "choose from X25519"),
        (&tls("  prefer_server_cipher_suites: perhaps\n"), 4, "should be a boolean"),
        (&tls("  ciphers: []\n"), 4, "tls_server_config.ciphers is no field"),
        ("http_server_config:\n  http2: true\n", 2, "only HTTP/1.1"),
        ("http_server_config:\n  headers:\n    Server: x\n", 3, "headers.Server is no field"),
        ("http_server_config:\n  headers:\n    X-Frame-Options: allow\n", 3, "say deny or sameorigin"),
        ("http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n", 3, "cannot"),
        ("basic_auth_users:\n  alice: s3cret\n", 2, "basic_auth_users.alice is no bcrypt hash: htpasswd"),
        ("basic_auth_users:\n  alice:\n", 2, "alice has no hash"),
        ("basic_auth_users:\n  alice: [s3cret]\n", 2, "alice should be a string"),
        ("basic_auth_users:\n  1: s3cret\n", 2, "basic_auth_users.1 is no bcrypt hash"),
        ("basic_auth_users:\n  [a]: s3cret\n", 2, "(name not shown) should be a string"),
        (&format!("basic_auth_users:\n  alice:{good}\n"), 1, "basic_auth_users should be a map"),
        (&format!("basic_auth_users: {{\"alice:{good}\": }}\n"), 1, "a name with a colon"),
        (&format!("basic_auth_users:\n  bob: {good}\n  alice: {}\n", good.replace("$04$", "$20$")), 3, "a cost of 20"),
    ] {
        files.write("web.yml", config);
        let said = refusal(&files);
        assert!(said.contains(&format!("web.yml, line {line}: ")) && said.contains(says), "{config}\n{said}");
        assert!(!said.contains("s3cret") && !said.contains(&good[7..]), "{said}");
        assert!(!said.contains(&one_line[30..60]) && said.trim_end().lines().count() == 1, "{said}");
    }
    files.write("web.yml", "just words\n");
    assert!(refusal(&files).contains("web.yml, line 1: the file should be fields"));
    fs::write(files.dir.path().join("web.yml"), b"\xff").unwrap();
    assert!(refusal(&files).contains("not UTF-8"));
    fs::remove_file(files.dir.path().join("web.yml")).unwrap();
    assert!(refusal(&files).contains("cannot be read: No such file"));
}

/// What stands in the README after this comment, to the end of the block.
fn shown_in_the_readme(comment: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("```yaml\n{comment}\n")).unwrap();
    rest.split("```").next().unwrap().to_owned()
}

fn promtool_check(what: &str, file: &Path) {
    let output = Command::new("promtool").args(["check", what]).arg(file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

#[test]
fn the_files_in_the_readme_are_taken_here_and_by_promtool() {
    let files = Files::new(&shown_in_the_readme("# web.yml"));
    let scrape = shown_in_the_readme("# prometheus.yml, over TLS and with a password");
    files.write("prometheus.yml", &scrape);
    files.write("password", "night sky\n");
    promtool_check("web-config", &files.dir.path().join("web.yml"));
    promtool_check("config", &files.dir.path().join("prometheus.yml"));
    let exporter = files.exporter();
    let headers = [("Authorization", &*login("prometheus", "night sky"))];
    assert_eq!(files.with_certificate("client").get(&exporter.address, "/", &headers).unwrap().status, 200);
}

#[test]
fn an_empty_section_is_as_if_it_were_not_there() {
    for config in ["", "# nothing\n", "tls_server_config:\nbasic_auth_users: {}\nhttp_server_config: {http2: false}\n"]
    {
        let files = Files::new(config);
        assert_eq!(files.exporter().get("/", &[]).status, 200, "{config}");
    }
}

#[test]
fn headers_are_set_on_every_response() {
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
                   Content-Security-Policy: default-src 'none'\n    Strict-Transport-Security: max-age=300\n    \
                   X-XSS-Protection: ''\n";
    let files = Files::new(&format!("{headers}{}", users(&[("alice", "a", 4)])));
    let exporter = files.exporter();
    for response in [exporter.get("/", &[]), exporter.get("/metrics", &[("Authorization", &login("alice", "a"))])] {
        assert_eq!(response.header("x-frame-options"), "deny");
        assert_eq!(response.header("x-content-type-options"), "nosniff");
        assert_eq!(response.header("content-security-policy"), "default-src 'none'");
        assert_eq!(response.header("strict-transport-security"), "max-age=300");
        assert!(!response.headers.contains_key("x-xss-protection"));
    }
}

#[test]
fn headers_of_the_file_replace_the_pages_own_and_are_sent_once() {
    let server = Server::redis7();
    let own = |exporter: &Exporter| exporter.get("/", &[]).header("content-security-policy").to_owned();
    let strict = own(&Exporter::start(&server, &[]));
    assert!(strict.starts_with("default-src 'none'"), "{strict}");
    let policy = "default-src 'self'; frame-ancestors https://grafana.example";
    let files = Files::new(&format!("http_server_config:\n  headers:\n    Content-Security-Policy: \"{policy}\"\n"));
    let exporter = Exporter::start(&server, &[&files.option()]);
    let response = exporter.get("/", &[]);
    assert_eq!(response.header("content-security-policy"), policy);
    assert_eq!(response.header("referrer-policy"), "no-referrer", "what the file does not name stays");
    let mut connection = TcpStream::connect(&exporter.address).unwrap();
    connection.write_all(b"GET / HTTP/1.1\r\nHost: exporter\r\nConnection: close\r\n\r\n").unwrap();
    let mut raw = Vec::new();
    connection.read_to_end(&mut raw).unwrap();
    let raw = String::from_utf8_lossy(&raw).to_ascii_lowercase();
    assert_eq!(raw.matches("content-security-policy:").count(), 1, "browsers would take two together");
    // A policy that the file no longer has makes room for the page's own again.
    files.write("web.yml", "http_server_config:\n  headers:\n    X-Frame-Options: deny\n");
    until("the page has its own policy again", || own(&exporter) == strict);
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_disconnected_and_delays_no_exit() {
    let files = Files::new(TLS);
    let mut exporter = files.exporter();
    let mut clients: Vec<_> = [&b""[..], &[0x16, 3, 1, 1]]
        .into_iter()
        .map(|bytes| {
            let mut client = TcpStream::connect(&exporter.address).unwrap();
            client.write_all(bytes).unwrap();
            client.set_read_timeout(Some(3 * SOON)).unwrap();
            client
        })
        .collect();
    let began = Instant::now();
    assert!(files.client().connects(&exporter.address), "others do not delay it");
    for client in &mut clients {
        assert_eq!(client.read(&mut [0; 64]).unwrap_or(0), 0, "closed without a response");
    }
    assert!(began.elapsed() > Duration::from_secs(5), "that is less than a slow handshake may take");

    let _silent = TcpStream::connect(&exporter.address).unwrap();
    assert!(files.client().connects(&exporter.address), "so the silent client was accepted too");
    let began = Instant::now();
    exporter.signal("-TERM");
    assert_eq!(exporter.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_thousand_silent_clients_do_not_delay_a_scrape_over_tls() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    Silent::start(&exporter.address, 1_000).delay(|| assert!(files.client().connects(&exporter.address)));
    exporter.logged("ran short: disconnecting");
}

#[test]
fn the_first_scrape_over_tls_is_answered_soon_after_the_start() {
    let files = Files::new(&format!("{TLS}{}", users(&[("alice", "a", 4)])));
    let server = Server::redis7();
    let (client, alice, url) = (files.client(), login("alice", "a"), format!("--redis.url={}", server.url()));
    let port = free_port();
    let mut times = Vec::new();
    for _ in 0..3 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
        command.args([&format!("--web.listen-address=127.0.0.1:{port}"), &url, &files.option()]);
        let began = Instant::now();
        let mut child = Running(command.stderr(Stdio::null()).spawn().unwrap());
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(child.0.try_wait().unwrap().is_none() && began.elapsed() < SOON);
            thread::sleep(Duration::from_millis(1));
        }
        let address = format!("127.0.0.1:{port}");
        let mut connection = client.connect(&address);
        let page = exchange(&mut connection, &address, "GET", "/metrics", &[("Authorization", &alice)]).unwrap();
        times.push(began.elapsed());
        assert!(page.text().contains("\nredis_up 1\n"));
    }
    println!("start to the first answered scrape, over TLS and with a password: {times:?} (goal: under 100ms)");
    assert!(times.iter().min().unwrap() < &Duration::from_secs(1), "{times:?}");
}

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn prometheus_scrapes_over_tls_with_a_password() {
    let known = "  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n";
    let files = Files::new(&format!("{TLS}{known}{}", users(&[("prometheus", "s3cret", 6)])));
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[&files.option()]);
    files.write("password", "s3cret\n");
    let job = |name: &str, login: &str| {
        let (dir, address) = (files.dir.path().display(), &exporter.address);
        format!(
            "  - job_name: {name}\n    scheme: https\n    static_configs: [{{targets: ['{address}']}}]\n    \
             tls_config: {{ca_file: {dir}/ca.crt, cert_file: {dir}/client.crt, key_file: {dir}/client.key, \
             server_name: localhost}}\n{login}"
        )
    };
    let login =
        format!("    basic_auth: {{username: prometheus, password_file: {}/password}}\n", files.dir.path().display());
    let config = format!(
        "global: {{scrape_interval: 500ms, scrape_timeout: 500ms}}\nscrape_configs:\n{}{}",
        job("admitted", &login),
        job("refused", "")
    );
    files.write("prometheus.yml", &config);
    let port = free_port();
    let prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", files.dir.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", files.dir.path().join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _prometheus =
        Running(prometheus.expect("prometheus is missing: install it with scripts/install-tools.sh test"));
    let api = format!("127.0.0.1:{port}");
    let query = |series: &str| {
        let path = format!("/api/v1/query?query={series}");
        let mut client = TcpStream::connect(&api).ok()?;
        let answer = exchange(&mut client, &api, "GET", &path, &[]).ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    };
    until("Prometheus has scraped", || query("up%7Bjob=%22admitted%22%7D").as_deref() == Some("1"));
    assert_eq!(query("redis_up").as_deref(), Some("1"));
    until("Prometheus has scraped without a password", || query("up%7Bjob=%22refused%22%7D").as_deref() == Some("0"));
    assert!(!exporter.log().contains("s3cret"));
}
