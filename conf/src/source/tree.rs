//! Parser events → tree of nodes with places.
//!
//! Bounded in depth and, aliases expanded, in size; duplicate keys are faults.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span as Marks, Tag};

use super::{Entry, Fault, Node, Span, Value};

/// Parses one document.
pub(super) fn parse(file: usize, text: &str) -> Result<Node, Fault> {
    let mut builder = Builder { file, stack: Vec::new(), anchors: HashMap::new(), total: 0, root: None };
    for event in Parser::new_from_str(text) {
        let (event, marks) = event.map_err(|error| {
            let marker = error.marker();
            let span = Span { file, line: marker.line().max(1), column: marker.col() + 1, width: 1 };
            fault(span, format!("is not valid YAML: {}", error.info()))
        })?;
        builder.event(event, marks)?;
    }
    let nothing = Span { file, line: 1, column: 1, width: 1 };
    Ok(builder.root.unwrap_or(Node { value: Value::Null, span: nothing, weight: 1 }))
}

/// A collection that is not closed yet.
struct Open {
    node: Node,
    anchor: usize,
    key: Option<(String, Span)>,
}

struct Builder {
    file: usize,
    stack: Vec<Open>,
    anchors: HashMap<usize, Node>,
    total: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, marks: Marks) -> Result<(), Fault> {
        let span = self.span(marks);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let text_tag = known_tag(tag.as_deref(), span)?;
                let plain = style == ScalarStyle::Plain && !text_tag;
                let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let value = if null { Value::Null } else { Value::Scalar { text: text.into_owned(), plain } };
                self.total += 1;
                self.close(Node { value, span, weight: 1 }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                known_tag(tag.as_deref(), span)?;
                self.open(Value::List(Vec::new()), span, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                known_tag(tag.as_deref(), span)?;
                self.open(Value::Map(Vec::new()), span, anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.stack.pop() else { return Ok(()) };
                let mut node = open.node;
                apply_merge_keys(&mut node)?;
                self.close(node, open.anchor)
            }
            Event::Alias(anchor) => {
                let Some(target) = self.anchors.get(&anchor) else {
                    return Err(fault(span, "this alias refers to the collection it stands in".to_owned()));
                };
                self.total = self.total.saturating_add(target.weight);
                self.bounded(span)?;
                let node = target.clone();
                self.close(node, 0)
            }
            Event::DocumentStart(_) if self.root.is_some() => Err(fault(
                span,
                "a second document begins here, a configuration file has only one".to_owned(),
            )),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn span(&self, marks: Marks) -> Span {
        let one_line = marks.start.line() == marks.end.line();
        let width = if one_line { marks.end.col().saturating_sub(marks.start.col()) } else { usize::MAX };
        Span {
            file: self.file,
            line: marks.start.line().max(1),
            column: marks.start.col() + 1,
            width: width.max(1),
        }
    }

    fn open(&mut self, value: Value, span: Span, anchor: usize) -> Result<(), Fault> {
        if self.stack.len() >= DEEPEST {
            return Err(fault(span, format!("nested more than {DEEPEST} levels deep")));
        }
        self.total += 1;
        let span = Span { width: 1, ..span };
        self.stack.push(Open { node: Node { value, span, weight: 1 }, anchor, key: None });
        Ok(())
    }

    fn bounded(&self, span: Span) -> Result<(), Fault> {
        if self.total > MOST_NODES {
            return Err(fault(span, format!("the aliases make this file larger than {MOST_NODES} values")));
        }
        Ok(())
    }

    /// A value is complete: it becomes a key, an entry, an item, or the whole document.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), Fault> {
        self.bounded(node.span)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.node.weight = parent.node.weight.saturating_add(node.weight);
        match &mut parent.node.value {
            Value::List(items) => items.push(node),
            Value::Map(entries) => match parent.key.take() {
                None => parent.key = Some(key_of(node, entries)?),
                Some((key, span)) => entries.push(Entry { key, span, node }),
            },
            Value::Null | Value::Scalar { .. } => {}
        }
        Ok(())
    }
}

/// The text of a key that is not in the mapping yet.
fn key_of(node: Node, entries: &[Entry]) -> Result<(String, Span), Fault> {
    let Value::Scalar { text, .. } = node.value else {
        return Err(fault(node.span, "a key has to be a word".to_owned()));
    };
    if let Some(first) = entries.iter().find(|entry| entry.key == text && text != MERGE) {
        return Err(Fault {
            span: Some(node.span),
            message: format!("the key `{text}` is given twice"),
            related: Some((first.span, "first given here".to_owned())),
        });
    }
    Ok((text, node.span))
}

/// `<<: *base`: takes over the keys of another mapping (or several) that are not given here.
fn apply_merge_keys(node: &mut Node) -> Result<(), Fault> {
    let Value::Map(entries) = &mut node.value else { return Ok(()) };
    while let Some(at) = entries.iter().position(|entry| entry.key == MERGE) {
        let merged = entries.remove(at);
        let bases = match merged.node.value {
            Value::List(items) => items,
            value => vec![Node { value, ..merged.node }],
        };
        for base in bases {
            let Value::Map(inherited) = base.value else {
                return Err(fault(merged.span, "`<<` takes an alias of a mapping".to_owned()));
            };
            for entry in inherited {
                if !entries.iter().any(|known| known.key == entry.key) {
                    entries.push(entry);
                }
            }
        }
    }
    Ok(())
}

/// Only the tags of plain YAML mean something here; `true` for the one that makes text.
fn known_tag(tag: Option<&Tag>, span: Span) -> Result<bool, Fault> {
    let Some(tag) = tag else { return Ok(false) };
    if tag.is_yaml_core_schema()
        && matches!(tag.suffix.as_str(), "str" | "int" | "float" | "bool" | "null" | "seq" | "map")
    {
        return Ok(tag.suffix == "str");
    }
    Err(fault(span, format!("the tag `{tag}` means nothing here")))
}

fn fault(span: Span, message: String) -> Fault {
    Fault { span: Some(span), message, related: None }
}

/// YAML 1.1's merge key, which people know from Docker Compose.
const MERGE: &str = "<<";
/// Our deepest key is eight levels down.
const DEEPEST: usize = 32;
/// Aliases of aliases grow exponentially; a file within the size bound without them stays far below.
const MOST_NODES: usize = 200_000;
