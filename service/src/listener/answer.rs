//! An answer on its way out, in pieces that show how its client takes it. The request is in flight until the last of them is gone.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as Inner;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::activity::InFlight;

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    body: Inner,
    /// Of the body, not handed on yet.
    rest: Bytes,
    /// The piece that was handed on last.
    handed_on: u64,
    in_flight: InFlight,
}

impl Answer {
    /// The request is in flight as long as `body` is not taken.
    pub(super) fn new(body: Inner, in_flight: InFlight) -> Self {
        Self { body, rest: Bytes::new(), handed_on: 0, in_flight }
    }

    fn hand_on(&mut self, piece: Bytes) -> Frame<Bytes> {
        self.in_flight.offers(self.handed_on, Instant::now());
        self.handed_on = piece.len() as u64;
        Frame::data(piece)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                end => return Poll::Ready(end),
            }
        }
        let piece = this.rest.split_to(this.rest.len().min(PIECE_BYTES));
        Poll::Ready(Some(Ok(this.hand_on(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        // The upper bound first: the lower one must not be above it.
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}

/// A frame of HTTP/2 unless the client asks for larger ones; most of our answers are one piece.
const PIECE_BYTES: usize = 16 * 1024;
