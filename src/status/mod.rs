//! `prompt-redis-exporter status`: collects as the exporter does, and shows the report in a terminal or as JSON.

mod screen;
pub mod table;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant as Deadline, sleep, sleep_until},
};

use self::screen::Screen;
use crate::{
    cli::{Output, StatusArgs},
    model::{error::Error, snapshot::Snapshot},
    redis::{collect::Collector, progress::Progress},
    report::{Report, Setup},
};

/// Between two looks at how far the look-up of patterns has come.
const LOOK_UP_PAUSE: Duration = Duration::from_millis(20);

/// What `status` needs to collect.
pub struct Status {
    /// The collector.
    pub collector: Collector,
    /// How many patterns it has.
    pub patterns: usize,
    /// The longest one report may take.
    pub timeout: Duration,
    /// What a report says of the set-up.
    pub setup: Setup,
}

impl Status {
    /// Shows one report, or one after the other until a signal comes. True where nothing needs attention.
    ///
    /// # Errors
    /// The system's, where standard output cannot be written.
    pub async fn run(&self, args: StatusArgs) -> io::Result<bool> {
        match args.watch {
            None => self.once(args.output).await,
            Some(seconds) => self.watch(args.output, Duration::from_secs(seconds)).await.map(|()| true),
        }
    }

    async fn once(&self, output: Output) -> io::Result<bool> {
        let report = self.report().await;
        let mut out = io::stdout().lock();
        out.write_all(render(&report, output).as_bytes())?;
        out.flush()?;
        Ok(!report.needs_attention())
    }

    async fn watch(&self, output: Output, every: Duration) -> io::Result<()> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut resized = signal(SignalKind::window_change())?;
        // JSON is for programs: one document a line, and no screen.
        let screen = (output == Output::Table).then(Screen::enter).transpose()?;
        let shown = async {
            loop {
                let next = Deadline::now() + every;
                let report = self.report().await;
                loop {
                    draw(screen.as_ref(), &report, every)?;
                    tokio::select! {
                        () = sleep_until(next) => break,
                        _ = resized.recv() => {}
                    }
                }
            }
        };
        tokio::select! {
            ended = shown => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hang_up.recv() => Ok(()),
        }
    }

    async fn report(&self) -> Report {
        let began = Instant::now();
        let outcome = self.collect().await;
        Report::new(&outcome, began.elapsed(), &self.setup)
    }

    /// Collects until each pattern was looked up to its end, which in a large key space takes several collections.
    async fn collect(&self) -> Result<Snapshot, Error> {
        let until = Instant::now() + self.timeout;
        let mut limit = self.timeout;
        loop {
            let outcome = self.collector.collect(limit, &Progress::default(), &|| true).await;
            let is_complete = outcome.as_ref().map_or(true, |snapshot| snapshot.patterns.len() >= self.patterns);
            limit = until.saturating_duration_since(Instant::now());
            // Another collection must have the time to come to its end.
            if is_complete || limit < self.timeout / 2 {
                return outcome;
            }
            sleep(LOOK_UP_PAUSE).await;
        }
    }
}

fn draw(screen: Option<&Screen>, report: &Report, every: Duration) -> io::Result<()> {
    match screen {
        None => writeln!(io::stdout(), "{}", json(report, false)),
        Some(screen) => {
            let footer = format!("\nEvery {} s; Ctrl-C ends it.\n", every.as_secs());
            screen.draw(&(render(report, Output::Table) + &footer))
        }
    }
}

fn render(report: &Report, output: Output) -> String {
    match output {
        Output::Table => table::render(report, screen::style()),
        Output::Json => json(report, true) + "\n",
    }
}

fn json(report: &Report, pretty: bool) -> String {
    let written = if pretty { serde_json::to_string_pretty(report) } else { serde_json::to_string(report) };
    // Plain structures with text keys can always be written.
    written.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
}
