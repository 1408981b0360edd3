//! The web configuration file: TLS and passwords at our own door, read again when they change.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpStream,
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
use tempfile::TempDir;

use crate::{
    client::Client,
    support::{Exporter, SOON, Server, exchange, free_port, until},
    tls::Authority,
};

const TLS: &str = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n";

/// The files of a door: the configuration, an authority, and what it signed for us and for a client.
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

    /// The exporter behind this door. No Redis: the door does not ask it.
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

/// Asks over a connection that stays, and tells the head of the answer.
fn ask_again(client: &mut (impl Read + Write), login: &str) -> io::Result<String> {
    let head = format!("GET /-/healthy HTTP/1.1\r\nHost: x\r\nAuthorization: {login}\r\n\r\n");
    client.write_all(head.as_bytes())?;
    let mut answer = vec![0; 1024];
    let read = client.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
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

/// The status for this login, in plain.
fn status(exporter: &Exporter, name: &str, password: &str) -> u16 {
    exporter.get("/-/healthy", &[("Authorization", &login(name, password))]).status
}

#[test]
fn tls_is_spoken_to_those_who_trust_our_authority() {
    let files = Files::new(TLS);
    Authority::new().write(files.dir.path(), "other.crt");
    let server = Server::redis7();
    let exporter = Exporter::start(&server, &[&files.option()]);
    let page = files.client().get(&exporter.address, "/metrics", &[]).unwrap();
    assert!(page.text().contains("\nredis_up 1\n"));
    assert!(exporter.logged("message=serving").contains("tls=true users=0"), "{}", exporter.log());

    let stranger = Client::new(files.dir.path(), "other.crt", None, &[&TLS13]);
    let refused = stranger.get(&exporter.address, "/metrics", &[]).unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");
}

#[test]
fn whoever_does_not_speak_tls_gets_no_page_and_no_line_in_the_log() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    for words in ["GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "\u{16}\u{3}\u{1}", "", "\0\0\0\0\0\0\0\0\0\0"] {
        let mut client = TcpStream::connect(&exporter.address).unwrap();
        client.write_all(words.as_bytes()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer);
        assert!(answer.len() < 10, "an alert at most: {answer:?}");
    }
    assert!(files.client().is_let_in(&exporter.address));
    assert_eq!(exporter.log().lines().count(), 1, "{}", exporter.log());
}

#[test]
fn a_client_certificate_is_asked_for_and_verified() {
    let known = format!("{TLS}  client_ca_file: ca.crt\n  client_auth_type: RequireAndVerifyClientCert\n");
    let files = Files::new(&known);
    Authority::new().sign(files.dir.path(), "stranger", "prometheus", true);
    files.authority.sign(files.dir.path(), "expired", "prometheus", false);
    let exporter = files.exporter();
    assert!(files.with_certificate("client").is_let_in(&exporter.address));
    assert!(!files.with_certificate("stranger").is_let_in(&exporter.address));
    assert!(!files.with_certificate("expired").is_let_in(&exporter.address));
    assert!(!files.client().is_let_in(&exporter.address), "none is shown");

    files.write("web.yml", &known.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"));
    assert!(files.with_certificate("client").is_let_in(&exporter.address));
    assert!(!files.with_certificate("stranger").is_let_in(&exporter.address));
    assert!(files.client().is_let_in(&exporter.address), "none is shown, and none need be");
}

#[test]
fn versions_suites_and_curves_are_those_that_were_chosen() {
    let files = Files::new(&format!("{TLS}  min_version: TLS13\n"));
    let exporter = files.exporter();
    let client = |version| Client::new(files.dir.path(), "ca.crt", None, &[version]);
    assert_eq!(
        (client(&TLS12).is_let_in(&exporter.address), client(&TLS13).is_let_in(&exporter.address)),
        (false, true)
    );

    files.write("web.yml", &format!("{TLS}  max_version: TLS12\n"));
    assert_eq!(
        (client(&TLS12).is_let_in(&exporter.address), client(&TLS13).is_let_in(&exporter.address)),
        (true, false)
    );

    let chosen = "  max_version: TLS12\n  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]\n  \
                  curve_preferences: [CurveP384]\n";
    for (more, suite, curve) in [
        (chosen, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, NamedGroup::secp384r1),
        ("", CipherSuite::TLS13_AES_256_GCM_SHA384, NamedGroup::X25519),
        ("  prefer_server_cipher_suites: false\n", CipherSuite::TLS13_CHACHA20_POLY1305_SHA256, NamedGroup::X25519),
    ] {
        files.write("web.yml", &format!("{TLS}{more}"));
        let mut connection = files.client().connect(&exporter.address);
        ask_again(&mut connection, "").unwrap();
        let agreed = &connection.conn;
        assert_eq!(agreed.negotiated_cipher_suite().unwrap().suite(), suite, "{more}");
        assert_eq!(agreed.negotiated_key_exchange_group().unwrap().name(), curve, "{more}");
        assert_eq!(agreed.alpn_protocol(), Some(&b"http/1.1"[..]), "of HTTP/2 too, what we speak");
    }
}

#[test]
fn certificates_may_stand_in_the_file_itself() {
    let files = Files::new("");
    let indented = |name: &str| {
        let text = fs::read_to_string(files.dir.path().join(name)).unwrap();
        format!("    {}\n", text.trim_end().replace('\n', "\n    "))
    };
    let (cert, key) = (indented("server.crt"), indented("server.key"));
    files.write("web.yml", &format!("tls_server_config:\n  cert: |\n{cert}  key: |\n{key}"));
    assert!(files.client().is_let_in(&files.exporter().address));
}

#[test]
fn every_path_asks_for_a_user_and_the_right_password() {
    let files = Files::new(&users(&[("alice", "wonder:land", 4), ("bob", "builder", 4)]));
    let exporter = files.exporter();
    for path in ["/", "/metrics", "/-/healthy", "/-/ready", "/nothing"] {
        let refused = exporter.get(path, &[]);
        assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic"), "{path}");
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
    let refused = ask_again(&mut client, &login("alice", "wrong")).unwrap();
    assert!(refused.starts_with("HTTP/1.1 401"), "{refused}");
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0, "whoever is refused has to leave");
}

/// The shortest of several times.
fn fastest(mut work: impl FnMut()) -> Duration {
    let time = |()| {
        let began = Instant::now();
        work();
        began.elapsed()
    };
    [(); 4].map(time).into_iter().min().unwrap()
}

#[test]
fn a_scrape_does_not_pay_bcrypt_each_time_and_the_time_tells_no_user() {
    let files = Files::new(&users(&[("alice", "right", 9), ("bob", "b", 9), ("carol", "c", 9)]));
    let exporter = files.exporter();
    let began = Instant::now();
    assert_eq!(status(&exporter, "alice", "right"), 200);
    let paid = began.elapsed();
    let cached = fastest(|| assert_eq!(status(&exporter, "alice", "right"), 200));
    let wrong = fastest(|| assert_eq!(status(&exporter, "alice", "wrong"), 401));
    let unknown = fastest(|| assert_eq!(status(&exporter, "dave", "wrong"), 401));
    println!("first {paid:?}, cached {cached:?}, wrong password {wrong:?}, unknown user {unknown:?}");
    assert!(cached * 10 < paid, "cached {cached:?}, first {paid:?}");
    let ratio = unknown.as_secs_f64() / wrong.as_secs_f64();
    // Without a hash to check, it would be a hundred times less.
    assert!((0.2..5.0).contains(&ratio), "unknown user {unknown:?}, wrong password {wrong:?}");
}

#[test]
fn a_flood_of_wrong_passwords_takes_one_thread_and_no_scrape_waits_for_it() {
    let files = Files::new(&users(&[("alice", "right", 9)]));
    let exporter = files.exporter();
    assert_eq!(status(&exporter, "alice", "right"), 200);
    let flood: Vec<_> = (0..100)
        .map(|number| {
            let mut client = TcpStream::connect(&exporter.address).unwrap();
            let head =
                format!("GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n", login("alice", &number.to_string()));
            client.write_all(head.as_bytes()).unwrap();
            client
        })
        .collect();
    let cached = fastest(|| assert_eq!(status(&exporter, "alice", "right"), 200));
    let process = fs::read_to_string(format!("/proc/{}/status", exporter.pid())).unwrap();
    let threads = process.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap();
    // The one that serves, the one that checks, and perhaps one that has just checked.
    assert!(threads.trim().parse::<u32>().unwrap() <= 4, "{threads} threads");
    assert!(cached < Duration::from_millis(500), "{cached:?}");
    drop(flood);
}

#[test]
fn users_that_change_hold_from_the_next_request_on() {
    let files = Files::new(&users(&[("alice", "old", 4)]));
    let exporter = files.exporter();
    let mut stays = TcpStream::connect(&exporter.address).unwrap();
    assert!(ask_again(&mut stays, &login("alice", "old")).unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(status(&exporter, "bob", "b"), 401);

    files.write("web.yml", &users(&[("alice", "new", 4), ("bob", "b", 4)]));
    assert!(ask_again(&mut stays, &login("alice", "old")).unwrap().starts_with("HTTP/1.1 401"));
    assert_eq!((status(&exporter, "alice", "new"), status(&exporter, "bob", "b")), (200, 200));
    assert_eq!(exporter.log().matches("read the web configuration again").count(), 1, "{}", exporter.log());
}

#[test]
fn a_certificate_that_is_rotated_is_shown_from_the_next_handshake_on() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    let old = files.client();
    let mut stays = old.connect(&exporter.address);
    assert!(!ask_again(&mut stays, "").unwrap().contains("connection: close"));

    let rotated = Authority::new();
    rotated.write(files.dir.path(), "ca.crt");
    rotated.sign(files.dir.path(), "server", "localhost", true);
    assert!(files.client().is_let_in(&exporter.address), "{}", exporter.log());
    assert!(!old.is_let_in(&exporter.address));
    let last = ask_again(&mut stays, "").unwrap();
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "come in anew: {last}");
}

#[test]
fn a_secret_that_is_swapped_as_kubernetes_does_is_read_again() {
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
fn a_file_that_breaks_keeps_the_one_before_and_says_so_once() {
    let good = format!("{TLS}{}", users(&[("alice", "s3cret", 4)]));
    let files = Files::new(&good);
    let (exporter, client) = (files.exporter(), files.client());
    let alice = login("alice", "s3cret");
    let admits = || client.get(&exporter.address, "/", &[("Authorization", &alice)]).unwrap().status == 200;
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
            assert!(admits(), "{broken}");
            assert_eq!(client.get(&exporter.address, "/", &[]).unwrap().status, 401, "{broken}");
        }
        assert!(exporter.logged(why).contains("level=error"), "{}", exporter.log());
        thread::sleep(Duration::from_millis(1_100));
        assert!(admits(), "tried again, and still wrong: {broken}");
        assert_eq!(refusals(), number + 1, "{}", exporter.log());
    }
    fs::remove_file(files.dir.path().join("web.yml")).unwrap();
    assert!(admits());
    exporter.logged("No such file");

    files.write("web.yml", &good);
    assert!(admits());
    let log = exporter.logged("read the web configuration again");
    assert!(!log.contains("s3cret") && !log.contains("$2b$") && !log.contains(&alice[6..]), "{log}");
}

#[test]
fn a_key_that_comes_late_is_waited_for() {
    let files = Files::new(TLS);
    let exporter = files.exporter();
    assert!(files.client().is_let_in(&exporter.address));
    let next = TempDir::new().unwrap();
    files.authority.sign(next.path(), "server", "localhost", true);
    let bring = |name: &str| fs::copy(next.path().join(name), files.dir.path().join(name)).unwrap();
    bring("server.crt");
    assert!(files.client().is_let_in(&exporter.address), "by the certificate and key before");
    exporter.logged("does not belong to the certificate");
    bring("server.key");
    assert!(files.client().is_let_in(&exporter.address));
    exporter.logged("read the web configuration again");
}

/// What the program says of this file, and that it ends with status 2.
fn refusal(files: &Files) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter")).arg(files.option()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: --web.config.file ") && said.contains("web.yml"), "{said}");
    said
}

#[test]
fn a_wrong_file_exits_2_with_its_line() {
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
        ("tls_server_config: server.crt\n", 1, "tls_server_config should hold fields"),
        ("tls_server_config:\n  min_version: TLS12\n", 1, "tls_server_config has no cert_file"),
        ("tls_server_config:\n  cert_file: server.crt\n", 1, "tls_server_config has no key_file"),
        ("tls_server_config: {cert_file: nowhere, key_file: x}\n", 1, "cert_file names /"),
        ("tls_server_config:\n  cert_file: server.key\n  key_file: server.key\n", 2, "cert_file holds no certificate"),
        ("tls_server_config:\n  cert_file: server.crt\n  key_file: empty.pem\n", 3, "key_file holds no private key"),
        ("tls_server_config:\n  cert_file: server.crt\n  key_file: client.key\n", 3, "key_file does not belong"),
        (&tls("  key: x\n"), 3, "key_file is given, and so is key"),
        (&format!("tls_server_config:\n  cert_file: server.crt\n  key: {one_line}"), 3, "key holds no private key"),
        (&format!("tls_server_config: {one_line}"), 1, "should hold fields"),
        (&tls("  min_version: TLS10\n"), 4, "min_version is TLS10"),
        (&tls("  max_version: 1.3\n"), 4, "max_version should be a text"),
        (&tls("  max_version: '1.3'\n"), 4, "say TLS12 or TLS13"),
        (&tls("  max_version: TLS12\n  min_version: TLS13\n"), 5, "above max_version"),
        (&tls("  client_ca_file: ca.crt\n"), 4, "say client_auth_type"),
        (&tls("  client_auth_type: RequireAndVerifyClientCert\n"), 4, "say client_ca_file"),
        (&tls("  client_auth_type: RequireAnyClientCert\n"), 4, "keeps nobody out"),
        (&tls("  client_auth_type: Yes\n  client_ca_file: ca.crt\n"), 4, "client_auth_type is 'Yes': say NoClientCert"),
        (&tls("  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: empty.pem\n"), 5, "holds no certificate"),
        (&tls("  client_allowed_sans: [a]\n"), 4, "client_allowed_sans is not supported"),
        (&tls("  cipher_suites: [TLS_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_SHA]\n"), 4, "choose of TLS_AES_256"),
        (&tls("  cipher_suites: TLS_AES_128_GCM_SHA256\n"), 4, "should be a list"),
        (&tls("  curve_preferences:\n    - CurveP521\n"), 4, "choose of X25519"),
        (&tls("  prefer_server_cipher_suites: perhaps\n"), 4, "should be true or false"),
        (&tls("  ciphers: []\n"), 4, "tls_server_config.ciphers is no field"),
        ("http_server_config:\n  http2: true\n", 2, "HTTP/1.1 alone"),
        ("http_server_config:\n  headers:\n    Server: x\n", 3, "headers.Server is no field"),
        ("http_server_config:\n  headers:\n    X-Frame-Options: allow\n", 3, "say deny or sameorigin"),
        ("http_server_config:\n  headers:\n    X-XSS-Protection: \"a\\nb\"\n", 3, "cannot"),
        ("basic_auth_users:\n  alice: s3cret\n", 2, "basic_auth_users.alice is no bcrypt hash: htpasswd"),
        ("basic_auth_users:\n  alice:\n", 2, "alice has no hash"),
        ("basic_auth_users:\n  alice: [s3cret]\n", 2, "alice should be a text"),
        ("basic_auth_users:\n  1: s3cret\n", 1, "put it into quotes"),
        (&format!("basic_auth_users:\n  alice:{good}\n"), 1, "should hold fields"),
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
    assert!(refusal(&files).contains("web.yml, line 1: the file should hold fields"));
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
fn what_says_nothing_asks_for_nothing() {
    for config in ["", "# nothing\n", "tls_server_config:\nbasic_auth_users: {}\nhttp_server_config: {http2: false}\n"]
    {
        let files = Files::new(config);
        assert_eq!(files.exporter().get("/", &[]).status, 200, "{config}");
    }
}

#[test]
fn headers_stand_on_every_answer() {
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n    \
                   Content-Security-Policy: default-src 'none'\n    Strict-Transport-Security: max-age=300\n    \
                   X-XSS-Protection: ''\n";
    let files = Files::new(&format!("{headers}{}", users(&[("alice", "a", 4)])));
    let exporter = files.exporter();
    for answer in [exporter.get("/", &[]), exporter.get("/metrics", &[("Authorization", &login("alice", "a"))])] {
        assert_eq!(answer.header("x-frame-options"), "deny");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("content-security-policy"), "default-src 'none'");
        assert_eq!(answer.header("strict-transport-security"), "max-age=300");
        assert!(!answer.headers.contains_key("x-xss-protection"));
    }
}

#[test]
fn silent_clients_before_the_handshake_hold_no_more_than_their_place() {
    let files = Files::new(TLS);
    let mut exporter = files.exporter();
    let began = Instant::now();
    let mut silent: Vec<_> = (0..200).map(|_| TcpStream::connect(&exporter.address).unwrap()).collect();
    for client in &mut silent[..100] {
        client.write_all(&[0x16, 3, 1, 1]).unwrap();
    }
    let asked = Instant::now();
    assert!(files.client().is_let_in(&exporter.address));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    for client in [0, 150] {
        silent[client].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(silent[client].read(&mut [0; 64]).unwrap_or(0), 0, "closed without an answer");
    }
    assert!((9..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

    let _silent = TcpStream::connect(&exporter.address).unwrap();
    thread::sleep(Duration::from_millis(50));
    let began = Instant::now();
    exporter.signal("-TERM");
    assert_eq!(exporter.wait(), 0);
    assert!(began.elapsed() < Duration::from_secs(2), "a handshake does not hold up the end: {:?}", began.elapsed());
}

#[test]
fn the_first_scrape_is_answered_soon_after_the_start() {
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
    until("Prometheus has tried without", || query("up%7Bjob=%22refused%22%7D").as_deref() == Some("0"));
    assert!(!exporter.log().contains("s3cret"));
}
