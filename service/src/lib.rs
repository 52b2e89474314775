//! The bundled authentication service.

pub mod http;
pub mod process;
pub mod synapse;
