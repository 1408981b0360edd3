//! The HTTP client of the tests. It gives back what the server sent, unchanged: any status, any header, and a body that
//! is still packed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{self, Read, Write},
};

use ureq::{
    Agent,
    config::AutoHeaderValue,
    http::{Request, header::HeaderMap},
};

use super::SOON;

/// A reply.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// Names in small letters.
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

/// Sends a request without a body, over a connection of its own. Fails the test if no reply comes.
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    send(address, method, path, headers, None).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// Sends a request over a connection of its own.
pub fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
) -> Result<Response, ureq::Error> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{path}"));
    request = request.header("Connection", "close");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut reply = match body {
        None => agent().run(request.body(())?)?,
        Some(body) => agent().run(request.body(body)?)?,
    };
    let (status, headers) = (reply.status().as_u16(), texts(reply.headers()));
    Ok(Response { status, headers, body: reply.body_mut().with_config().limit(u64::MAX).read_to_vec()? })
}

/// Adds nothing to a request, follows nothing, and takes any status for a reply.
fn agent() -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .max_redirects(0)
        .proxy(None)
        .user_agent(AutoHeaderValue::None)
        .accept(AutoHeaderValue::None)
        .accept_encoding(AutoHeaderValue::None)
        .timeout_global(Some(3 * SOON));
    config.build().new_agent()
}

fn texts(headers: &HeaderMap) -> BTreeMap<String, String> {
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value.as_bytes()))).collect()
}

/// Sends a request over a connection that the test has made, TLS for instance, and reads until the server closes it.
pub fn exchange(
    connection: &mut (impl Read + Write),
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
    connection.write_all(head.as_bytes())?;
    let mut reply = Vec::new();
    connection.read_to_end(&mut reply)?;
    parse(&reply).ok_or_else(|| io::Error::other(format!("no reply: {:?}", String::from_utf8_lossy(&reply))))
}

fn parse(reply: &[u8]) -> Option<Response> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let length = head.parse(reply).ok().filter(httparse::Status::is_complete)?.unwrap();
    let text = |field: &httparse::Header<'_>| String::from_utf8_lossy(field.value).into_owned();
    let headers = head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field))).collect();
    Some(Response { status: head.code?, headers, body: reply[length..].to_vec() })
}
