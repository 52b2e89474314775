//! One endpoint per file; the table of all of them is in `router.rs`. An endpoint parses, calls one domain function, renders.

pub mod assets;
pub mod compat;
pub mod connection_info;
pub mod discovery;
pub mod extract;
pub mod health;
pub mod matrix;
pub mod metrics;
pub mod oauth;
pub mod refusal;
