//! The service's own tasks: begun while it runs, watched by whoever serves.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio::sync::watch;

use crate::error::ServiceError;

/// Work that ends when it is told to, and not before.
pub(crate) struct Task(Pin<Box<dyn Future<Output = Result<(), ServiceError>> + Send>>);

impl Task {
    /// `work`, which is at fault when it ends while `stop` is false. Its name is what the error says.
    pub(crate) fn until(
        what: &'static str,
        stop: watch::Receiver<bool>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self(Box::pin(async move {
            work.await;
            // Nobody left who could ask is asking, too.
            let asked = *stop.borrow() || stop.has_changed().is_err();
            if asked { Ok(()) } else { Err(ServiceError::Crashed { what }) }
        }))
    }

    /// `work` that may end at any time; when it panics, only that is said.
    pub(crate) fn whenever(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(async move {
            work.await;
            Ok(())
        }))
    }

    /// The work itself.
    pub(crate) async fn run(self) -> Result<(), ServiceError> {
        self.0.await
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}
