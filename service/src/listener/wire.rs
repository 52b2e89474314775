//! The stream beneath HTTP: what comes and goes is noticed, a client that takes nothing is given up, and one that goes on sending after
//! the last answer is listened to, so that the answer reaches it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use accept::pace::PaceMeter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, slow_reader};
use crate::limit::{Limit, LimitHits};

/// A stream that fails with `TimedOut` when the other end is too slow in taking what is written, and with `Other` when it floods us.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    activity: Arc<Activity>,
    hits: Arc<LimitHits>,
    meter: PaceMeter,
    /// Runs while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    linger: Linger,
}

/// Throwing away what comes after the last answer.
#[derive(Debug)]
enum Linger {
    /// Not yet, for at most so long.
    Not(Duration),
    /// Until one of these.
    Until { end: Instant, pause: Pin<Box<Sleep>> },
}

impl<S> Wire<S> {
    /// As slow as `activity` says, and listened to for `linger`.
    pub(super) fn new(stream: S, activity: Arc<Activity>, hits: Arc<LimitHits>, linger: Duration) -> Self {
        let meter = PaceMeter::new(activity.send_pace());
        Self { stream, activity, hits, meter, waiting: None, linger: Linger::Not(linger) }
    }

    /// Passes a result on, and turns a wait that is too long into an error.
    fn within<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        taken: impl FnOnce(&T) -> u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let now = Instant::now();
        if let Poll::Ready(result) = result {
            self.waiting = None;
            self.meter.pause(now);
            self.meter.earn(result.as_ref().map_or(0, taken));
            return Poll::Ready(result);
        }
        let empty = self.meter.wait(now);
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep_until(empty)));
        ready!(waiting.as_mut().poll(context));
        let slow = self.meter.verdict(Instant::now()).map_or(Limit::Send, slow_reader);
        self.hits.count(slow);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    fn noticed(&self, flood: Result<(), Limit>) -> io::Result<()> {
        flood.map_err(|limit| {
            self.hits.count(limit);
            io::Error::other(limit.key())
        })
    }
}

impl<S: AsyncRead + Unpin> Wire<S> {
    /// Reads until the other end closes, or pauses, or has been listened to for long enough.
    fn poll_linger(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Linger::Not(patience) = self.linger {
            let now = Instant::now();
            let end = now + patience;
            let pause = Box::pin(sleep_until(end.min(now + LINGER_PAUSE)));
            self.linger = Linger::Until { end, pause };
        }
        let Linger::Until { end, pause } = &mut self.linger else { return Poll::Ready(()) };
        loop {
            let mut thrown_away = [0; 4096];
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    let now = Instant::now();
                    if now >= *end {
                        return Poll::Ready(());
                    }
                    pause.as_mut().reset((*end).min(now + LINGER_PAUSE));
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return pause.as_mut().poll(context),
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        if !bytes.is_empty() {
            this.noticed(this.activity.received(bytes, Instant::now()))?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(context, bytes);
        let written = ready!(this.within(result, |written| *written as u64, context))?;
        this.noticed(this.activity.sent(bytes.get(..written).unwrap_or_default(), Instant::now()))?;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write_vectored(context, pieces);
        let written = ready!(this.within(result, |written| *written as u64, context))?;
        let (mut left, now) = (written, Instant::now());
        for piece in pieces {
            let bytes = piece.get(..left.min(piece.len())).unwrap_or_default();
            this.noticed(this.activity.sent(bytes, now))?;
            left -= bytes.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_flush(context);
        this.within(result, |()| 0, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if matches!(this.linger, Linger::Not(_)) {
            let result = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.within(result, |()| 0, context))?;
            if !this.activity.is_unread() {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_linger(context).map(Ok)
    }
}

/// A client that sends nothing for this long has read the answer, or never will.
const LINGER_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use conf::{HttpLimits, HttpTimeouts};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn wire(stream: tokio::io::DuplexStream) -> (Wire<tokio::io::DuplexStream>, Arc<LimitHits>) {
        let activity = Activity::new(HttpLimits::default(), HttpTimeouts::default(), Instant::now());
        let hits = Arc::new(LimitHits::default());
        (Wire::new(stream, Arc::new(activity), hits.clone(), Duration::from_secs(10)), hits)
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_ends_the_write() {
        let (near, _far) = tokio::io::duplex(16);
        let (mut wire, hits) = wire(near);
        let began = Instant::now();
        let error = wire.write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30);
        assert_eq!((hits.total(Limit::Send), hits.total(Limit::MinSendRate)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_a_byte_now_and_then_does_too() {
        let (near, mut far) = tokio::io::duplex(1);
        let (mut wire, hits) = wire(near);
        let began = Instant::now();
        let reader = tokio::spawn(async move {
            while far.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        wire.write_all(&[0; 64]).await.expect_err("too slow");
        assert!((30..36).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
        assert_eq!((hits.total(Limit::Send), hits.total(Limit::MinSendRate)), (0, 1));
        reader.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_on_sending_is_listened_to_but_not_for_ever() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mut wire, _) = wire(near);
        wire.activity.leave_unread();
        let began = Instant::now();
        let sender = tokio::spawn(async move {
            while far.write_all(&[0; 1000]).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        wire.shutdown().await.expect("shut down");
        assert_eq!(began.elapsed().as_secs(), 10);
        sender.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_nothing_to_send_is_not_waited_for() {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (mut wire, _) = wire(near);
        let began = Instant::now();
        wire.shutdown().await.expect("shut down");
        assert_eq!(began.elapsed().as_secs(), 0);
        drop(far);
    }
}
