//! A request's body on its way in: neither too slow nor too large, and what nobody reads is known.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use accept::pace::{Pace, PaceMeter, Slow};
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;
use crate::limit::Limit;

/// A body that fails when it comes too slowly or is too large.
#[derive(Debug)]
pub(super) struct Upload<B: Body> {
    body: B,
    /// How much more of it there may be.
    left: u64,
    meter: PaceMeter,
    waiting: Option<Pin<Box<Sleep>>>,
    course: Course,
    activity: Arc<Activity>,
}

/// How the body of a request comes; clones see the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Course(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    complete: AtomicBool,
    broken: Mutex<Option<Limit>>,
}

/// It was given up.
#[derive(Debug, thiserror::Error)]
#[error("the body is above {}", .0.key())]
pub(super) struct GivenUp(Limit);

impl Course {
    /// For which limit it was given up.
    pub(super) fn broken(&self) -> Option<Limit> {
        *self.0.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all of it has come.
    pub(super) fn is_complete(&self) -> bool {
        self.0.complete.load(Ordering::Relaxed)
    }

    fn complete(&self) {
        self.0.complete.store(true, Ordering::Relaxed);
    }

    fn give_up(&self, limit: Limit) -> axum::BoxError {
        *self.0.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
        GivenUp(limit).into()
    }
}

impl<B: Body> Upload<B> {
    /// Watches `body`, which may have `largest` bytes.
    pub(super) fn new(body: B, largest: u64, pace: Pace, activity: Arc<Activity>) -> Self {
        let course = Course::default();
        if body.is_end_stream() {
            course.complete();
        }
        Self { body, left: largest, meter: PaceMeter::new(pace), waiting: None, course, activity }
    }

    /// What becomes of it.
    pub(super) fn course(&self) -> Course {
        self.course.clone()
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        let now = Instant::now();
        match polled {
            Poll::Ready(frame) => {
                this.waiting = None;
                this.meter.pause(now);
                match &frame {
                    Some(Ok(frame)) => {
                        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
                        this.meter.earn(bytes);
                        match this.left.checked_sub(bytes) {
                            Some(left) => this.left = left,
                            None => return Poll::Ready(Some(Err(this.course.give_up(Limit::MaxBodySize)))),
                        }
                    }
                    Some(Err(_)) => {}
                    None => this.course.complete(),
                }
                if this.body.is_end_stream() {
                    this.course.complete();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let empty = this.meter.wait(now);
                let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep_until(empty)));
                if waiting.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                let limit = match this.meter.verdict(Instant::now()) {
                    Some(Slow::Trickling) => Limit::MinBodyRate,
                    Some(Slow::Silent) | None => Limit::Body,
                };
                Poll::Ready(Some(Err(this.course.give_up(limit))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body> Drop for Upload<B> {
    fn drop(&mut self) {
        if !self.course.is_complete() {
            self.activity.leave_unread();
        }
    }
}
