//! The process that this one replaces, from this one's side: its sockets are taken before anything is bound, and it goes on serving
//! until we say that we do.

use std::path::Path;
use std::time::Duration;

use accept::{Passed, Sockets};
use tokio::time::timeout;
use tracing::info;

use super::wire::{Ask, Offer, PROMPT, PROTOCOL, Verdict, Wire, Wish, Word};
use super::{Fault, descriptors, remote};

/// The connection to it. Closed before [`Former::hand_over`], it goes on as if nothing had happened.
#[derive(Debug)]
pub(super) struct Former {
    wire: Wire,
    pid: u32,
}

impl Former {
    /// Takes the sockets of the process that listens at `control`.
    ///
    /// # Errors
    /// When nobody listens there, it is another user's, it refuses, or not all of its sockets arrive.
    pub(super) async fn take(control: &Path, sockets: &Sockets) -> Result<Self, Fault> {
        let (mut wire, hello) = remote::connect(control).await.map_err(|error| remote::taking(&error))?;
        let failed = |error: &(dyn std::error::Error + 'static)| Fault::of(error).within(CANNOT);
        let peer = wire.stream().peer_cred().map_err(|error| failed(&error))?;
        let own = rustix::process::geteuid().as_raw();
        if peer.uid() != own {
            return Err(Fault::new(format!("it runs as user {}, and we as {own}", peer.uid())).within(CANNOT));
        }
        wire.send(&Ask { protocol: PROTOCOL, ask: Wish::TakeOver }).await.map_err(|error| failed(&error))?;
        // It may be in the middle of a reload.
        let labels = match wire.receive(UNDER_WAY).await.map_err(|error| failed(&error))? {
            Offer::Sockets(labels) => labels,
            Offer::Refused(text) => return Err(Fault::new(text).within(CANNOT)),
        };
        wire.send(&Word::Send).await.map_err(|error| failed(&error))?;
        let received = timeout(PROMPT, descriptors::receive(wire.stream(), labels.len())).await;
        let received = received.unwrap_or_else(|late| Err(late.into())).map_err(|error| failed(&error))?;
        info!(pid = hello.pid, version = hello.gatehouse, sockets = received.len(), "taking over");
        let passed = labels.into_iter().zip(received);
        let passed = passed.map(|(label, descriptor)| Passed { label, descriptor }).collect();
        let mut former = Self { wire, pid: hello.pid };
        if let Err(error) = sockets.adopt(passed) {
            let fault = failed(&error);
            former.give_up(&fault).await;
            return Err(fault);
        }
        Ok(former)
    }

    /// Says why we end. It goes on.
    pub(super) async fn give_up(&mut self, fault: &Fault) {
        // If it does not hear, it sees that we are gone.
        let _ = self.wire.send(&Word::Failed(fault.clone())).await;
    }

    /// Says that we serve, and waits until it has let go.
    ///
    /// # Errors
    /// When it does not; then it goes on, and we must not.
    pub(super) async fn hand_over(mut self, sockets: &Sockets) -> Result<(), Fault> {
        let taken = async {
            self.wire.send(&Word::Ready).await?;
            let Verdict::Go = self.wire.receive(UNDER_WAY).await?;
            sockets.own();
            self.wire.send(&Word::Owned).await
        };
        taken.await.map_err(|error| Fault::of(&error).within(CANNOT))?;
        info!(pid = self.pid, "taken over");
        Ok(())
    }
}

/// How a fault of the takeover begins.
pub(super) const CANNOT: &str = "cannot take over from the running process";

/// What it may be doing takes no longer.
const UNDER_WAY: Duration = Duration::from_secs(90);
