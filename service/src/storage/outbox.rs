//! Statements of the outbox table.
