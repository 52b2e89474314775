//! The bundled authentication service.

pub mod activity;
pub mod clock;
pub mod domain;
pub mod error;
#[cfg(test)]
pub(crate) mod fixture;
pub mod housekeeping;
pub mod http;
pub mod metrics;
pub mod outbox;
pub mod password;
pub mod process;
pub mod secrets;
pub mod state;
pub mod storage;
pub mod synapse;
pub mod token;

pub use error::ServiceError;
