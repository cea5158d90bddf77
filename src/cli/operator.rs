//! A client of the operator listener, for the commands that work through a running server: a `disk:` log and its
//! warehouse belong to one process.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Longer than any single call takes on a busy machine.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// One connection to the operator listener; opened again when the server closed it.
#[derive(Debug)]
pub struct OperatorClient {
    addr: String,
    /// An API key, for the calls of the public API.
    key: Option<String>,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl OperatorClient {
    /// Connects; `None` when nobody listens at `addr` (`HOST:PORT`), so no server runs there.
    pub async fn connect(addr: &str) -> Option<Self> {
        let connection = open(addr).await.ok()?;
        Some(OperatorClient {
            addr: addr.to_owned(),
            key: None,
            connection: Some(connection),
        })
    }

    /// Sends `key` along from now on. The operator listener asks for none; the public one does.
    pub fn bearing(mut self, key: &str) -> Self {
        self.key = Some(format!("Bearer {key}"));
        self
    }

    /// # Errors
    /// When no whole answer came.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
        self.call(Request::get(path), Bytes::new()).await
    }

    /// # Errors
    /// When no whole answer came; the call may or may not have had its effect.
    pub async fn post(
        &mut self,
        path: &str,
        content_type: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        self.call(
            Request::post(path).header(header::CONTENT_TYPE, content_type),
            body.into(),
        )
        .await
    }

    async fn call(
        &mut self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = request.header(header::HOST, &self.addr);
        if let Some(key) = &self.key {
            request = request.header(header::AUTHORIZATION, key);
        }
        let request = request.body(Full::new(body))?;
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.is_closed() => connection,
            _ => open(&self.addr).await?,
        };
        let answered = tokio::time::timeout(CALL_TIMEOUT, async {
            connection.ready().await?;
            let (head, body) = connection.send_request(request).await?.into_parts();
            Ok::<_, hyper::Error>((head.status, body.collect().await?.to_bytes()))
        });
        let answer = answered
            .await
            .map_err(|_| anyhow!("no answer within {} s", CALL_TIMEOUT.as_secs()))
            .and_then(|answer| answer.map_err(anyhow::Error::from))
            .with_context(|| format!("the operator listener at {} did not answer", self.addr))?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

async fn open(addr: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(addr)
        .await
        .with_context(|| format!("nobody listens at {addr}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection; its error is the failed call's.
    tokio::spawn(connection);
    Ok(sender)
}

/// The body of an answer, or an error that shows what the server said.
///
/// # Errors
/// When the status is no success.
pub fn expect_success((status, body): (StatusCode, Bytes)) -> anyhow::Result<Bytes> {
    if status.is_success() {
        return Ok(body);
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let detail = problem
        .as_ref()
        .and_then(|p| p.get("detail").or_else(|| p.get("title")))
        .and_then(|d| d.as_str());
    match detail {
        Some(detail) => bail!("the server answered {}: {detail}", status.as_u16()),
        None => bail!("the server answered {}; is it another service?", status.as_u16()),
    }
}
