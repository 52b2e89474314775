//! Whole configurations that have to load, and what they come to.

mod certificates;
mod folder;
mod guide;
mod preset;
