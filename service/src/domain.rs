//! Rules without HTTP and without SQL.

mod id;
pub mod user;

pub use id::{SessionId, UserId};
