//! What a process of ours does around its work: logs on stderr, signals, words to systemd, and a life that goes on over reloads of
//! the configuration and replacements of the executable.
//!
//! Shared by `gatehouse` and `gatehouse-auth`, whose work it knows as [`Work`] only.

mod control;
mod descriptors;
mod fault;
mod former;
mod life;
mod log;
mod program;
mod reload;
pub mod remote;
mod signals;
mod successor;
mod supervisor;
mod systemd;
mod watchdog;
mod wire;

pub use fault::Fault;
pub use life::{Life, Options, TakeOver};
pub use log::log_to_stderr;
pub use signals::stop_signal;
pub use supervisor::Work;
pub use systemd::{notify_ready, notify_stopping};

/// `EX_CONFIG` of sysexits.h: the configuration is at fault, starting again will not help.
pub const EXIT_CONFIG: u8 = 78;
/// Nothing is at fault: somebody wanted it to stop.
pub const EXIT_STOPPED: u8 = 0;
/// Something else is at fault.
pub const EXIT_FAULT: u8 = 1;
