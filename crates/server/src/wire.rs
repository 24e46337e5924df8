//! The bytes of a connection, between the socket and hyper.
//!
//! Two things are seen only here. A client that has said all it will say and still listens looks to hyper like one that
//! is gone; it gets a moment for its answer, no longer, since most who close are gone and nobody else should wait for
//! the tokens made for them. And what hyper refuses by itself it answers without a body: that gets our envelope, the
//! right status, and is counted.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use atelier_api::{Metrics, Refusal};
use atelier_domain::limits::{HALF_CLOSE_GRACE, REQUEST_HEAD_BYTES_MAX};
use axum::http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::places::Place;

/// How every answer begins.
const VERSION: &[u8] = b"HTTP/1.1 ";
/// The header that all answers of ours have, and none of hyper's.
const OURS: &[u8] = b"x-request-id";
/// The header whose value may be beyond what hyper takes for a number.
const LENGTH: &str = "content-length:";

/// A connection's bytes.
pub struct Wire<I> {
    io: I,
    place: Arc<Place>,
    metrics: Arc<Metrics>,
    /// The head that is being read, to say what was wrong with it.
    head: Vec<u8>,
    /// After which request it began.
    after: u64,
    /// What is written in place of hyper's own refusal.
    refusal: Vec<u8>,
    /// Runs since the client said that nothing more comes.
    grace: Option<Pin<Box<Sleep>>>,
}

impl<I> Wire<I> {
    pub fn new(io: I, place: Arc<Place>, metrics: Arc<Metrics>) -> Self {
        Self { io, place, metrics, head: Vec::new(), after: 0, refusal: Vec::new(), grace: None }
    }

    fn note(&mut self, read: &[u8]) {
        let requests = self.place.requests();
        if requests != self.after || self.place.is_at_work() {
            self.head = Vec::new();
            self.after = requests;
        }
        if !self.place.is_at_work() {
            let room = REQUEST_HEAD_BYTES_MAX.saturating_sub(self.head.len());
            self.head.extend_from_slice(&read[..read.len().min(room)]);
            self.place.begin_head();
        }
    }

    /// Takes hyper's own refusal for what it is; false for everything else.
    fn takes_refusal(&mut self, written: &[u8]) -> bool {
        let Some(rest) = written.strip_prefix(VERSION).filter(|_| !self.place.is_at_work()) else { return false };
        let status = rest.get(..3).and_then(|digits| StatusCode::from_bytes(digits).ok());
        let Some(status) = status.filter(|status| status.is_client_error()) else { return false };
        if written.windows(OURS.len()).any(|window| window == OURS) {
            return false;
        }
        let status = if promises_too_much(&self.head) { StatusCode::PAYLOAD_TOO_LARGE } else { status };
        let refusal = Refusal::unreadable(status);
        self.metrics.refused(refusal.status());
        self.refusal = refusal.to_bytes();
        true
    }
}

impl<I: AsyncWrite + Unpin> Wire<I> {
    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.refusal.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.refusal))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => drop(self.refusal.drain(..written)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a head announces a body of more bytes than there are numbers for.
fn promises_too_much(head: &[u8]) -> bool {
    const FITTING_MAX: u64 = u64::MAX - 2;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let lengths = head.split("\r\n").skip(1).filter_map(|line| line.strip_prefix(LENGTH)).map(str::trim);
    let is_number = |length: &&str| !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    lengths.filter(is_number).any(|length| length.parse::<u64>().map_or(true, |length| length > FITTING_MAX))
}

impl<I: AsyncRead + Unpin> AsyncRead for Wire<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.grace.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
            if buf.filled().len() > before || buf.remaining() == 0 {
                this.note(&buf.filled()[before..]);
                return Poll::Ready(Ok(()));
            }
        }
        let grace = this.grace.get_or_insert_with(|| Box::pin(tokio::time::sleep(HALF_CLOSE_GRACE)));
        if this.place.is_at_work() {
            ready!(grace.as_mut().poll(cx));
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Wire<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(cx))?;
        if this.takes_refusal(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(cx))?;
        // A refusal is a head and nothing else.
        if let [head] = bufs
            && this.takes_refusal(head)
        {
            return Poll::Ready(Ok(head.len()));
        }
        Pin::new(&mut this.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_refusal(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lengths_beyond_any_number_are_too_much() {
        for (value, expected) in [
            ("0", false),
            ("18446744073709551613", false),
            ("18446744073709551614", true),
            ("18446744073709551616", true),
            ("99999999999999999999999999999", true),
            ("12x", false),
            ("-1", false),
            ("", false),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {value}\r\n\r\n");
            assert_eq!(promises_too_much(head.as_bytes()), expected, "{value}");
        }
    }
}
