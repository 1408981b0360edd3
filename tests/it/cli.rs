//! The command line: exit status, sentences, environment.

use std::process::{Command, Output};

use clap::CommandFactory;
use prompt_redis_exporter::cli::Cli;

use crate::support::{Exporter, Server};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter")).args(args).output().unwrap()
}

#[test]
fn a_wrong_option_exits_2_with_a_sentence() {
    for args in [
        &["--redis.timeout=never"][..],
        &["--stream=instrument:lsstcam="],
        &["--redis.url=http://u:s3cret@redis"],
        &["--redis.url=redis://u:s3cret@redis:notaport"],
        &["--web.listen-address=nowhere"],
        &["--redis.password-file=/does/not/exist"],
        &["--redis.url=rediss://h", "--redis.tls-ca-file=/does/not/exist"],
        &["--no-such-option"],
        &["surplus"],
    ] {
        let output = run(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && output.stdout.is_empty(), "{args:?}: {said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_wrong_option_is_found_before_anything_is_bound() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--web.listen-address={}", taken.local_addr().unwrap());
    assert_eq!(run(&[&address, "--redis.timeout=0s"]).status.code(), Some(2), "not 1, for the port");
}

#[test]
fn version_and_help_exit_0() {
    let version = run(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let said = String::from_utf8(version.stdout).unwrap();
    assert!(said.starts_with(concat!("prompt-redis-exporter ", env!("CARGO_PKG_VERSION"), " (revision ")), "{said}");
    assert_eq!(run(&["--help"]).status.code(), Some(0));
}

#[test]
fn help_shows_no_secret_of_the_environment() {
    let output = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"))
        .arg("--help")
        .env("PROMPT_REDIS_EXPORTER_REDIS_URL", "redis://:s3cret@h")
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("s3cret"));
}

#[test]
fn every_option_has_its_variable() {
    for arg in Cli::command().get_arguments() {
        let Some(option) = arg.get_long().filter(|long| !long.starts_with("no-")) else { continue };
        let variable = format!("PROMPT_REDIS_EXPORTER_{}", option.to_uppercase().replace(['.', '-'], "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()), "--{option}");
    }
}

#[test]
fn the_environment_configures_all_and_the_option_wins() {
    let server = Server::redis7();
    server.run_all("XGROUP CREATE a,b g $ MKSTREAM\nXGROUP CREATE a g $ MKSTREAM\nXGROUP CREATE b h $ MKSTREAM");
    let command = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
        command
            .env("PROMPT_REDIS_EXPORTER_REDIS_URL", server.url())
            .env("PROMPT_REDIS_EXPORTER_STREAM", "a=g, b=h")
            .env("PROMPT_REDIS_EXPORTER_COLLECTOR_SERVER", "false")
            .env("PROMPT_REDIS_EXPORTER_WEB_LISTEN_ADDRESS", "127.0.0.1:0")
            .env("PROMPT_REDIS_EXPORTER_LOG_FORMAT", "json");
        command
    };
    let page = Exporter::spawn(&mut command()).scrape();
    assert!(page.up() && !page.has("redis_instance_info"));
    assert_eq!((page.group("exists", "a", "g"), page.group("exists", "b", "h")), (Some(1.0), Some(1.0)));

    let page = Exporter::spawn(command().args(["--stream=a,b", "--collector.server"])).scrape();
    assert_eq!(page.stream("exists", "a,b"), Some(1.0), "a comma on the command line is part of the key");
    assert!(page.has("redis_instance_info") && page.stream("exists", "a").is_none());
}

#[test]
fn the_log_can_be_json_or_quiet() {
    let server = Server::redis7();
    server.run("XGROUP CREATE s g $ MKSTREAM");
    let exporter = Exporter::start(&server, &["--log.format=json", "--stream=s"]);
    exporter.scrape();
    for line in exporter.log().lines() {
        assert!(line.starts_with('{') && line.ends_with('}') && line.contains("\"level\":\"INFO\""), "{line}");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
    let port = crate::support::free_port();
    let quiet = ["--log.level=error".to_owned(), format!("--web.listen-address=127.0.0.1:{port}")];
    let mut child = command.args(quiet).stderr(std::process::Stdio::piped()).spawn().unwrap();
    crate::support::until("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    child.wait().unwrap();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut log).unwrap();
    assert_eq!(log, "", "it serves and stops, and that is no error");
}
