#![doc = include_str!("../README.md")]

mod access_log;
mod admin;
mod answer;
mod context;
mod edge;
mod error;
pub mod files;
mod gate;
mod headers;
mod limits;
mod listener;
pub mod maintenance;
mod metrics;
mod path;
mod phases;
mod reload;
mod rewrite;
mod route;
mod snapshot;
mod upstream;
mod worker;

pub use edge::{Edge, EdgeError, EdgeHandle};
pub use reload::PreparedEdge;
