//! One GET request over HTTP/1.1 (RFC 9112), in the clear or over TLS.

use super::MAX_ANSWER;
use super::failure::{Deadline, Failure, chain};
use super::plain::{connect, holds};
use super::tls::Tls;
use crate::cluster::namespace::HealthSpec;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

/// In the clear.
pub(super) async fn plain(to: SocketAddr, spec: &HealthSpec, deadline: Deadline) -> Result<(), Failure> {
    let stream = connect(to, deadline).await?;
    exchange(stream, to, 80, spec, deadline).await
}

/// Over TLS.
pub(super) async fn encrypted(
    to: SocketAddr,
    spec: &HealthSpec,
    tls: &Tls,
    deadline: Deadline,
) -> Result<(), Failure> {
    let client = tls.client(spec.verify)?;
    let name = server_name(to, spec)?;
    let stream = connect(to, deadline).await?;
    let secured =
        deadline.for_step("no TLS handshake", TlsConnector::from(client).connect(name, stream)).await?;
    let stream = secured.map_err(|error| match Failure::of(&error) {
        Failure::Bad(why) => Failure::Bad(format!("the TLS handshake failed: {why}")),
        own => own,
    })?;
    exchange(stream, to, 443, spec, deadline).await
}

/// Who the server says it is: the check's host, without a port, or its address.
fn server_name(to: SocketAddr, spec: &HealthSpec) -> Result<ServerName<'static>, Failure> {
    let address = || ServerName::IpAddress(to.ip().into());
    let Some(host) = &spec.host else { return Ok(address()) };
    let authority = host.parse::<Authority>();
    let name = authority.as_ref().map_or(host.as_str(), |a| a.host()).trim_matches(['[', ']']);
    match ServerName::try_from(name.to_owned()) {
        Ok(name) => Ok(name),
        // What isn't looked at need not be right.
        Err(_) if !spec.verify => Ok(address()),
        Err(_) => Err(Failure::Unable(format!("{host:?} can't stand in a certificate"))),
    }
}

/// Ends the task of a connection with the probe.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange<S>(
    stream: S,
    to: SocketAddr,
    usual_port: u16,
    spec: &HealthSpec,
    deadline: Deadline,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = spec.host.clone().unwrap_or_else(|| match to {
        SocketAddr::V4(v4) if v4.port() == usual_port => v4.ip().to_string(),
        SocketAddr::V6(v6) if v6.port() == usual_port => format!("[{}]", v6.ip()),
        other => other.to_string(),
    });
    let request = Request::get(spec.path.as_deref().unwrap_or("/"))
        .header(HOST, host)
        .header(USER_AGENT, "steerage")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<&[u8]>::new())
        .map_err(|error| Failure::Unable(format!("host or path can't stand in a request: {error}")))?;
    let answered = async {
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_ANSWER).handshake::<_, Empty<&[u8]>>(io).await?;
        let driver = Driver(tokio::spawn(async move {
            // The answer, or the missing of one, says what came of it.
            let _ = connection.await;
        }));
        let response = sender.send_request(request).await?;
        Ok((response, driver))
    };
    let (response, _driver) =
        deadline.for_step("no answer", answered).await?.map_err(|error: hyper::Error| misread(&error))?;
    let status = response.status();
    if !spec.accepts(status.as_u16()) {
        return Err(Failure::Bad(format!("the answer's status is {status}")));
    }
    match &spec.expect_body {
        None => Ok(()),
        Some(text) => deadline.for_step(format!("no {text:?} in the body"), search(response, text)).await?,
    }
}

/// Reads the body until `text` has come.
async fn search(response: Response<Incoming>, text: &str) -> Result<(), Failure> {
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| misread(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        let room = MAX_ANSWER - read.len();
        // It may stand across the border of two frames.
        let from = (read.len() + 1).saturating_sub(text.len());
        read.extend(data.iter().take(room));
        if holds(&read[from..], text.as_bytes()) {
            return Ok(());
        }
        if read.len() == MAX_ANSWER {
            return Err(Failure::Bad(format!("no {text:?} in the first {MAX_ANSWER} bytes of the body")));
        }
    }
    Err(Failure::Bad(format!("no {text:?} in the body of {} bytes", read.len())))
}

fn misread(error: &hyper::Error) -> Failure {
    Failure::Bad(format!("no whole HTTP answer: {}", chain(error)))
}
