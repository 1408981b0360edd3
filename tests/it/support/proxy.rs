//! A proxy between the exporter and a server: it counts round trips, delays what passes, and can change it or cut it into
//! pieces.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::Server;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Commands,
    Replies,
}

/// What happens to the bytes that pass.
type Change = Arc<dyn Fn(Direction, Vec<u8>) -> Vec<u8> + Send + Sync>;

pub struct Proxy {
    port: u16,
    traffic: Arc<Mutex<Traffic>>,
}

#[derive(Default)]
struct Traffic {
    last: Option<Direction>,
    round_trips: usize,
}

impl Traffic {
    /// Commands that follow replies, or come first, begin a round trip.
    fn passes(&mut self, direction: Direction) {
        let last = self.last.replace(direction);
        self.round_trips += usize::from(direction == Direction::Commands && last != Some(Direction::Commands));
    }
}

impl Proxy {
    /// Passes on everything `one_way` after it came.
    pub fn to(server: &Server, one_way: Duration) -> Self {
        Self::changing(server, one_way, |_, bytes| bytes)
    }

    /// Passes on what `change` makes of each piece.
    pub fn changing(
        server: &Server,
        one_way: Duration,
        change: impl Fn(Direction, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::start(server, Arc::new(change), one_way, None)
    }

    /// Cuts what passes at any byte, with up to half a millisecond between two pieces, so that other clients' commands
    /// run in between.
    pub fn cutting(server: &Server, seed: u64) -> Self {
        Self::start(server, Arc::new(|_, bytes| bytes), Duration::ZERO, Some(fastrand::Rng::with_seed(seed)))
    }

    fn start(server: &Server, change: Change, one_way: Duration, cut: Option<fastrand::Rng>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let traffic = Arc::new(Mutex::new(Traffic::default()));
        let link = Link { traffic: Arc::clone(&traffic), change, one_way, cut };
        let to = server.port;
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // The server may be down: then the client's connection ends too.
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for socket in [&client, &server] {
                    socket.set_nodelay(true).unwrap();
                }
                link.clone().pump(Direction::Commands, client.try_clone().unwrap(), server.try_clone().unwrap());
                link.clone().pump(Direction::Replies, server, client);
            }
        });
        Self { port, traffic }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The option that makes an exporter use this proxy.
    pub fn url(&self) -> String {
        format!("--redis.url=redis://127.0.0.1:{}", self.port)
    }

    /// Round trips that began since the last time this was asked.
    pub fn round_trips(&self) -> usize {
        std::mem::take(&mut self.traffic.lock().unwrap().round_trips)
    }
}

#[derive(Clone)]
struct Link {
    traffic: Arc<Mutex<Traffic>>,
    change: Change,
    one_way: Duration,
    cut: Option<fastrand::Rng>,
}

/// The most pieces that one read is cut into.
const PIECES: usize = 6;

impl Link {
    /// The pieces of these bytes, each with the time after the one before.
    fn pieces(&mut self, bytes: Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
        let Some(random) = &mut self.cut else { return vec![(Duration::ZERO, bytes)] };
        let mut cuts: Vec<_> = (0..random.usize(..PIECES)).map(|_| random.usize(..=bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| bytes[ends[0]..ends[1]].to_vec());
        pieces.map(|piece| (Duration::from_micros(random.u64(..500)), piece)).collect()
    }

    /// Passes bytes on, each of them `one_way` after it came, however many are under way.
    fn pump(mut self, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
        let (sender, under_way) = mpsc::channel::<(Instant, Vec<u8>)>();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                self.traffic.lock().unwrap().passes(direction);
                let bytes = (self.change)(direction, buffer[..read].to_vec());
                let mut due = Instant::now() + self.one_way;
                for (later, piece) in self.pieces(bytes) {
                    due += later;
                    if sender.send((due, piece)).is_err() {
                        return;
                    }
                }
            }
        });
        thread::spawn(move || {
            for (due, bytes) in under_way {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
