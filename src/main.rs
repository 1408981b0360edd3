//! Reads the command line, starts the log, binds, and runs until a signal.

use std::{env, io, process::ExitCode};

use prompt_redis_exporter::{
    cli::{Cli, LogFormat, LogLevel, PASSWORD_VARIABLE, VERSION},
    config::{Config, ListenAddress},
    redis::endpoint::Endpoint,
    run,
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
    let cli = match Cli::from_args(env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let (config, endpoint, web) = match configure(cli) {
        Ok(configured) => configured,
        Err(sentence) => {
            eprintln!("error: {sentence}");
            return WRONG_OPTION.into();
        }
    };
    start_log(config.log_level, config.log_format);
    match run_until_told(config, endpoint, web) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Checks the options, and reads the web configuration that they name.
fn configure(cli: Cli) -> Result<(Config, Endpoint, ReloadingConfig), String> {
    let mut config = Config::new(cli, password()?).map_err(|error| error.to_string())?;
    let endpoint = Endpoint::new(std::mem::take(&mut config.redis))?;
    let web = ReloadingConfig::load(config.web_config_file.take())?;
    Ok((config, endpoint, web))
}

/// The password's own variable.
fn password() -> Result<Option<String>, String> {
    match env::var(PASSWORD_VARIABLE) {
        Ok(password) => Ok(Some(password)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(format!("{PASSWORD_VARIABLE} is not UTF-8")),
    }
}

fn run_until_told(config: Config, endpoint: Endpoint, web: ReloadingConfig) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(config, endpoint, web));
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
