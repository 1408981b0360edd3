//! A scraper that keeps its connection, as Prometheus does, and does as little as possible with what it reads.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Longer than the slowest exporter takes for a page.
const PATIENT: Duration = Duration::from_secs(600);

pub struct Scraper {
    address: String,
    connection: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Scraper {
    pub fn new(address: &str) -> Self {
        Self { address: address.to_owned(), connection: None, buffer: vec![0; 1 << 20] }
    }

    /// The bytes of the reply's body, as they came.
    pub fn get(&mut self, path: &str, headers: &str) -> usize {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        let kept = self.connection.take().filter(is_open);
        let mut connection = kept.unwrap_or_else(|| self.connect());
        connection.write_all(request.as_bytes()).unwrap();
        let (body, keep) = self.read_reply(&mut connection);
        self.connection = keep.then_some(connection);
        body
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(&self.address).unwrap();
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(PATIENT)).unwrap();
        connection
    }

    fn read_reply(&mut self, connection: &mut TcpStream) -> (usize, bool) {
        let mut read = 0;
        let (head_length, head) = loop {
            read += self.read_some(connection, read);
            if let Some(at) = self.buffer[..read].windows(4).position(|window| window == b"\r\n\r\n") {
                break (at + 4, String::from_utf8_lossy(&self.buffer[..at]).to_ascii_lowercase());
            }
        };
        assert!(head.lines().next().unwrap().contains(" 200"), "{}: {head}", self.address);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let keep = head.starts_with("http/1.1") && field("connection:") != Some("close");
        let mut body = read - head_length;
        if let Some(length) = field("content-length:") {
            let length: usize = length.parse().unwrap();
            while body < length {
                body += self.read_some(connection, 0);
            }
        } else {
            assert!(head.contains("chunked"), "{head}");
            body = self.read_chunks(connection, head_length, read);
        }
        (body, keep)
    }

    /// Reads up to the last chunk, which is empty. Its five bytes may come in two pieces.
    fn read_chunks(&mut self, connection: &mut TcpStream, head_length: usize, read: usize) -> usize {
        let (mut total, mut end) = (read - head_length, self.buffer[head_length..read].to_vec());
        while !end.ends_with(b"\r\n0\r\n\r\n") {
            let new = self.read_some(connection, 0);
            total += new;
            end.drain(..end.len().saturating_sub(7));
            end.extend_from_slice(&self.buffer[new.saturating_sub(7)..new]);
        }
        total
    }

    fn read_some(&mut self, connection: &mut TcpStream, at: usize) -> usize {
        let read = connection.read(&mut self.buffer[at..]).unwrap();
        assert!(read > 0, "{} closed the connection within a reply", self.address);
        read
    }
}

/// Has the server left it open? One that was idle for long may be closed, and a scraper then makes another.
fn is_open(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).unwrap();
    let peeked = connection.peek(&mut [0]);
    connection.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}
