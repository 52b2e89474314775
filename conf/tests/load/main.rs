//! Whole configurations that have to load, and what they come to.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its folder has failed")]

mod certificates;
mod effective;
mod files;
mod folder;
mod guide;
mod hostile;
mod mas;
mod preset;
mod readme;
mod web_client;
mod well_known;
