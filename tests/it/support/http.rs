//! An HTTP client that shows all that came.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read, Write},
    net::TcpStream,
};

use super::SOON;

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(3 * SOON)).unwrap();
    exchange(&mut client, address, method, path, headers).unwrap()
}

/// Asks once over a connection, and reads until its end.
pub fn exchange(
    client: &mut (impl Read + Write),
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head.push_str("\r\n");
    client.write_all(head.as_bytes())?;
    let mut answer = Vec::new();
    client.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {answer:?}"));
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Ok(Response { status, headers, body: answer[end + 4..].to_vec() })
}
