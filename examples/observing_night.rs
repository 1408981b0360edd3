//! Simulates the traffic of an observing night on a real Redis, with the commands that the real programs send, and prints
//! in numbers what it did, so that a page of the exporter can be compared with it.
//!
//! | who | does |
//! |---|---|
//! | Next Visit Fan Out | one `XADD` per detector at each visit, about 1.2 kB each |
//! | KEDA | every two seconds reads the group's lag (`XINFO GROUPS`) and starts that many workers, up to a limit |
//! | a worker | is a consumer named by a fresh UUID4: `XREADGROUP ... COUNT 1 ... >`, `XACK` at once, then processes; leaves after ten messages, or after 900 s with none |
//! | the daily trim | `XTRIM ... MAXLEN 1000` at dawn: once all is read, or an hour after the last visit |
//!
//! All happens in one loop on simulated time, in whole seconds, over one connection: a worker is state, not a thread,
//! and what happens in the same second shares round trips. Entry ids are Redis's own, so with `--speed-up` the ages
//! that an exporter shows are in real seconds, shorter than those of a real night.
//!
//! The numbers come from Redis's replies. What a stream and its group hold is read once, at the start; after that it is
//! counted. The same `--seed` on a fresh stream gives the same night; on a stream where it ran before, its consumers are
//! not new ones.
//!
//! Not simulated: Kafka, the fan-out's retries (a Redis that goes away ends the night), the expiry of messages, and the
//! blocking of an idle worker's read (it reads again when something waits). Servers before 7.0 have no lag, and KEDA
//! could not scale on them: there the simulator's own count takes its place.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    error::Error,
    fmt,
    io::{self, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use redis::{Connection, ErrorKind, Pipeline, RedisResult, Value, from_redis_value, from_redis_value_ref};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Seconds since the night began, by the simulated clock.
type Time = u64;
type Outcome<T> = Result<T, Box<dyn Error>>;
/// The reply to XREADGROUP: nothing, or for each stream its entries, each an id and its fields.
type Reply = Option<Vec<(Value, Vec<(String, Value)>)>>;

/// KEDA's polling interval.
const POLLING: Time = 2;
/// The workers that KEDA keeps though nothing waits.
const WORKERS_MIN: usize = 3;
/// From KEDA's decision to a worker's first read.
const START_UP: std::ops::RangeInclusive<Time> = 4..=12;
/// A worker leaves after so many messages...
const MESSAGES_MAX: usize = 10;
/// ...or after so long without one.
const IDLE_MAX: Time = 900;
/// Older messages are ignored, so the trim waits no longer than this for the last visit to be read.
const EXPIRY: Time = 3600;
/// The visits of a night.
const NIGHT: usize = 1000;
/// What the daily trim leaves.
const DAILY_MAXLEN: usize = 1000;
/// Reads in a round trip. Between it and that of their acknowledgements so many are pending.
const BATCH: usize = 20;
/// A Redis that does not reply for so long ends the night.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The fields that all detectors of a visit share. The filler brings an entry to the size of the real ones.
const NEXT_VISIT: &str = "salIndex 1 scriptSalIndex 200023 coordinateSystem 2 startTime 1740691320.501 rotationSystem 2 \
    cameraAngle 128.503871 filters r_57 dome 2 duration 32.0 nimages 1 survey BLOCK-365 totalCheckpoints 1 \
    private_sndStamp 1740691288.127";
const FILLER: usize = 800;

/// Simulates the traffic of an observing night on a real Redis, and prints in numbers what it did: a line for each stream.
#[derive(Debug, Parser)]
struct Options {
    /// Where Redis is
    #[arg(long = "redis.url", value_name = "URL", default_value = "redis://127.0.0.1:6379")]
    redis_url: String,
    /// Whose night it is; repeatable. Each has its stream, its group, its number of detectors and its limit of workers
    #[arg(long = "instrument", value_name = "NAME", value_delimiter = ',', default_value = "lsstcam")]
    instruments: Vec<Instrument>,
    /// Create the streams and groups first, where they do not exist
    #[arg(long)]
    bootstrap: bool,
    /// How much faster than real time; 0 is as fast as possible
    #[arg(long, value_name = "FACTOR", default_value = "1", value_parser = number)]
    speed_up: f64,
    /// Visits to play; 0 never ends, and has its daily trim after each thousand
    #[arg(long, default_value_t = NIGHT)]
    visits: usize,
    /// Entries a visit [default: lsstcam 172, hsc 103, latiss 1]
    #[arg(long)]
    detectors: Option<usize>,
    /// The most workers of a stream at a time [default: lsstcam 1700, hsc 400, latiss 30]
    #[arg(long)]
    workers_max: Option<usize>,
    /// The time from one visit to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 37)]
    cadence: Time,
    /// The longest that a worker takes for a message; the shortest is a tenth of it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    processing: Time,
    /// The share of messages, 0 to 1, whose worker dies after the read and before the acknowledgement
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number)]
    died: f64,
    /// At this visit the workers stop reading; repeatable
    #[arg(long, value_name = "VISIT")]
    stall_at: Vec<usize>,
    /// How long they read nothing
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    stall_for: Time,
    /// At this visit trim entries before they are read, to MAXLEN or to half of what waits; repeatable
    #[arg(long, value_name = "VISIT[=MAXLEN]", value_parser = unread_trim)]
    trim_unread: Vec<(usize, Option<usize>)>,
    /// Makes the night the same each time
    #[arg(long)]
    seed: Option<u64>,
}

fn number(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number| (0.0..=1e9).contains(number)).ok_or_else(|| "must be a number from 0".to_owned())
}

fn unread_trim(text: &str) -> Result<(usize, Option<usize>), String> {
    let number = |part: &str| part.parse().map_err(|_| "must be VISIT or VISIT=MAXLEN".to_owned());
    match text.split_once('=') {
        Some((visit, maxlen)) => Ok((number(visit)?, Some(number(maxlen)?))),
        None => Ok((number(text)?, None)),
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Instrument {
    Lsstcam,
    Hsc,
    Latiss,
}

impl Instrument {
    /// The name, the detectors in use, and KEDA's limit of workers.
    fn facts(self) -> (&'static str, usize, usize) {
        match self {
            Self::Lsstcam => ("lsstcam", 172, 1700),
            Self::Hsc => ("hsc", 103, 400),
            Self::Latiss => ("latiss", 1, 30),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match night(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn night(options: Options) -> Outcome<()> {
    let stop = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
    let (redis, empty_reads_count) = connect(&options.redis_url).map_err(|error| format!("connecting: {error}"))?;
    let rng = options.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
    let mut site = Site { options, redis, empty_reads_count, rng, agenda: BTreeMap::new() };
    let mut streams = Vec::new();
    for (index, instrument) in site.options.instruments.clone().into_iter().enumerate() {
        streams.push(Stream::open(index, instrument, &mut site)?);
    }
    play(&mut streams, &mut site, stop).await?;
    let mut out = io::stdout().lock();
    Ok(streams.iter().try_for_each(|stream| writeln!(out, "{}", stream.tally))?)
}

/// Also says whether a read that finds nothing makes a consumer: from 7.2 on it does.
fn connect(url: &str) -> RedisResult<(Connection, bool)> {
    let mut redis = redis::Client::open(url)?.get_connection_with_timeout(TIMEOUT)?;
    redis.set_read_timeout(Some(TIMEOUT))?;
    redis.set_write_timeout(Some(TIMEOUT))?;
    let info: String = redis::cmd("INFO").arg("server").query(&mut redis)?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let version = (numbers.next().flatten(), numbers.next().flatten());
    Ok((redis, version >= (Some(7), Some(2))))
}

/// The loop: all that happens in one second, then the reads of all who are ready in it.
async fn play(streams: &mut [Stream], site: &mut Site, [mut terminate, mut interrupt]: [Signal; 2]) -> Outcome<()> {
    let began = Instant::now();
    while streams.iter().any(|stream| !stream.over) {
        let Some((now, events)) = site.agenda.pop_first() else { break };
        tokio::select! {
            biased; // A signal first: at full speed the time has always come.
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = until(now, began, site.options.speed_up) => {}
        }
        for (index, event) in events {
            streams[index].happen(event, now, site)?;
        }
        for stream in &mut *streams {
            stream.read(now, site)?;
        }
    }
    Ok(())
}

async fn until(now: Time, began: Instant, speed_up: f64) {
    // Yields at least once, so that a signal is heard at any speed.
    tokio::task::yield_now().await;
    if speed_up > 0.0 {
        let due = Duration::try_from_secs_f64(Duration::from_secs(now).as_secs_f64() / speed_up);
        tokio::time::sleep(due.unwrap_or(Duration::MAX).saturating_sub(began.elapsed())).await;
    }
}

/// What all streams share.
struct Site {
    options: Options,
    redis: Connection,
    empty_reads_count: bool,
    rng: fastrand::Rng,
    /// What happens when, and to which stream.
    agenda: BTreeMap<Time, Vec<(usize, Event)>>,
}

impl Site {
    fn plan(&mut self, when: Time, stream: usize, event: Event) {
        self.agenda.entry(when).or_default().push((stream, event));
    }
}

enum Event {
    Visit,
    Scale,
    Ready(Worker),
    Dawn,
}

#[derive(Default)]
struct Worker {
    consumer: String,
    /// Redis has it as a consumer.
    known: bool,
    messages: usize,
    idle_since: Time,
}

/// What was done to a stream, and what it and its group hold by that.
#[derive(Default)]
struct Tally {
    stream: String,
    group: String,
    visits: usize,
    added: usize,
    read: usize,
    acked: usize,
    pending: usize,
    died: usize,
    trimmed: usize,
    trimmed_unread: usize,
    undelivered: usize,
    workers: usize,
    length: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, group, visits, added, read, acked, pending, died, .. } = self;
        let Self { trimmed, trimmed_unread, undelivered, workers, length, .. } = self;
        write!(f, "stream={stream} group={group} visits={visits} added={added} read={read} acked={acked} ")?;
        write!(f, "pending={pending} died={died} trimmed={trimmed} trimmed_unread={trimmed_unread} ")?;
        write!(f, "undelivered={undelivered} workers={workers} length={length}")
    }
}

/// An instrument's stream, its group and its workers.
#[derive(Default)]
struct Stream {
    index: usize,
    instrument: &'static str,
    detectors: usize,
    workers_max: usize,
    tally: Tally,
    /// Workers on the way, ready, idle or processing.
    running: usize,
    ready: Vec<Worker>,
    idle: VecDeque<Worker>,
    stalled_until: Time,
    last_visit: Time,
    over: bool,
}

impl Stream {
    /// Creates the stream if need be, reads what it holds, and plans the first visit. The instruments take turns.
    fn open(index: usize, instrument: Instrument, site: &mut Site) -> Outcome<Self> {
        let (name, detectors, workers_max) = instrument.facts();
        let (stream, group) = (format!("instrument:{name}"), format!("{name}_consumer_group"));
        if site.options.bootstrap {
            bootstrap(&stream, &group, &mut site.redis).map_err(|error| format!("creating {group}: {error}"))?;
        }
        let advice = |error| format!("{stream}: {error}; --bootstrap creates stream and group");
        let (length, undelivered, pending) = holdings(&stream, &group, &mut site.redis).map_err(advice)?;
        let turn = u64::try_from(index)? * site.options.cadence / u64::try_from(site.options.instruments.len())?;
        site.plan(0, index, Event::Scale);
        site.plan(turn, index, Event::Visit);
        Ok(Self {
            index,
            instrument: name,
            detectors: site.options.detectors.unwrap_or(detectors),
            workers_max: site.options.workers_max.unwrap_or(workers_max),
            tally: Tally { stream, group, pending, undelivered, length, ..Tally::default() },
            ..Self::default()
        })
    }

    fn happen(&mut self, event: Event, now: Time, site: &mut Site) -> Outcome<()> {
        match event {
            _ if self.over => {}
            Event::Visit => self.visit(now, site)?,
            Event::Scale => self.scale(now, site)?,
            Event::Dawn => self.dawn(now, site)?,
            Event::Ready(worker) if worker.messages >= MESSAGES_MAX => self.running -= 1,
            Event::Ready(worker) => self.ready.push(worker),
        }
        Ok(())
    }

    fn visit(&mut self, now: Time, site: &mut Site) -> Outcome<()> {
        self.fan_out(site)?;
        self.last_visit = now;
        let visits = self.tally.visits;
        if site.options.stall_at.contains(&visits) {
            self.stalled_until = now.saturating_add(site.options.stall_for);
        }
        if site.options.visits == 0 && visits.is_multiple_of(NIGHT) {
            self.trim(DAILY_MAXLEN, &mut site.redis)?;
        }
        if let Some((_, maxlen)) = site.options.trim_unread.iter().find(|(visit, _)| *visit == visits) {
            self.trim(maxlen.unwrap_or(self.tally.undelivered / 2), &mut site.redis)?;
        }
        if visits.is_multiple_of(10) {
            eprintln!("{} running={}", self.tally, self.running);
        }
        let last = visits == site.options.visits;
        site.plan(now + site.options.cadence, self.index, if last { Event::Dawn } else { Event::Visit });
        Ok(())
    }

    /// One entry for each detector, all in one write.
    fn fan_out(&mut self, site: &mut Site) -> Outcome<()> {
        let group_id = format!("night#{}", self.tally.visits + 1);
        let position = format!("[{:.6}, {:.6}]", site.rng.f64() * 360.0, site.rng.f64() * -90.0);
        let filler = "x".repeat(FILLER);
        let mut adds = redis::pipe();
        for detector in 0..self.detectors {
            adds.cmd("XADD").arg(&self.tally.stream).arg("*").arg(NEXT_VISIT.split(' ').collect::<Vec<_>>());
            adds.arg(&[("instrument", self.instrument), ("groupId", &group_id), ("position", &position)]);
            adds.arg("detector").arg(detector).arg("filler").arg(&filler);
        }
        let added = self.query::<Value>(&adds, &mut site.redis)?.len();
        self.tally.visits += 1;
        self.tally.added += added;
        self.tally.undelivered += added;
        self.tally.length += added;
        Ok(())
    }

    /// KEDA's eager strategy: as many new workers as the lag says, whoever is on the way already, up to the limit.
    fn scale(&mut self, now: Time, site: &mut Site) -> Outcome<()> {
        let lag = self.lag(&mut site.redis)?;
        let before = self.idle.len();
        self.idle.retain(|worker| now - worker.idle_since < IDLE_MAX);
        self.running -= before - self.idle.len();
        let wanted = lag.max(WORKERS_MIN.saturating_sub(self.running));
        let started = wanted.min(self.workers_max.saturating_sub(self.running));
        for _ in 0..started {
            let consumer = uuid::Builder::from_random_bytes(site.rng.u128(..).to_be_bytes()).into_uuid().to_string();
            let ready = now + site.rng.u64(START_UP);
            site.plan(ready, self.index, Event::Ready(Worker { consumer, ..Worker::default() }));
        }
        self.running += started;
        site.plan(now + POLLING, self.index, Event::Scale);
        Ok(())
    }

    /// The lag as KEDA reads it: null and negative ones are 0.
    fn lag(&self, redis: &mut Connection) -> Outcome<usize> {
        let Tally { stream, group, undelivered, .. } = &self.tally;
        let facts = group_facts(stream, group, redis).map_err(|error| format!("XINFO GROUPS {stream}: {error}"))?;
        Ok(facts.get("lag").map_or(*undelivered, |lag| from_redis_value_ref(lag).unwrap_or(0)))
    }

    /// The workers that are ready read one message each, and as many idle ones as there are messages left.
    fn read(&mut self, now: Time, site: &mut Site) -> Outcome<()> {
        let mut readers = std::mem::take(&mut self.ready);
        if now < self.stalled_until {
            self.rest(readers, now);
            return Ok(());
        }
        let woken = self.tally.undelivered.saturating_sub(readers.len()).min(self.idle.len());
        readers.extend(self.idle.drain(..woken));
        while !readers.is_empty() {
            let batch = readers.drain(..readers.len().min(BATCH)).collect();
            self.read_batch(batch, now, site)?;
        }
        Ok(())
    }

    fn read_batch(&mut self, readers: Vec<Worker>, now: Time, site: &mut Site) -> Outcome<()> {
        let mut reads = redis::pipe();
        for worker in &readers {
            reads.cmd("XREADGROUP").arg("GROUP").arg(&self.tally.group).arg(&worker.consumer);
            reads.arg("COUNT").arg(1).arg("STREAMS").arg(&self.tally.stream).arg(">");
        }
        let replies = self.query::<Reply>(&reads, &mut site.redis)?;
        let (mut received, mut empty_handed) = (Vec::new(), Vec::new());
        for (mut worker, reply) in readers.into_iter().zip(replies) {
            let id = reply.into_iter().flatten().flat_map(|(_, entries)| entries).map(|(id, _)| id).next();
            let new = !worker.known && (id.is_some() || site.empty_reads_count);
            self.tally.workers += usize::from(new);
            worker.known |= new;
            match id {
                Some(id) => received.push((worker, id)),
                None => empty_handed.push(worker),
            }
        }
        self.rest(empty_handed, now);
        self.tally.read += received.len();
        self.tally.pending += received.len();
        self.tally.undelivered = self.tally.undelivered.saturating_sub(received.len());
        self.acknowledge(received, now, site)
    }

    fn rest(&mut self, workers: Vec<Worker>, now: Time) {
        self.idle.extend(workers.into_iter().map(|worker| Worker { idle_since: now, ..worker }));
    }

    /// At once, before the work begins. A worker that dies before that leaves its message pending for ever.
    fn acknowledge(&mut self, received: Vec<(Worker, String)>, now: Time, site: &mut Site) -> Outcome<()> {
        let (longest, mut acks) = (site.options.processing, redis::pipe());
        for (worker, id) in received {
            if site.rng.f64() < site.options.died {
                self.tally.died += 1;
                self.running -= 1;
                continue;
            }
            acks.cmd("XACK").arg(&self.tally.stream).arg(&self.tally.group).arg(id);
            let done = now + site.rng.u64(longest / 10..=longest);
            site.plan(done, self.index, Event::Ready(Worker { messages: worker.messages + 1, ..worker }));
        }
        let acked: usize = self.query::<usize>(&acks, &mut site.redis)?.into_iter().sum();
        self.tally.acked += acked;
        self.tally.pending = self.tally.pending.saturating_sub(acked);
        Ok(())
    }

    /// The daily trim, once nothing waits any more.
    fn dawn(&mut self, now: Time, site: &mut Site) -> Outcome<()> {
        self.over = self.tally.undelivered == 0 || now >= self.last_visit + EXPIRY;
        if self.over {
            return self.trim(DAILY_MAXLEN, &mut site.redis);
        }
        site.plan(now + POLLING, self.index, Event::Dawn);
        Ok(())
    }

    /// The oldest go first, so what was read goes before what was not.
    fn trim(&mut self, maxlen: usize, redis: &mut Connection) -> Outcome<()> {
        let trim = redis::pipe().cmd("XTRIM").arg(&self.tally.stream).arg("MAXLEN").arg(maxlen).clone();
        let removed: usize = self.query::<usize>(&trim, redis)?.into_iter().sum();
        let tally = &mut self.tally;
        let unread = removed.saturating_sub(tally.length.saturating_sub(tally.undelivered));
        tally.trimmed += removed;
        tally.trimmed_unread += unread;
        tally.undelivered = tally.undelivered.saturating_sub(unread);
        tally.length = tally.length.saturating_sub(removed);
        Ok(())
    }

    /// The replies to all of these, in one round trip.
    fn query<T: redis::FromRedisValue>(&self, pipeline: &Pipeline, redis: &mut Connection) -> Outcome<Vec<T>> {
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        Ok(pipeline.query(redis).map_err(|error| format!("{}: {error}", self.tally.stream))?)
    }
}

/// The procedures' command, for a group that may exist.
fn bootstrap(stream: &str, group: &str, redis: &mut Connection) -> RedisResult<()> {
    match redis::cmd("XGROUP").arg("CREATE").arg(stream).arg(group).arg("$").arg("MKSTREAM").exec(redis) {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        outcome => outcome,
    }
}

/// The stream's length, what waits in it for the group, and what is pending: read once, at the start.
fn holdings(stream: &str, group: &str, redis: &mut Connection) -> RedisResult<(usize, usize, usize)> {
    let mut facts = group_facts(stream, group, redis)?;
    let mut fact = |name| facts.remove(name).unwrap_or(Value::Nil);
    let (delivered, pending): (String, _) = (from_redis_value(fact("last-delivered-id"))?, fact("pending"));
    let waiting: Vec<Value> = redis::cmd("XRANGE").arg(stream).arg(format!("({delivered}")).arg("+").query(redis)?;
    let length = redis::cmd("XLEN").arg(stream).query(redis)?;
    Ok((length, waiting.len(), from_redis_value(pending)?))
}

/// What XINFO GROUPS says of this group.
fn group_facts(stream: &str, group: &str, redis: &mut Connection) -> RedisResult<HashMap<String, Value>> {
    let groups: Vec<HashMap<String, Value>> = redis::cmd("XINFO").arg("GROUPS").arg(stream).query(redis)?;
    let named = |facts: &HashMap<String, Value>| facts.get("name") == Some(&Value::BulkString(group.into()));
    groups.into_iter().find(named).ok_or_else(|| (ErrorKind::Client, "the group does not exist").into())
}
