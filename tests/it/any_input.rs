//! Input of any kind from outside: options, the web configuration file, requests. It is taken or refused, and nothing
//! panics. What Redis may reply has such tests beside its parser.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

use prompt_redis_exporter::{cli::Cli, config::Config, redis::endpoint::Endpoint, web::config::ReloadingConfig};
use proptest::{prelude::*, test_runner::TestRunner};

use crate::support::{Exporter, SOON};

/// Text out of pieces that mean something here, and any other.
fn text(pieces: &'static [&'static str]) -> impl Strategy<Value = String> {
    let piece = prop_oneof![4 => prop::sample::select(pieces).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() })
}

#[test]
fn any_options_are_taken_or_refused() {
    let values = &[
        "redis://",
        "rediss://",
        "unix://",
        "127.0.0.1",
        "[::1]",
        ":",
        "6379",
        "/",
        "0",
        "@",
        "user:pass@",
        "?",
        "*",
        "[",
        "]",
        "instrument:",
        "=",
        "group",
        ",",
        "\\",
        "-1",
        "5s",
        "25ms",
        "1e9",
        "99999999999999999999s",
        " ",
        "%00",
        "%",
        "#",
        "\0",
    ];
    let names = prop::sample::select(vec![
        "--redis.url=",
        "--redis.timeout=",
        "--stream=",
        "--collector.undelivered-max=",
        "--collector.undelivered-budget=",
        "--collector.consumers-max=",
        "--web.listen-address=",
        "--web.telemetry-path=",
        "--log.level=",
        "--redis.username=",
        "--redis.sentinel-master=",
        "--redis.cluster",
        "--collector.consumers",
        "--no-collector.server",
        "",
    ]);
    let option = (names, text(values)).prop_map(|(name, value)| format!("{name}{value}"));
    let options = prop::collection::vec(option, 0..5);
    runner(2_000)
        .run(&options, |options| {
            let words = ["x".to_owned()].into_iter().chain(options);
            if let Ok(config) = Cli::from_args(words).map_err(drop).and_then(|cli| Config::new(cli, None).map_err(drop))
            {
                let _ = Endpoint::new(config.redis);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_web_configuration_is_taken_or_refused() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("web.yml");
    let pieces = &[
        "tls_server_config:",
        "\n",
        "  ",
        "cert_file: ",
        "key_file: ",
        "client_auth_type: ",
        "RequireAndVerifyClientCert",
        "basic_auth_users:",
        "a: ",
        "$2b$10$Z9R/NFaixXaqVsmu60EtH.xj7eFW88ZsZT8s6U5bAbEVRQ9eXNKjK",
        "http_server_config:",
        "http2: ",
        "true",
        "headers:",
        "min_version: TLS12",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "!!binary ",
        "|\n",
        "'",
        "\"",
        "\t",
        "\0",
        "? ",
        "<<: ",
    ];
    runner(1_000)
        .run(&text(pieces), |text| {
            fs::write(&file, text).unwrap();
            let _ = ReloadingConfig::load(Some(file.clone()));
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_request_is_answered_or_its_connection_closed() {
    let exporter = Exporter::start_bare(&["--redis.url=redis://127.0.0.1:1"]);
    let pieces = &[
        "GET ",
        "HEAD ",
        "POST ",
        "/metrics",
        "/",
        " HTTP/1.1",
        " HTTP/1.0",
        "\r\n",
        "\n",
        "Host: x",
        "Accept: ",
        "text/plain;version=0.0.4",
        "application/openmetrics-text",
        ";q=",
        "0.5",
        "-1",
        "*/*",
        ",",
        "Accept-Encoding: ",
        "gzip",
        "identity;q=0",
        "Authorization: Basic ",
        "X-Prometheus-Scrape-Timeout-Seconds: ",
        "1e308",
        "nan",
        "0.1",
        "Content-Length: ",
        "18446744073709551616",
        "Transfer-Encoding: chunked",
        "\0",
    ];
    runner(500)
        .run(&text(pieces), |text| {
            let mut client = TcpStream::connect(&exporter.address).unwrap();
            client.set_read_timeout(Some(SOON)).unwrap();
            let _ = client.write_all(text.as_bytes());
            let _ = client.shutdown(std::net::Shutdown::Write);
            let ended = client.read_to_end(&mut Vec::new());
            prop_assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "no end: {text:?}");
            Ok(())
        })
        .unwrap();
    assert_eq!(exporter.get("/-/healthy", &[]).status, 200);
    let log = exporter.whole_log();
    assert!(!log.contains("panic"), "{log}");
}
