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
        &["s3cret"],
        &["--redis.password=s3cret"],
        &["--redis.password", "s3cret"],
        &["status", "s3cret"],
        &["-a", "s3cret"],
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
    let command = Cli::command();
    let of_subcommands = command.get_subcommands().flat_map(clap::Command::get_arguments);
    for arg in command.get_arguments().chain(of_subcommands) {
        let Some(option) = arg.get_long().filter(|long| !long.starts_with("no-")) else { continue };
        let variable = format!("PROMPT_REDIS_EXPORTER_{}", option.to_uppercase().replace(['.', '-'], "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(variable.as_str()), "--{option}");
    }
}

#[test]
fn a_password_given_by_mistake_comes_with_what_would_be_right() {
    let said = |args: &[&str]| String::from_utf8_lossy(&run(args).stderr).into_owned();
    assert!(said(&["--redis.password=s3cret"]).contains("PROMPT_REDIS_EXPORTER_REDIS_PASSWORD"));
    assert!(said(&["statsu"]).contains("'status'"));
    assert!(said(&["s3cret"]).contains("in case it is a password"));
}

#[test]
fn an_empty_variable_is_as_if_it_were_not_set() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
    for arg in Cli::command().get_arguments() {
        command.envs(
            arg.get_env().filter(|name| *name != "PROMPT_REDIS_EXPORTER_WEB_LISTEN_ADDRESS").map(|name| (name, "")),
        );
    }
    command.env("PROMPT_REDIS_EXPORTER_REDIS_PASSWORD", "");
    let exporter = Exporter::spawn(command.arg("--web.listen-address=127.0.0.1:0"));
    assert!(exporter.log().contains("redis=redis://127.0.0.1:6379"), "{}", exporter.log());
}

#[test]
fn a_misspelled_variable_is_a_line_in_the_log_with_the_right_one() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
    command
        .arg("--web.listen-address=127.0.0.1:0")
        .env("PROMPT_REDIS_EXPORTER_REDIS_ULR", "redis://:s3cret@redis")
        // Kubernetes sets these for a Service called prompt-redis-exporter.
        .env("PROMPT_REDIS_EXPORTER_PORT", "tcp://10.0.0.1:10036")
        .env("PROMPT_REDIS_EXPORTER_PORT_10036_TCP_ADDR", "10.0.0.1")
        .env("PROMPT_REDIS_EXPORTER_SERVICE_HOST", "10.0.0.1");
    let log = Exporter::spawn(&mut command).whole_log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("warn")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("_REDIS_ULR") && warnings[0].contains("_REDIS_URL meant"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
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
