//! Rules without HTTP and without SQL.

pub mod account;
pub mod attempts;
pub mod device;
mod id;
pub mod limit;
pub mod login;
pub mod logout;
pub mod refresh;
pub mod scope;
pub mod session;
pub mod user;

pub use id::{SessionId, UserId};
