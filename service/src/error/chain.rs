//! An error with its causes in one line, for logs: formatters of `tracing` write the outermost alone.

use std::error::Error;
use std::fmt;

/// Displays an error and what caused it: `the database failed: connection refused`.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer")]
    struct Outer(#[source] fmt::Error);

    #[test]
    fn causes_follow_in_their_order() {
        assert_eq!(Chain(&Outer(fmt::Error)).to_string(), format!("the outer: {}", fmt::Error));
    }
}
