//! One connection: handshake, requests, and what it may cost before a request is read.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use atelier_api::{Metrics, Refusal};
use atelier_domain::limits;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::places::{Place, Work};
use crate::wire::Wire;

/// What is answered also where there is no room for more.
const HEALTH: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// What serves one connection.
pub struct Connection {
    pub acceptor: Option<TlsAcceptor>,
    pub router: Router,
    pub metrics: Arc<Metrics>,
    pub watcher: Watcher,
    pub place: Arc<Place>,
}

impl Connection {
    /// Serves until either side ends it.
    pub async fn serve(self, socket: TcpStream) {
        if let Err(error) = set_options(&socket) {
            tracing::debug!(%error, "a connection was closed before it began");
            return;
        }
        let Some(acceptor) = self.acceptor.clone() else { return self.speak(socket).await };
        match tokio::time::timeout(limits::TLS_HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
            Ok(Ok(stream)) => self.speak(stream).await,
            // Whoever scans ports, or speaks plain HTTP, is worth no more.
            Ok(Err(_)) | Err(_) => tracing::debug!("a TLS handshake did not come about"),
        }
    }

    async fn speak<I: AsyncRead + AsyncWrite + Unpin + 'static>(self, io: I) {
        let Self { router, metrics, watcher, place, .. } = self;
        let http = rules(place.is_spare);
        let wire = Wire::new(io, Arc::clone(&place), Arc::clone(&metrics));
        let service = Answering { router: TowerToHyperService::new(router), place: Arc::clone(&place) };
        let connection = http.serve_connection(TokioIo::new(wire), service);
        if let Err(error) = watcher.watch(connection).await {
            // One that lay idle between two requests was refused nothing.
            if error.is_timeout() && place.is_within_head() {
                metrics.refused(StatusCode::REQUEST_TIMEOUT.as_u16());
            }
            // The error's text may quote a head.
            tracing::debug!(is_timeout = error.is_timeout(), "a connection broke off");
        }
    }
}

/// What hyper holds a connection to. In a spare place there is one request, and soon.
fn rules(is_spare: bool) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .keep_alive(!is_spare)
        .header_read_timeout(if is_spare { limits::SPARE_HEAD_TIMEOUT } else { limits::REQUEST_HEAD_TIMEOUT })
        .max_headers(limits::REQUEST_HEADERS_MAX)
        .max_header_size(limits::REQUEST_HEAD_BYTES_MAX)
        .max_buf_size(limits::CONNECTION_BUFFER_BYTES_MAX);
    http
}

/// Small frames go out at once, and a client that acknowledges nothing is given up.
fn set_options(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let stall_ms = u32::try_from(limits::CLIENT_STALL_MAX.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(socket, stall_ms)?;
    Ok(())
}

/// The router, which keeps its connection's place at work while it answers.
struct Answering {
    router: TowerToHyperService<Router>,
    place: Arc<Place>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = Response<Held>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Held>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let work = self.place.begin();
        if self.place.is_spare && !HEALTH.contains(&request.uri().path()) {
            return Box::pin(async move { Ok(held(Refusal::full().into_response(), work)) });
        }
        let answer = self.router.call(request);
        Box::pin(async move { answer.await.map(|response| held(response, work)) })
    }
}

fn held(response: Response<Body>, work: Work) -> Response<Held> {
    response.map(|body| Held { body, _work: work })
}

/// An answer's body; its request is at work until it is sent.
struct Held {
    body: Body,
    _work: Work,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_not_read_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        set_options(&client).unwrap();
        assert!(client.nodelay().unwrap());
        let stall = rustix::net::sockopt::tcp_user_timeout(&client).unwrap();
        assert_eq!(u128::from(stall), limits::CLIENT_STALL_MAX.as_millis());
    }
}
