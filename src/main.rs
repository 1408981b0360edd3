//! Reads the command line, starts the log, binds, and runs until a signal.

use std::{env, io, process::ExitCode};

use prompt_redis_exporter::{
    cli::{Cli, Command, LogFormat, LogLevel, PASSWORD_VARIABLE, StatusArgs, VERSION, unknown_variables},
    config::{Config, ListenAddress},
    redis::{collect::Collector, endpoint::Endpoint},
    run, setup,
    status::Status,
    web::{config::ReloadingConfig, server},
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing::level_filters::LevelFilter;

/// The exit status for a wrong option, like clap's own.
const WRONG_OPTION: u8 = 2;

fn main() -> ExitCode {
    let mut cli = match Cli::from_args(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let command = cli.command.take();
    if command.is_some() {
        // `status` serves nothing, so it does not need the files of the web configuration.
        cli.web.config_file = None;
    }
    match configure(cli) {
        Err(sentence) => {
            eprintln!("error: {sentence}");
            WRONG_OPTION.into()
        }
        Ok(configured) => match command {
            None => serve_until_told(configured),
            Some(Command::Status(args)) => show_status(configured, args),
        },
    }
}

/// What was typed, checked.
struct Configured {
    config: Config,
    endpoint: Endpoint,
    web: ReloadingConfig,
}

/// Checks the options, and reads the web configuration that they name.
fn configure(cli: Cli) -> Result<Configured, String> {
    let mut config = Config::new(cli, password()?).map_err(|error| error.to_string())?;
    let endpoint = Endpoint::new(std::mem::take(&mut config.redis))?;
    let web = ReloadingConfig::load(config.web_config_file.clone())?;
    Ok(Configured { config, endpoint, web })
}

fn serve_until_told(configured: Configured) -> ExitCode {
    let Configured { config, endpoint, web } = configured;
    start_log(config.log_level, config.log_format);
    for variable in misspelled_variables() {
        tracing::warn!("{variable}");
    }
    match until_ended(serve(config, endpoint, web)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn show_status(configured: Configured, args: StatusArgs) -> ExitCode {
    let Configured { config, endpoint, .. } = configured;
    for variable in misspelled_variables() {
        eprintln!("warning: {variable}");
    }
    let status = Status {
        setup: setup(&endpoint),
        patterns: config.selection.patterns.len(),
        timeout: config.timeout,
        collector: Collector::new(endpoint, config.selection, config.collect),
    };
    match until_ended(status.run(args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot write: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A sentence for each variable that looks like one of this program's and is none.
fn misspelled_variables() -> Vec<String> {
    let names = env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let sentence = |variable: prompt_redis_exporter::cli::UnknownVariable| {
        format!("the environment variable {} is read by nothing: is {} meant?", variable.name, variable.nearest)
    };
    unknown_variables(names).into_iter().map(sentence).collect()
}

/// The password's own variable.
fn password() -> Result<Option<String>, String> {
    match env::var(PASSWORD_VARIABLE) {
        Ok(password) => Ok(Some(password)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{PASSWORD_VARIABLE} is not UTF-8")),
    }
}

fn until_ended<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A name that is still being resolved holds a thread that nobody needs any more.
    runtime.shutdown_background();
    outcome
}

async fn serve(config: Config, endpoint: Endpoint, web: ReloadingConfig) -> io::Result<()> {
    // First of all, so that a signal during the start is not lost.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut listeners = Vec::new();
    for address in &config.listen_addresses {
        listeners.push(listen(address).await?);
    }
    let redis = endpoint.to_string();
    let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let (path, current) = (&config.telemetry_path, web.current());
    let (tls, users) = (current.tls.is_some(), current.users());
    tracing::info!(version = VERSION, ?addresses, path, redis, tls, users, "serving");
    run(config, endpoint, web, listeners, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
    .await;
    Ok(())
}

async fn listen(address: &ListenAddress) -> io::Result<TcpListener> {
    server::bind(address).await.map_err(|error| {
        let advice = "is another exporter running? --web.listen-address chooses another address";
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}; {advice}"))
    })
}

fn start_log(level: LogLevel, format: LogFormat) {
    use tracing_subscriber::{Layer, layer::SubscriberExt, util::SubscriberInitExt};

    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
    };
    let lines = match format {
        LogFormat::Logfmt => tracing_logfmt::builder().with_target(false).layer().with_writer(io::stderr).boxed(),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_target(false);
            json.with_writer(io::stderr).boxed()
        }
    };
    tracing_subscriber::registry().with(lines.with_filter(level)).init();
}
