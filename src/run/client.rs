//! The other end of the admin API: one HTTP request over the Unix socket (RFC 9112).

use super::api;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A node answers, or says that it can't, within [`api::WRITE_PATIENCE`].
const TIMEOUT: Duration = Duration::from_secs(api::WRITE_PATIENCE.as_secs() + 3);

/// More than this is not an answer of ours: a large configuration has some megabytes of statistics.
const LARGEST: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No file of that name.
    #[error("{path}: there is no such socket: is the node running, and is this its `node.admin_socket`?", path = .0.display())]
    NoSocket(PathBuf),
    /// A file, but no process behind it.
    #[error("{path}: nobody listens on this socket: the node is not running", path = .0.display())]
    NobodyListens(PathBuf),
    /// A process behind it, but no answer.
    #[error(
        "{path}: no answer within {timeout} s: the node is stuck or just starting", path = .0.display(),
        timeout = TIMEOUT.as_secs()
    )]
    Silent(PathBuf),
    /// The system refuses.
    #[error("{path}: {error}", path = .path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What it says.
        error: io::Error,
    },
    /// No HTTP, or half of an answer.
    #[error("{path}: the answer can't be understood: {why}", path = .path.display())]
    Malformed {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// `GET`, `POST`, …
    pub method: &'a str,
    /// Path and query (`/v1/stats`).
    pub target: &'a str,
    /// Names and values that go into the header besides those that always do.
    pub headers: &'a [(&'a str, &'a str)],
    /// What is sent along.
    pub body: &'a str,
}

/// Gets `target` (`/v1/stats`) from the node whose socket is `socket`.
///
/// # Errors
/// [`ClientError`]; an answer with another status than 200 is no error.
pub fn get(socket: &Path, target: &str) -> Result<Answer, ClientError> {
    send(socket, &Request { method: "GET", target, ..Request::default() })
}

/// Sends a request to the node whose socket is `socket`, and takes its answer.
///
/// # Errors
/// [`ClientError`]; an answer with another status than 200 is no error.
pub fn send(socket: &Path, request: &Request<'_>) -> Result<Answer, ClientError> {
    let path = || socket.to_owned();
    let failed = |error: io::Error| match error.kind() {
        // How a time limit of a socket shows itself.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Silent(path()),
        _ => ClientError::Io { path: path(), error },
    };
    let mut stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClientError::NoSocket(path()),
        io::ErrorKind::ConnectionRefused => ClientError::NobodyListens(path()),
        _ => failed(error),
    })?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    let Request { method, target, headers, body } = request;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    // To an HTTP/1.0 client nobody answers in chunks.
    let sent = write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    );
    // A node that refuses a body while it comes has its answer there nevertheless; and where an answer's end should be, the
    // system says that not all was read of what was sent.
    if let Err(error) = sent
        && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
    {
        return Err(failed(error));
    }
    let mut bytes = Vec::new();
    if let Err(error) = stream.take(LARGEST).read_to_end(&mut bytes)
        && (bytes.is_empty() || error.kind() != io::ErrorKind::ConnectionReset)
    {
        return Err(failed(error));
    }
    parse(&bytes).map_err(|why| ClientError::Malformed { path: path(), why })
}

/// A word as it stands in a query (RFC 3986 §2.1): all but letters, digits and `-._` in hexadecimal.
pub fn escaped(word: &str) -> String {
    let each = word.bytes().map(|byte| match byte {
        b'-' | b'.' | b'_' => char::from(byte).to_string(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    each.collect()
}

fn parse(bytes: &[u8]) -> Result<Answer, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8")?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or("it has no end of its header")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    if !first.next().is_some_and(|version| version.starts_with("HTTP/1.")) {
        return Err("it is no HTTP/1");
    }
    let status = first.next().and_then(|s| s.parse().ok()).ok_or("it has no status")?;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") && value.trim().parse() != Ok(body.len()) {
            return Err("its length is not what its header says");
        }
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("it is in chunks");
        }
    }
    Ok(Answer { status, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let ok = parse(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(ok, Ok(Answer { status: 200, body: "{}".into() }));
        assert_eq!(parse(b"HTTP/1.1 503\r\n\r\n").map(|a| a.status), Ok(503));
        for (bytes, why) in [
            (&b""[..], "end of its header"),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n{}", "length"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "chunks"),
            (b"SSH-2.0-x\r\n\r\n", "no HTTP"),
            (b"HTTP/1.0 many\r\n\r\n", "status"),
            (b"HTTP/1.0 200 OK\r\n\r\n\xff", "UTF-8"),
        ] {
            let error = parse(bytes).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_would_end_a_word_is_escaped() {
        assert_eq!(escaped("[2001:db8::1]:80"), "%5B2001%3Adb8%3A%3A1%5D%3A80");
        assert_eq!(escaped("n-1_a.b c&d=é"), "n-1_a.b%20c%26d%3D%C3%A9");
    }

    #[test]
    fn a_socket_without_a_node_is_said() {
        let missing = get(Path::new("/nonexistent/n1.sock"), "/v1/stats").unwrap_err();
        assert!(matches!(missing, ClientError::NoSocket(_)), "{missing}");
        let stale = std::env::temp_dir().join(format!("steerage-client-{}.sock", std::process::id()));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let nobody = get(&stale, "/v1/stats").unwrap_err();
        std::fs::remove_file(&stale).unwrap();
        assert!(matches!(nobody, ClientError::NobodyListens(_)), "{nobody}");
    }

    /// The server reads a bit of the request, or waits until all is under way that the socket holds, answers, and closes.
    #[test]
    fn an_answer_to_what_was_not_read_whole_is_taken() {
        let path = std::env::temp_dir().join(format!("steerage-early-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let body = "x".repeat(8 << 20);
        let bodies = [&body[..], "little"].into_iter().cycle().take(20);
        let answers: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..20 {
                    let (mut stream, _) = listener.accept().unwrap();
                    stream.read_exact(&mut [0; 16]).unwrap();
                    std::thread::sleep(Duration::from_millis(turn % 4));
                    stream.write_all(b"HTTP/1.0 413 Too Large\r\nContent-Length: 2\r\n\r\n{}").unwrap();
                }
            });
            // All of them: the other thread waits for each.
            bodies
                .map(|body| send(&path, &Request { method: "POST", target: "/", body, ..Request::default() }))
                .collect()
        });
        std::fs::remove_file(&path).unwrap();
        for answer in answers {
            assert_eq!(answer.unwrap().status, 413);
        }
    }

    #[test]
    fn a_node_that_does_not_answer_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("steerage-silent-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let silent = get(&path, "/v1/stats").unwrap_err();
        std::fs::remove_file(&path).unwrap();
        drop(listener);
        assert!(matches!(silent, ClientError::Silent(_)), "{silent}");
    }
}
