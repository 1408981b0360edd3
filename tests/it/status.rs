//! `status`: what it shows in a terminal and to programs, and its exit status.

use std::{
    io::{Read, Write},
    process::{Command, Output},
    sync::{Arc, Mutex},
    thread,
};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::Value;

use crate::support::{Flavor, Server, until};

const BINARY: &str = env!("CARGO_BIN_EXE_prompt-redis-exporter");

fn status(server: &Server, args: &[&str]) -> Output {
    Command::new(BINARY).args(["status", "--redis.url", &server.url()]).args(args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// A healthy group, a group that has lost entries, and a stream whose group is missing.
fn three_groups() -> Server {
    let server = Server::redis7();
    for stream in ["healthy", "trimmed"] {
        server.run(&format!("XGROUP CREATE instrument:{stream} {stream}_consumer_group $ MKSTREAM"));
    }
    for _ in 0..9 {
        server.run("XADD instrument:trimmed * detector 1");
    }
    server.read("instrument:trimmed", "trimmed_consumer_group", "w", 4);
    server.run("XTRIM instrument:trimmed MAXLEN 1");
    server.read("instrument:trimmed", "trimmed_consumer_group", "w", 4);
    server
}

const THREE_GROUPS: [&str; 2] = ["--stream=instrument:*", "--stream=instrument:missing=g"];

#[test]
fn trouble_comes_first_and_fits_a_hundred_columns() {
    let server = three_groups();
    let output = status(&server, &THREE_GROUPS);
    assert_eq!(output.status.code(), Some(1), "something needs attention");
    let shown = text(&output);
    let at = |part: &str| shown.find(part).unwrap_or_else(|| panic!("{part} is not in:\n{shown}"));
    let table = at("stream / group");
    assert!(
        table < at("critical  instrument:missing")
            && at("critical  instrument:missing") < at("warning   instrument:trimmed")
    );
    assert!(at("warning   instrument:trimmed") < at("ok        instrument:healthy"));
    assert!(at("Redis 7.0.15, standalone, master") < table && at("as\nuser default") < table, "{shown}");
    let create = format!("redis-cli -p {} XGROUP CREATE instrument:missing g '$' MKSTREAM", server.port);
    assert!(table < at(&create) && at("a lag of 4, but 0 wait") > table, "{shown}");
    let wide: Vec<_> = shown.lines().filter(|line| line.chars().count() > 100 && !line.contains("redis-cli")).collect();
    assert_eq!(wide, Vec::<&str>::new());
    assert!(!shown.contains('\u{1b}'), "no colours outside a terminal");
}

#[test]
fn the_commands_mend_what_they_say_they_mend() {
    let server = three_groups();
    for _ in 0..2 {
        let report: Value =
            serde_json::from_slice(&status(&server, &["--output=json", THREE_GROUPS[0], THREE_GROUPS[1]]).stdout)
                .unwrap();
        for finding in report["findings"].as_array().unwrap() {
            let line = finding["commands"][0]["line"].as_str().unwrap();
            let done = Command::new("sh").args(["-c", line]).output().unwrap();
            assert!(
                done.status.success() && !String::from_utf8_lossy(&done.stdout).contains("ERR"),
                "{line}: {done:?}"
            );
        }
    }
    let output = status(&server, &THREE_GROUPS);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("Nothing needs attention"));
}

#[test]
fn options_work_before_and_behind_the_subcommand() {
    let server = three_groups();
    let url = format!("--redis.url={}", server.url());
    let exit = |args: &[&str]| {
        let output = Command::new(BINARY).args(args).output().unwrap();
        (output.status.code(), text(&output).contains("instrument:healthy"))
    };
    assert_eq!(exit(&[&url, "--stream=instrument:healthy", "status"]), (Some(0), true));
    assert_eq!(exit(&["status", &url, "--stream=instrument:healthy"]), (Some(0), true));
    assert_eq!(exit(&[&url, "status", "--stream=instrument:healthy", "--no-collector.server"]), (Some(0), true));
    assert_eq!(exit(&["status", &url, "--output=xml"]), (Some(2), false));
    assert_eq!(exit(&["status", &url, "--watch=0"]), (Some(2), false));
    let output = Command::new(BINARY)
        .arg("status")
        .env("PROMPT_REDIS_EXPORTER_REDIS_URL", server.url())
        .env("PROMPT_REDIS_EXPORTER_STREAM", "instrument:healthy")
        .env("PROMPT_REDIS_EXPORTER_OUTPUT", "json")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output).starts_with('{'));
}

/// Whether the schema allows this report, and what it says of it.
fn validate(report: &Value) -> (bool, String) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), report.to_string()).unwrap();
    let program = root.join(".tools/venv/bin/check-jsonschema");
    let mut command = Command::new(&program);
    command.arg("--schemafile").arg(root.join("docs/status.schema.json")).arg(file.path());
    let output = command.output().unwrap_or_else(|error| {
        panic!("{}: {error}: install it with scripts/install-tools.sh test", program.display())
    });
    (output.status.success(), text(&output) + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn json_is_as_the_schema_says() {
    let check = |output: &Output| -> Value {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let (is_valid, said) = validate(&report);
        assert!(is_valid, "{said}\n{report:#}");
        report
    };
    let mut server = three_groups();
    server.run("SET instrument:text x");
    for i in 0..3 {
        server.run(&format!("XADD instrument:healthy 5-{} a b", i + 1));
    }
    let report = check(&status(
        &server,
        &["--output=json", THREE_GROUPS[0], THREE_GROUPS[1], "--stream=instrument:text", "--stream=nothing*"],
    ));
    let codes: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["wrong_type", "group_missing", "pattern_empty", "phantom_lag", "messages_lost"], "{report:#}");
    assert_eq!(report["streams"].as_array().unwrap().len(), 4);
    server.kill();
    let down = status(&server, &["--output=json"]);
    assert_eq!(down.status.code(), Some(1));
    let report = check(&down);
    assert_eq!(
        (report["redis"]["up"].as_bool(), report["redis"]["error"]["kind"].as_str()),
        (Some(false), Some("connect"))
    );
    assert_eq!(report["streams"].as_array().unwrap().len(), 0, "nothing stale");
    let mut broken = report.clone();
    broken["redis"]["up"] = Value::from("no");
    let (is_valid, said) = validate(&broken);
    assert!(!is_valid && said.contains("$.redis.up"), "the schema can tell a wrong report: {said}");
}

#[test]
fn the_schema_knows_every_code() {
    let source = include_str!("../../src/model/findings.rs");
    let schema = include_str!("../../docs/status.schema.json");
    let (mut codes, mut known) = (0, source);
    while let Some((_, rest)) = known.split_once("Finding::new(").filter(|_| !known.starts_with("mod tests")) {
        let code = rest.split('"').nth(1).unwrap();
        if code.chars().all(|c| c.is_ascii_lowercase() || c == '_') && code.len() > 3 {
            assert!(schema.contains(&format!("\"{code}\"")), "docs/status.schema.json lacks {code}");
            codes += 1;
        }
        known = rest;
    }
    assert!(codes > 8, "the codes are found: {codes}");
}

/// What is said of a server at this URL, in one line.
fn said_of(url: &str) -> String {
    let output = Command::new(BINARY).args(["status", "--redis.timeout=500ms", "--redis.url", url]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    text(&output).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn tls_to_a_plain_port_is_said_and_a_slow_redis_is_not_taken_for_one() {
    let server = Server::redis7();
    let said = said_of(&server.url().replace("redis://", "rediss://"));
    assert!(said.contains("then say redis:// instead of rediss://"), "{said}");
    // An HTTP server replies at once, with something that is no TLS.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            // What is not read would reset the connection when it is closed.
            let _ = client.read(&mut [0; 16 << 10]);
            let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let said = said_of(&format!("rediss://127.0.0.1:{port}"));
    assert!(said.contains("This port speaks no TLS: say redis:// instead of rediss://"), "{said}");
    server.signal("-STOP");
    let said = said_of(&server.url());
    assert!(said.contains("in time") && !said.contains("rediss://"), "{said}");
    server.signal("-CONT");
}

#[test]
fn hostile_names_are_shown_harmless() {
    let server = Server::start(Flavor::Redis7);
    for name in [
        "a\u{1b}[2J\u{1b}]0;title\u{7}",
        "r\u{202e}l",
        "<script>alert(1)</script>",
        "two\nlines",
        "\u{5d0}\u{5d1}\u{5d2}",
    ] {
        server.run_args(&[b"XGROUP", b"CREATE", name.as_bytes(), b"g\x9b\xff", b"$", b"MKSTREAM"]);
    }
    let output = status(&server, &["--stream=*"]);
    let shown = text(&output);
    let hidden = |char: &char| char.is_control() && *char != '\n' || ('\u{202a}'..='\u{202e}').contains(char);
    assert_eq!(shown.chars().filter(hidden).collect::<String>(), "", "{shown}");
    assert!(shown.contains("a\\u{1b}[2J") && shown.contains("<script>"), "{shown}");
    assert!(shown.contains("\u{2068}\u{5d0}\u{5d1}\u{5d2}\u{2069}"), "{shown}");
}

#[test]
fn a_missing_right_comes_with_the_line_that_gives_it() {
    for (flavor, right, line) in [
        (Flavor::Redis7, "+xinfo|groups", "ACL SETUSER exporter '+xinfo|groups'"),
        (Flavor::Redis7, "+info", "ACL SETUSER exporter +info"),
        (Flavor::Redis7, "+eval_ro", "ACL SETUSER exporter +eval_ro"),
        (Flavor::Redis7, "%R~instrument:*", "ACL SETUSER exporter '%R~instrument:s'"),
        (Flavor::Redis8, "+xpending", "ACL SETUSER exporter +xpending"),
        (Flavor::Redis8, "+eval_ro", "ACL SETUSER exporter +eval_ro"),
        (Flavor::Valkey9, "+xinfo|stream", "ACL SETUSER exporter '+xinfo|stream'"),
        (Flavor::Valkey9, "+eval_ro", "ACL SETUSER exporter +eval_ro"),
    ] {
        let server = Server::start(flavor);
        server.run("XGROUP CREATE instrument:s g $ MKSTREAM");
        server.add("instrument:s", 1..=5);
        server.read("instrument:s", "g", "w", 2);
        // Only a count tells what waits then, also where the lag is exact.
        server.run("XDEL instrument:s 4-0");
        let rights: Vec<_> = crate::acl::rights().into_iter().filter(|given| *given != right).collect();
        server.run_args(&rights.iter().map(|word| word.as_bytes()).collect::<Vec<_>>());
        let url = format!("redis://exporter:PASSWORD@127.0.0.1:{}", server.port);
        let run =
            || Command::new(BINARY).args(["status", "--stream=instrument:s", "--redis.url", &url]).output().unwrap();
        let shown = text(&run());
        let given: Vec<_> = shown.lines().filter(|line| line.contains("ACL SETUSER")).collect();
        assert!(given.len() == 1 && given[0].ends_with(line), "{flavor:?} without {right}:\n{shown}");
        assert!(!shown.contains("PASSWORD") && shown.contains("fewer rights than needed"), "{shown}");
        assert!(Command::new("sh").args(["-c", given[0]]).output().unwrap().status.success());
        assert!(text(&run()).contains("every right that was needed"), "{flavor:?} without {right}");
    }
}

#[test]
fn a_thousand_streams_are_shown_trouble_first() {
    let server = Server::redis7();
    let mut pipeline = redis::pipe();
    for number in 0..1000 {
        pipeline.cmd("XGROUP").arg(&["CREATE", &format!("s{number:04}"), "g", "$", "MKSTREAM"]).ignore();
    }
    pipeline.query::<()>(&mut server.connection()).unwrap();
    let shown = text(&status(&server, &["--stream=s*", "--stream=z=g"]));
    let rows: Vec<_> = shown.lines().filter(|line| line.contains(" / g ")).collect();
    assert_eq!(rows.len(), 1001);
    assert!(rows[0].starts_with("critical  z (missing) / g"), "{}", rows[0]);
}

fn nonzero(number: u16) -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(number).unwrap()
}

/// The program in a pseudo-terminal, and what its screen shows.
struct Terminal {
    pty: Box<dyn MasterPty + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(server: &Server, columns: u16, args: &[&str], no_color: &str) -> Self {
        let size = PtySize { rows: 60, cols: columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(BINARY);
        command.args(["status", "--redis.url", &server.url()]);
        command.args(args);
        command.env("TERM", "xterm-256color");
        command.env("NO_COLOR", no_color);
        let child = pair.slave.spawn_command(command).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(nonzero(60), nonzero(columns), 0)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let mut reader = pair.master.try_clone_reader().unwrap();
        thread::spawn({
            let (screen, raw) = (Arc::clone(&screen), Arc::clone(&raw));
            move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = reader.read(&mut buffer) {
                    screen.lock().unwrap().process(&buffer[..length]);
                    raw.lock().unwrap().extend(&buffer[..length]);
                }
            }
        });
        Self { pty: pair.master, child, screen, raw }
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    fn wait(&mut self) -> u32 {
        let mut code = None;
        until("the program ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().exit_code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_table_fits_the_terminal() {
    let server = three_groups();
    for (columns, titles, absent) in [
        (60, &["waiting", "oldest"][..], &["consumers", "read"][..]),
        (100, &["waiting", "pending", "lag", "read", "consumers", "entry"], &[]),
        (200, &["waiting", "pending", "lag", "read", "consumers", "entry"], &[]),
    ] {
        let mut terminal = Terminal::start(&server, columns, &THREE_GROUPS, "");
        assert_eq!(terminal.wait(), 1);
        until("all is shown", || terminal.shown().contains("XINFO STREAM"));
        let shown = terminal.shown();
        let title = shown.lines().find(|line| line.contains("stream / group")).unwrap_or_else(|| panic!("{shown}"));
        let below = shown.lines().skip_while(|line| *line != title).nth(1).unwrap();
        let titles_shown = format!("{title}{below}");
        assert!(titles.iter().all(|name| titles_shown.contains(name)), "{columns}: {shown}");
        assert!(!absent.iter().any(|name| titles_shown.contains(name)), "{columns}: {shown}");
        assert!(terminal.raw().contains("\u{1b}["), "colours in a terminal");
        for line in terminal.raw().lines().filter(|line| !line.contains("redis-cli")) {
            assert!(without_escapes(line).trim_end().chars().count() <= usize::from(columns), "{columns}: {line}");
        }
    }
}

fn without_escapes(line: &str) -> String {
    let mut parts = line.split('\u{1b}');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

#[test]
fn no_color_is_obeyed_in_a_terminal() {
    let server = three_groups();
    let mut terminal = Terminal::start(&server, 100, &THREE_GROUPS, "1");
    terminal.wait();
    until("all is shown", || terminal.shown().contains("XINFO STREAM"));
    assert!(!terminal.raw().contains('\u{1b}'), "{:?}", terminal.raw());
}

#[test]
fn watch_redraws_follows_the_size_and_leaves_the_terminal_clean() {
    let server = three_groups();
    let args = ["--stream=instrument:*", "--watch=1"];
    let mut terminal = Terminal::start(&server, 100, &args, "");
    until("the first frame", || terminal.shown().contains("consumers") && terminal.shown().contains("Ctrl-C ends it"));
    server.run("XGROUP CREATE instrument:newcomer g $ MKSTREAM");
    until("the next frame shows the new stream", || terminal.shown().contains("instrument:newcomer"));
    terminal.screen.lock().unwrap().screen_mut().set_size(nonzero(60), nonzero(60));
    terminal.pty.resize(PtySize { rows: 60, cols: 60, pixel_width: 0, pixel_height: 0 }).unwrap();
    until("the narrow frame", || {
        terminal.shown().contains("Ctrl-C ends it") && !terminal.shown().contains("consumers   last")
    });
    terminal.pty.take_writer().unwrap().write_all(b"\x03").unwrap();
    assert_eq!(terminal.wait(), 0);
    until("the terminal is as before", || terminal.raw().contains("\u{1b}[?1049l"));
    let (raw, screen) = (terminal.raw(), terminal.screen.lock().unwrap());
    assert!(raw.contains("\u{1b}[?1049h") && !screen.screen().alternate_screen() && !screen.screen().hide_cursor());
    assert!(!screen.screen().contents().contains("stream / group"), "nothing is left of the table");
}

#[test]
fn status_beside_a_local_redis_answers_within_50_ms() {
    let server = three_groups();
    let run = |_| {
        let began = std::time::Instant::now();
        status(&server, &THREE_GROUPS);
        began.elapsed()
    };
    let mut times: Vec<_> = (0..20).map(run).collect();
    times.sort();
    println!("status: fastest {:?}, median {:?} of {}", times[0], times[10], times.len());
    // The fastest: the others may have waited for a processor.
    assert!(times[0] < std::time::Duration::from_millis(50), "{times:?}");
}

/// The limits of the findings are those of the alerts.
#[test]
fn thresholds_are_those_of_the_alerts() {
    use prompt_redis_exporter::model::findings::thresholds as t;
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("alerts/prompt-redis.alerts.yaml");
    let rules: Value = yaml_serde::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    let rules: Vec<_> = groups.flat_map(|group| group["rules"].as_array().unwrap()).collect();
    let expression = |alert: &str| {
        let rule = rules.iter().find(|rule| rule["alert"] == alert).unwrap_or_else(|| panic!("no alert {alert}"));
        (rule["expr"].as_str().unwrap().to_owned(), rule["for"].as_str().unwrap_or_default().to_owned())
    };
    for (alert, limit) in [
        ("PromptRedisDeliveryLate", t::LATE_SECONDS),
        ("PromptRedisDeliveryTooLate", t::TOO_LATE_SECONDS),
        ("PromptRedisMessagesExpiring", t::EXPIRING_SECONDS),
        ("PromptRedisOrphanedPending", t::ORPHANED_SECONDS),
        ("PromptRedisConsumerLeak", t::CONSUMERS as f64),
        ("PromptRedisMemoryHigh", t::MEMORY_PERCENT as f64 / 100.0),
    ] {
        let (expression, _) = expression(alert);
        let mut words = expression.split_whitespace();
        assert!(words.any(|word| word.parse() == Ok(limit)), "{alert} has another limit than {limit}: {expression}");
    }
    let (_, wait) = expression("PromptRedisPendingNotAcked");
    assert_eq!(humantime::parse_duration(&wait).unwrap().as_secs_f64(), t::PENDING_STAYS_SECONDS);
}
