#![doc = include_str!("../README.md")]

mod edge;
pub mod files;

pub use edge::{Edge, EdgeError};
