//! What a person types: the options, their environment variables and the help text.
//!
//! Decides nothing. Whether the values make sense together is for [`crate::config`] to say.

use std::{collections::BTreeSet, env, ffi::OsString, path::PathBuf};

use clap::{
    Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    builder::{OsStr, Resettable},
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

/// What every variable of this program begins with.
const VARIABLE_PREFIX: &str = "PROMPT_REDIS_EXPORTER_";

/// Variables that have no option: a secret in an option would show in `ps`.
pub const PASSWORD_VARIABLE: &str = "PROMPT_REDIS_EXPORTER_REDIS_PASSWORD";

/// The version, the commit and the compiler: what `--version` says.
pub const VERSION: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (revision ", env!("BUILD_REVISION"), ", ", env!("BUILD_RUSTC"), ")");

/// Prometheus exporter for Redis Streams consumer groups: what waits, for how long, and what was lost.
///
/// Every option has an environment variable, shown behind it; the option wins. The password is never an option, since
/// options show in `ps`: use --redis.password-file or PROMPT_REDIS_EXPORTER_REDIS_PASSWORD.
#[derive(Debug, Parser)]
#[command(name = "prompt-redis-exporter", version = VERSION, disable_help_subcommand = true)]
pub struct Cli {
    /// How to reach Redis.
    #[command(flatten)]
    pub redis: RedisArgs,

    /// A stream to watch: KEY, or KEY=GROUP for only that group, which must then exist. A KEY with * ? or [ is a
    /// pattern, found by SCAN TYPE stream; any other KEY must exist. Repeatable; the variable takes a list with commas
    #[arg(
        long = "stream",
        value_name = "KEY[=GROUP]",
        env = "PROMPT_REDIS_EXPORTER_STREAM",
        default_value = "instrument:*"
    )]
    pub streams: Vec<String>,

    /// What to ask.
    #[command(flatten)]
    pub collector: CollectorArgs,

    /// The HTTP server.
    #[command(flatten)]
    pub web: WebArgs,

    /// The log.
    #[command(flatten)]
    pub log: LogArgs,

    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// The program's options, each also behind a subcommand.
    #[must_use]
    pub fn whole_command() -> clap::Command {
        // A URL in the environment may hold a password, so the help text shows no values.
        Self::command().mut_args(|arg| arg.global(true).hide_env_values(true))
    }

    /// Reads the arguments, the program's name first, and the environment. An empty variable is as if it were not set.
    ///
    /// # Errors
    /// What clap says of a wrong option; also `--help` and `--version`, which end the program too. No error repeats an
    /// argument that stands alone: it may be a password.
    pub fn from_args(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Self, clap::Error> {
        let command = Self::whole_command()
            .mut_args(without_empty_variable)
            .mut_subcommands(|command| command.mut_args(without_empty_variable));
        let matches = command.try_get_matches_from(args).map_err(without_secrets)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        // What stands on the command line may hold a comma. A variable is one string for all of them.
        for (name, list) in [("streams", &mut cli.streams), ("urls", &mut cli.redis.urls)] {
            if matches.value_source(name) == Some(ValueSource::EnvVariable) {
                *list = list.iter().flat_map(|list| list.split(',')).map(|one| one.trim().to_owned()).collect();
            }
        }
        Ok(cli)
    }
}

fn without_empty_variable(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::<OsStr>::Reset) } else { arg }
}

/// The error, without the argument in it where that may be a password.
fn without_secrets(error: clap::Error) -> clap::Error {
    let invalid = match error.get(ContextKind::InvalidArg).or_else(|| error.get(ContextKind::InvalidSubcommand)) {
        Some(ContextValue::String(invalid)) => invalid.as_str(),
        _ => return error,
    };
    let sentence = match (error.kind(), error.get(ContextKind::SuggestedSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::Strings(similar))) => {
            format!("there is no such subcommand; is it '{}'?", similar.join("' or '"))
        }
        (ErrorKind::UnknownArgument, _) if invalid.starts_with("--") && invalid.contains("pass") => format!(
            "there is no option {}, since options show in ps: say --redis.password-file FILE, or put the password into \
             {PASSWORD_VARIABLE}",
            invalid.split('=').next().unwrap_or_default()
        ),
        (ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand, _) if !invalid.starts_with('-') => {
            "an argument belongs to no option; it is not shown here, in case it is a password".to_owned()
        }
        _ => return error,
    };
    let command = Cli::whole_command();
    clap::Error::raw(error.kind(), format!("{sentence}\n\nFor more information, try '--help'.\n")).with_cmd(&command)
}

/// A variable that has this program's prefix and that nothing reads.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownVariable {
    /// Its name.
    pub name: String,
    /// The variable that it resembles most.
    pub nearest: String,
}

/// The variables among these names that are probably misspelled.
#[must_use]
pub fn unknown_variables(names: impl IntoIterator<Item = String>) -> Vec<UnknownVariable> {
    let known = variables();
    let is_unknown = |name: &String| {
        let rest = name.strip_prefix(VARIABLE_PREFIX);
        rest.is_some_and(|rest| !is_of_kubernetes(rest)) && !known.contains(name)
    };
    let nearest = |name: &String| {
        let likeness = |known: &&String| (strsim::jaro_winkler(known, name) * 1e6).round();
        known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).cloned().unwrap_or_default()
    };
    let unknown = names.into_iter().filter(is_unknown);
    unknown.map(|name| UnknownVariable { nearest: nearest(&name), name }).collect()
}

/// Kubernetes describes each Service to the pods beside it in variables; that of a Service called prompt-redis-exporter
/// have the prefix of ours.
fn is_of_kubernetes(rest: &str) -> bool {
    let starts_with_digit = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let is_port = |rest: &str| rest.is_empty() || rest.strip_prefix('_').is_some_and(starts_with_digit);
    rest.starts_with("SERVICE_") || rest.strip_prefix("PORT").is_some_and(is_port)
}

fn variables() -> BTreeSet<String> {
    let command = Cli::whole_command();
    let of_subcommands = command.get_subcommands().flat_map(clap::Command::get_arguments);
    let variables = command.get_arguments().chain(of_subcommands).filter_map(Arg::get_env);
    let mut variables: BTreeSet<_> = variables.filter_map(|name| name.to_str().map(str::to_owned)).collect();
    variables.insert(PASSWORD_VARIABLE.to_owned());
    variables
}

/// What the program does instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Collect once and show what is found, trouble first, for people or programs. Ends with status 1 if something needs
    /// attention or Redis cannot be reached
    Status(StatusArgs),
}

/// The options of `status` alone.
#[derive(Args, Clone, Copy, Debug)]
pub struct StatusArgs {
    /// How to show it: table for people, json for programs
    #[arg(long, value_name = "FORMAT", env = "PROMPT_REDIS_EXPORTER_OUTPUT", default_value = "table")]
    pub output: Output,

    /// Show it again every so many seconds, until Ctrl-C; every 2 where no number is given
    #[arg(
        long,
        value_name = "SECONDS",
        env = "PROMPT_REDIS_EXPORTER_WATCH",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    pub watch: Option<u64>,
}

/// `--output`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs, as docs/status.md describes it
    Json,
}

/// `--redis.*`
#[derive(Args, Debug)]
#[command(next_help_heading = "Redis")]
pub struct RedisArgs {
    /// Where Redis is: redis://, rediss:// (TLS) or unix://, with user, password and database if need be. Repeatable
    /// for Sentinels and the nodes of a Cluster; the variable takes a list with commas
    #[arg(
        long = "redis.url",
        value_name = "URL",
        env = "PROMPT_REDIS_EXPORTER_REDIS_URL",
        default_value = "redis://127.0.0.1:6379"
    )]
    pub urls: Vec<String>,

    /// The URLs are Sentinels: follow the master of this name. A login in a URL is then the Sentinels' own
    #[arg(long = "redis.sentinel-master", value_name = "NAME", env = "PROMPT_REDIS_EXPORTER_REDIS_SENTINEL_MASTER")]
    pub sentinel_master: Option<String>,

    /// The URLs are nodes of a Cluster
    #[arg(
        long = "redis.cluster",
        env = "PROMPT_REDIS_EXPORTER_REDIS_CLUSTER",
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    pub cluster: bool,

    /// The ACL user to log in as
    #[arg(long = "redis.username", value_name = "USER", env = "PROMPT_REDIS_EXPORTER_REDIS_USERNAME")]
    pub username: Option<String>,

    /// A file that holds the password. It is read again at every connect, so a rotated secret needs no restart
    #[arg(long = "redis.password-file", value_name = "FILE", env = "PROMPT_REDIS_EXPORTER_REDIS_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,

    /// The certificate authority to trust instead of the system's, in PEM; for rediss://
    #[arg(long = "redis.tls-ca-file", value_name = "FILE", env = "PROMPT_REDIS_EXPORTER_REDIS_TLS_CA_FILE")]
    pub tls_ca_file: Option<PathBuf>,

    /// Our client certificate, in PEM; for rediss://
    #[arg(long = "redis.tls-cert-file", value_name = "FILE", env = "PROMPT_REDIS_EXPORTER_REDIS_TLS_CERT_FILE")]
    pub tls_cert_file: Option<PathBuf>,

    /// The key of our client certificate, in PEM
    #[arg(long = "redis.tls-key-file", value_name = "FILE", env = "PROMPT_REDIS_EXPORTER_REDIS_TLS_KEY_FILE")]
    pub tls_key_file: Option<PathBuf>,

    /// The longest one collection may take, connecting included
    #[arg(
        long = "redis.timeout",
        value_name = "DURATION",
        env = "PROMPT_REDIS_EXPORTER_REDIS_TIMEOUT",
        default_value = "5s"
    )]
    pub timeout: String,
}

/// `--collector.*`
#[derive(Args, Debug)]
#[command(next_help_heading = "Collectors")]
pub struct CollectorArgs {
    /// The most entries counted on the server when a backlog has to be counted; 0 never counts
    #[arg(
        long = "collector.undelivered-max",
        value_name = "ENTRIES",
        env = "PROMPT_REDIS_EXPORTER_COLLECTOR_UNDELIVERED_MAX",
        default_value_t = 1000
    )]
    pub undelivered_max: u32,

    /// The most time that all counting of one collection may take Redis; what is left over is counted in a later one,
    /// in turn
    #[arg(
        long = "collector.undelivered-budget",
        value_name = "DURATION",
        env = "PROMPT_REDIS_EXPORTER_COLLECTOR_UNDELIVERED_BUDGET",
        default_value = "25ms"
    )]
    pub undelivered_budget: String,

    /// Ask INFO for memory, clients, uptime and version. On unless --no-collector.server
    #[arg(
        long = "collector.server",
        env = "PROMPT_REDIS_EXPORTER_COLLECTOR_SERVER",
        num_args = 0,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        overrides_with = "no_server"
    )]
    pub server: Option<bool>,

    /// Leave INFO out
    #[arg(long = "no-collector.server", overrides_with = "server")]
    pub no_server: bool,

    /// A series per consumer, for those with something pending. Walks all consumers of such a group. Off unless asked for
    #[arg(
        long = "collector.consumers",
        env = "PROMPT_REDIS_EXPORTER_COLLECTOR_CONSUMERS",
        num_args = 0,
        default_missing_value = "true",
        value_parser = clap::builder::BoolishValueParser::new(),
        overrides_with = "no_consumers"
    )]
    pub consumers: Option<bool>,

    /// No series per consumer
    #[arg(long = "no-collector.consumers", overrides_with = "consumers")]
    pub no_consumers: bool,

    /// The most consumers shown for a group
    #[arg(
        long = "collector.consumers-max",
        value_name = "CONSUMERS",
        env = "PROMPT_REDIS_EXPORTER_COLLECTOR_CONSUMERS_MAX",
        default_value_t = 100
    )]
    pub consumers_max: usize,
}

/// `--web.*`
#[derive(Args, Debug)]
#[command(next_help_heading = "Web")]
pub struct WebArgs {
    /// Where to listen: host:port, IPv6 in brackets, or :port for every address. Repeatable
    #[arg(
        long = "web.listen-address",
        value_name = "ADDRESS",
        env = "PROMPT_REDIS_EXPORTER_WEB_LISTEN_ADDRESS",
        value_delimiter = ',',
        default_value = ":10036"
    )]
    pub listen_addresses: Vec<String>,

    /// Where the metrics are
    #[arg(
        long = "web.telemetry-path",
        value_name = "PATH",
        env = "PROMPT_REDIS_EXPORTER_WEB_TELEMETRY_PATH",
        default_value = "/metrics"
    )]
    pub telemetry_path: String,

    /// A file in the format of the exporter-toolkit's web configuration: TLS, passwords and headers of the exporter's own
    /// HTTP server. It is read again when it changes
    #[arg(long = "web.config.file", value_name = "FILE", env = "PROMPT_REDIS_EXPORTER_WEB_CONFIG_FILE")]
    pub config_file: Option<PathBuf>,
}

/// `--log.*`
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub struct LogArgs {
    /// How much to log
    #[arg(long = "log.level", value_name = "LEVEL", env = "PROMPT_REDIS_EXPORTER_LOG_LEVEL", default_value = "info")]
    pub level: LogLevel,

    /// How to write the log, which goes to standard error
    #[arg(
        long = "log.format",
        value_name = "FORMAT",
        env = "PROMPT_REDIS_EXPORTER_LOG_FORMAT",
        default_value = "logfmt"
    )]
    pub format: LogFormat,
}

/// `--log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it, and a doc comment would go into the help text")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
}

/// `--log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "the names say it, and a doc comment would go into the help text")]
pub enum LogFormat {
    Logfmt,
    Json,
}
