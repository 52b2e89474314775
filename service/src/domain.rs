//! Rules without HTTP and without SQL.

mod id;
pub mod limit;
pub mod session;
pub mod user;

pub use id::{SessionId, UserId};
