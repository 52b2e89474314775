//! HTTP/2 (RFC 9113) seen from beneath the library that speaks it: where frames begin, what each is, and when a client sends
//! so many that carry nothing that it cannot be a client. No payload is looked at, nothing is changed and nothing is held.

mod floods;
mod frames;

pub use floods::{Flood, FloodLimits, Watch};
pub use frames::{FrameHead, Frames, Kind};
