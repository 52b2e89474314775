//! Whole configurations that have to load, and what they come to.

mod certificates;
mod effective;
mod files;
mod folder;
mod guide;
mod preset;
