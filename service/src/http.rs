//! One endpoint per file. An endpoint parses, calls one domain function, renders.

pub mod assets;
pub mod compat;
pub mod oauth;
