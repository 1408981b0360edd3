//! Faults, each on a Redis and an exporter of its own, all under one Prometheus. They play at the same time, and what
//! is said of one must not be said of another: only the instance tells them apart.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    rewrite::FASTER,
    runbook::is_command,
    shell::Shell,
    shipped::alert,
    stack::{Generation, JOB, NAMESPACE, Notification, Process, Stack, within},
    support::{Exporter, Flavor, Server, free_port},
};

pub const STREAM: &str = "instrument:lsstcam";
pub const GROUP: &str = "lsstcam_consumer_group";
/// An hour is a minute for the night too.
const SPEED_UP: &str = "--speed-up=60";
/// The longest that an alert may take to come or to go.
const LONGEST: Duration = Duration::from_secs(90);

/// Something that goes wrong, and what should be heard of it.
pub struct Fault {
    pub name: &'static str,
    pub flavor: Flavor,
    /// What the exporter is told to watch.
    pub watch: &'static str,
    /// These arrive, and no others.
    pub arrive: &'static [&'static str],
    /// These fire, and are held back: they only follow.
    pub held_back: &'static [&'static str],
    /// Notifications that wake somebody.
    pub pages: usize,
    /// Does the damage, waits for what it says, and mends it.
    pub play: fn(&mut Fixture<'_>),
}

/// Where a fault plays.
pub struct Fixture<'a> {
    pub server: Server,
    pub shell: Shell,
    exporter: Option<Exporter>,
    fault: &'a Fault,
    address: String,
    stack: Option<&'a Stack>,
    dir: TempDir,
    night: Option<Process>,
    took: Duration,
    lost_since: Option<Instant>,
}

/// An alert in a notification.
pub struct Arrival(Value);

impl Arrival {
    pub fn label(&self, name: &str) -> &str {
        self.0["labels"][name].as_str().unwrap_or("")
    }

    pub fn description(&self) -> &str {
        self.0["annotations"]["description"].as_str().unwrap()
    }

    /// The commands in the description: they can be typed as they are.
    pub fn commands(&self) -> Vec<&str> {
        self.description().lines().filter(|line| is_command(line)).collect()
    }
}

/// Plays these at the same time, and holds what was heard against what should be.
pub fn play(generation: Generation, faults: &[Fault]) {
    let mut fixtures: Vec<_> = faults.iter().map(Fixture::made_for).collect();
    let addresses: Vec<_> = fixtures.iter().map(|fixture| fixture.address.clone()).collect();
    let stack = Stack::watching(generation, &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let played: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = fixtures.iter_mut().map(|fixture| scope.spawn(|| fixture.play(&stack))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let outcomes = fixtures.iter().zip(played).map(|(fixture, played)| played.and_then(|()| fixture.held_against()));
    let failed: Vec<_> = outcomes.filter_map(Result::err).collect();
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

impl<'a> Fixture<'a> {
    fn made_for(fault: &'a Fault) -> Self {
        let server = Server::start_limitable(fault.flavor);
        let address = format!("127.0.0.1:{}", free_port());
        let shell = Shell::for_redis(server.port);
        let (dir, took) = (TempDir::new().unwrap(), Duration::ZERO);
        let mut fixture = Self {
            server,
            shell,
            exporter: None,
            fault,
            address,
            stack: None,
            dir,
            night: None,
            took,
            lost_since: None,
        };
        fixture.start_exporter();
        fixture
    }

    pub fn start_exporter(&mut self) {
        self.start_exporter_with_password("");
    }

    /// An empty one is as none.
    pub fn start_exporter_with_password(&mut self, password: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-redis-exporter"));
        command.arg(format!("--web.listen-address={}", self.address));
        command.arg(format!("--redis.url={}", self.server.url())).arg(format!("--stream={}", self.fault.watch));
        command.env("PROMPT_REDIS_EXPORTER_REDIS_PASSWORD", password);
        self.exporter = Some(Exporter::spawn(&mut command));
    }

    pub fn kill_exporter(&mut self) {
        self.exporter = None;
    }

    pub fn exporter(&self) -> &Exporter {
        self.exporter.as_ref().unwrap()
    }

    /// A failure is told with the fault's name, after the others have played to their end.
    fn play(&mut self, stack: &'a Stack) -> Result<(), String> {
        self.stack = Some(stack);
        let began = Instant::now();
        let played = catch_unwind(AssertUnwindSafe(|| (self.fault.play)(self)));
        self.took = began.elapsed();
        played.map_err(|panic| format!("{}: {}", self.fault.name, sentence(&*panic)))
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn stack(&self) -> &'a Stack {
        self.stack.expect("a fault plays under a stack")
    }

    /// From now on a visit would be lost, or would wait.
    pub fn loses(&mut self) {
        self.loses_since(Duration::ZERO);
    }

    /// The same since a while ago.
    pub fn loses_since(&mut self, ago: Duration) {
        self.lost_since = Instant::now().checked_sub(ago);
    }

    /// A night of observing on this Redis, with the streams it needs.
    pub fn begin_night(&mut self, options: &[&str]) {
        let mut command = Command::new(night_program());
        command.arg(format!("--redis.url={}", self.server.url())).args(["--bootstrap", SPEED_UP, "--seed=172"]);
        self.night = Some(Process::start("observing_night", command.args(options), self.dir.path()));
    }

    /// Plays a night to its end, and gives a number of its tally.
    pub fn end_night(&mut self, number: &str) -> u64 {
        let said = self.night.take().expect("a night was begun").finish();
        let tally = said.lines().find(|line| line.starts_with("stream=")).unwrap();
        let mut pairs = tally.split(' ').filter_map(|pair| pair.split_once('='));
        pairs.find(|(name, _)| *name == number).unwrap().1.parse().unwrap()
    }

    /// Waits until this alert arrives, with the labels that it should have.
    pub fn arrives(&self, name: &str) -> Arrival {
        let arrival = self.heard(name, "firing");
        let rule = alert(name);
        for label in ["severity", "component", "facility"] {
            assert_eq!(arrival.label(label), rule.label(label), "{label} of {name}");
        }
        let mut expected = vec![("job", JOB), ("instance", &*self.address), ("namespace", NAMESPACE)];
        for pair in [("stream", STREAM), ("group", GROUP)] {
            if rule.annotation("description").contains(&format!("$labels.{}", pair.0)) {
                expected.push(pair);
            }
        }
        for (label, value) in expected {
            assert_eq!(arrival.label(label), value, "{label} of {name}");
        }
        assert!(!arrival.0["annotations"].to_string().contains("no value"), "{name}: {}", arrival.0);
        arrival
    }

    /// The same while this is done again and again.
    pub fn arrives_while(&self, name: &str, again: impl Fn()) -> Arrival {
        within(LONGEST, &format!("{name} fires"), || {
            again();
            self.fired().contains(name).then_some(())
        });
        self.arrives(name)
    }

    /// Waits until it is over.
    pub fn resolves(&self, name: &str) {
        self.heard(name, "resolved");
    }

    fn heard(&self, name: &str, status: &str) -> Arrival {
        Arrival(within(LONGEST, &format!("{name} arrives, {status}"), || {
            let alerts = self.notified().into_iter().flat_map(|(_, alerts)| alerts);
            alerts.into_iter().find(|alert| alert["labels"]["alertname"] == name && alert["status"] == status)
        }))
    }

    /// Each notification about this exporter: the receiver, and the alerts in it.
    fn notified(&self) -> Vec<(String, Vec<Value>)> {
        let about_us = |alerts: &[Value]| alerts.iter().any(|alert| alert["labels"]["instance"] == self.address);
        let received = self.stack().receiver.received();
        let ours = received.into_iter().filter(|notification| about_us(notification.alerts()));
        ours.map(|notification| (notification.receiver.clone(), notification.alerts().to_vec())).collect()
    }

    /// Types this command of an alert, exactly as it was printed.
    pub fn type_printed(&self, arrival: &Arrival, part: &str) -> Result<String, String> {
        let found = arrival.commands().into_iter().find(|line| line.contains(part));
        self.shell.run(found.unwrap_or_else(|| panic!("no {part} in {}", arrival.description())))
    }

    /// Types the first command of an alert, exactly as it was printed.
    pub fn type_first(&self, arrival: &Arrival) -> String {
        let command = *arrival.commands().first().expect("an alert prints a command");
        self.shell.run(command).unwrap_or_else(|said| panic!("{command}: {said}")).trim().to_owned()
    }

    /// Types every redis-cli line of an alert; none may fail.
    pub fn type_all(&self, arrival: &Arrival) {
        assert!(!arrival.commands().is_empty(), "{}", arrival.description());
        for line in arrival.commands() {
            self.shell.run(line).unwrap_or_else(|said| panic!("{line}: {said}"));
        }
    }

    /// Holds all that was heard against what should be.
    fn held_against(&self) -> Result<(), String> {
        let Fault { name, arrive, held_back, .. } = self.fault;
        let (arrived, fired, pages) = (self.arrived(), self.fired(), self.pages());
        if let Some(time) = self.page_time() {
            println!("page-time: {name}: {:.0} s", time.as_secs_f64());
        }
        println!("{name}: {pages} pages; arrived {arrived:?}, held back {held_back:?}; {:.1?}", self.took);
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let mut wrong = Vec::new();
        if arrived != set(arrive) {
            wrong.push(format!("{name}: {arrived:?} arrived and not {arrive:?}"));
        }
        if fired != set(&[*arrive, *held_back].concat()) {
            wrong.push(format!("{name}: {fired:?} fired and not {arrive:?} and {held_back:?}"));
        }
        if pages != self.fault.pages {
            wrong.push(format!("{name}: {pages} pages and not {}", self.fault.pages));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// From the first visit that was lost or had to wait to the first page, at the pace of a real night.
    fn page_time(&self) -> Option<Duration> {
        let received = self.stack().receiver.received();
        let ours = |notification: &&Notification| {
            let mut alerts = notification.alerts().iter();
            notification.receiver == "page" && alerts.any(|alert| alert["labels"]["instance"] == self.address)
        };
        let first = received.iter().find(ours)?.at;
        Some(FASTER.slower(first.checked_duration_since(self.lost_since?)?))
    }

    fn arrived(&self) -> BTreeSet<String> {
        let alerts = self.notified().into_iter().flat_map(|(_, alerts)| alerts);
        alerts.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// What fired in Prometheus since it runs.
    fn fired(&self) -> BTreeSet<String> {
        // Whether a lack of visits is news depends on the hour at which the test runs.
        let matchers = "alertstate=\"firing\", alertname!=\"PromptRedisNoArrivals\"";
        let ours = format!("ALERTS{{{matchers}, instance=\"{}\"}}", self.address);
        let fired = self.stack().prometheus.query(&format!("group by (alertname) (last_over_time({ours}[1h]))"));
        fired.iter().map(|sample| sample["metric"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    fn pages(&self) -> usize {
        let is_firing = |alerts: &[Value]| alerts.iter().any(|alert| alert["status"] == "firing");
        self.notified().iter().filter(|(receiver, alerts)| receiver == "page" && is_firing(alerts)).count()
    }
}

fn sentence(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}

/// The simulated night, built beside the tests.
pub fn night_program() -> std::path::PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join("examples/observing_night");
    assert!(program.exists(), "{} is missing: build it with cargo build --examples", program.display());
    program
}
