#![doc = include_str!("../README.md")]

mod edge;

pub use edge::{Edge, EdgeError};
