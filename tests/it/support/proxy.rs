//! A proxy between the exporter and a server.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::Server;

/// Stands between the exporter and a server, counts, and takes its time.
pub struct Wire {
    pub port: u16,
    turns: Arc<Mutex<Turns>>,
}

/// What happens to bytes on their way.
type Change = Arc<dyn Fn(bool, Vec<u8>) -> Vec<u8> + Send + Sync>;

/// Who spoke last, and how often a question followed an answer.
#[derive(Default)]
struct Turns {
    asking: bool,
    round_trips: usize,
}

impl Wire {
    pub fn to(server: &Server, one_way: Duration) -> Self {
        Self::changing(server, one_way, |_, bytes| bytes)
    }

    /// Hands each piece to `change`, with whether it is a question, and passes on what comes back.
    pub fn changing(
        server: &Server,
        one_way: Duration,
        change: impl Fn(bool, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let change: Change = Arc::new(change);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let turns = Arc::new(Mutex::new(Turns::default()));
        let (to, counted) = (server.port, Arc::clone(&turns));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pump(ends, Arc::clone(&counted), Arc::clone(&change), true, one_way);
                pump((server, client), Arc::clone(&counted), Arc::clone(&change), false, one_way);
            }
        });
        Self { port, turns }
    }

    /// Round trips since the last time this was asked.
    pub fn round_trips(&self) -> usize {
        std::mem::take(&mut self.turns.lock().unwrap().round_trips)
    }
}

/// Passes bytes on, each of them `one_way` after it came, however many are on their way.
fn pump(
    (mut from, mut to): (TcpStream, TcpStream),
    turns: Arc<Mutex<Turns>>,
    change: Change,
    asking: bool,
    one_way: Duration,
) {
    let (on_their_way, arrived) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 18];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            {
                let mut turns = turns.lock().unwrap();
                if asking && !turns.asking {
                    turns.round_trips += 1;
                }
                turns.asking = asking;
            }
            let bytes = change(asking, buffer[..read].to_vec());
            if on_their_way.send((Instant::now() + one_way, bytes)).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (due, bytes) in arrived {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Both);
    });
}
