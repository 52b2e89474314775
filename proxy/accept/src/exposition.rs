//! Numbers in the text form that Prometheus reads (exposition format 0.0.4). It counts nothing itself.

use std::fmt::{Display, Write as _};

/// Metrics under one prefix, on their way into a text: each family whole, with its `HELP` and `TYPE` before it.
#[derive(Debug)]
pub struct Exposition {
    prefix: &'static str,
    text: String,
}

/// What a family's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They only grow; the family's name ends in `_total`.
    Counter,
    /// They go up and down.
    Gauge,
}

/// Where the samples of one family go.
#[derive(Debug)]
pub struct Family<'a> {
    name: &'a str,
    text: &'a mut String,
}

impl Exposition {
    /// Nothing yet; every name begins with `prefix`, such as `gatehouse_edge_`, which may be empty.
    pub fn new(prefix: &'static str) -> Self {
        Self { prefix, text: String::with_capacity(8 * 1024) }
    }

    /// A family of numbers that only grow, with the samples that `fill` adds; nothing at all if it adds none.
    pub fn counters(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(name, Kind::Counter, help, fill);
    }

    /// As [`counters`](Self::counters), for numbers that go up and down.
    pub fn gauges(&mut self, name: &str, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        self.family(name, Kind::Gauge, help, fill);
    }

    /// One number that only grows.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.counters(name, help, |family| family.sample(&[], value));
    }

    /// One number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauges(name, help, |family| family.sample(&[], value));
    }

    /// What `fill` adds has no prefix.
    pub fn unprefixed(&mut self, fill: impl FnOnce(&mut Self)) {
        let prefix = std::mem::take(&mut self.prefix);
        fill(self);
        self.prefix = prefix;
    }

    /// The text so far.
    pub fn into_text(self) -> String {
        self.text
    }

    fn family(&mut self, name: &str, kind: Kind, help: &str, fill: impl FnOnce(&mut Family<'_>)) {
        let name = format!("{}{name}", self.prefix);
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let start = self.text.len();
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        let filled = self.text.len();
        fill(&mut Family { name: &name, text: &mut self.text });
        if self.text.len() == filled {
            self.text.truncate(start);
        }
    }
}

impl Family<'_> {
    /// One number, told from the others of its family by `labels`.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (number, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if number == 0 { "{" } else { "," });
            let _ = write!(self.text, "{label}=\"");
            push_escaped(self.text, text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// A label's value may be anything once these three are escaped.
fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_whole_and_empty_ones_are_left_out() {
        let mut out = Exposition::new("x_");
        out.counter("a_total", "Some a.", 3);
        out.gauges("none", "Nothing.", |_| {});
        out.gauges("b", "Some b.", |family| {
            family.sample(&[("l", "one"), ("m", "")], 1.5);
            family.sample(&[("l", "a\\b\"c\nd"), ("m", "é")], "-1");
        });
        out.unprefixed(|out| out.gauge("c", "Some c.", 0));
        assert_eq!(
            out.into_text(),
            "# HELP x_a_total Some a.\n# TYPE x_a_total counter\nx_a_total 3\n\
             # HELP x_b Some b.\n# TYPE x_b gauge\nx_b{l=\"one\",m=\"\"} 1.5\nx_b{l=\"a\\\\b\\\"c\\nd\",m=\"é\"} -1\n\
             # HELP c Some c.\n# TYPE c gauge\nc 0\n"
        );
    }
}
