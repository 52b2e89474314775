//! What is done to honest requests: the tricks known from research on request smuggling, and the corners of the grammar.

mod body;
mod chunks;
mod connection;
mod fields;
mod host;
mod length;
mod line;
mod transfer_encoding;

use super::message::Message;
use crate::harness::Dice;

/// What a mutation changes; two that change the same do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aspect {
    Line,
    Host,
    Fields,
    Framing,
    Connection,
}

type Change = Box<dyn Fn(&mut Message, &mut Dice) + Send + Sync>;

/// One of them.
pub(crate) struct Mutation {
    pub(crate) name: String,
    pub(crate) aspect: Aspect,
    change: Change,
}

impl Mutation {
    fn new(
        aspect: Aspect,
        name: impl Into<String>,
        change: impl Fn(&mut Message, &mut Dice) + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), aspect, change: Box::new(change) }
    }

    /// Changes a request.
    pub(crate) fn apply(&self, message: &mut Message, dice: &mut Dice) {
        (self.change)(message, dice);
    }
}

/// All of them, in an order that does not change.
pub(crate) fn all() -> Vec<Mutation> {
    let mut all = vec![Mutation::new(Aspect::Fields, "honest", |_, _| {})];
    all.extend(transfer_encoding::all());
    all.extend(length::all());
    all.extend(chunks::all());
    all.extend(body::all());
    all.extend(line::all());
    all.extend(host::all());
    all.extend(fields::all());
    all.extend(connection::all());
    all
}
