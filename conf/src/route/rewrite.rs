//! Reading of `strip_prefix` and `replace_path`: what an upstream gets in place of the path as received.
//!
//! What is accepted here can always be carried out: a request that takes the route has the start that is taken off, in normal form.

use super::read::parse_path;
use super::{Action, Matcher, Rewrite};
use crate::reader::{Item, Section};

/// The two keys of a route as they stand in the file.
#[derive(Debug)]
pub(super) struct Given<'a> {
    strip: Option<Item<'a>>,
    replace: Option<Item<'a>>,
}

impl<'a> Given<'a> {
    /// Takes both keys.
    pub(super) fn take(section: &mut Section<'a>) -> Self {
        Self { strip: section.take("strip_prefix"), replace: section.take("replace_path") }
    }

    /// Reads them for a route; `Some(None)` without any. `matcher` and `action` come with their places.
    pub(super) fn read(
        &self,
        matcher: Option<&(Matcher, Item<'_>)>,
        action: Option<&(Action, Item<'_>)>,
    ) -> Option<Option<Rewrite>> {
        let given = match (&self.strip, &self.replace) {
            (None, None) => return Some(None),
            (Some(strip), Some(replace)) => {
                let message = "a path is changed in one way, here are `strip_prefix` and `replace_path`";
                replace.error_with(message, strip.key_span(), "given here");
                return None;
            }
            (Some(item), None) | (None, Some(item)) => item,
        };
        match action {
            Some((Action::Upstream(_), _)) | None => {}
            Some((_, action)) => {
                let message = "changes what an upstream gets, and this route asks none";
                given.error_with(message, action.key_span(), "the action");
                return None;
            }
        }
        match &self.strip {
            Some(item) => read_strip(item, matcher).map(Some),
            None => given.parse(parse_replacement).map(|path| Some(Rewrite::ReplacePath(path))),
        }
    }
}

fn read_strip(item: &Item<'_>, matcher: Option<&(Matcher, Item<'_>)>) -> Option<Rewrite> {
    let text = item.parse(parse_path)?;
    let start = text.strip_suffix('/').unwrap_or(&text);
    if start.is_empty() {
        item.error("would take nothing off, remove the key");
        return None;
    }
    let (matcher, place) = matcher?;
    let Matcher::Prefix(prefix) = matcher else {
        let message =
            format!("takes the start of the path off, so the route needs `prefix`: write prefix: {start}/");
        item.error_with(message, place.key_span(), "the matcher");
        return None;
    };
    // What remains then always begins with a slash.
    match prefix.strip_prefix(start) {
        Some(rest) if rest.starts_with('/') => Some(Rewrite::StripPrefix(start.to_owned())),
        Some("") => {
            let message = format!("`{prefix}` also takes paths such as `{prefix}x`, write prefix: {start}/");
            item.error_with(message, place.span(), "the prefix");
            None
        }
        Some(_) | None => {
            item.error_with(
                format!("`{text}` is not how every path of this route begins"),
                place.span(),
                "the prefix",
            );
            None
        }
    }
}

/// A path that is sent as it is written; the query of the request follows it.
fn parse_replacement(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` has to begin with `/`"));
    }
    if text.contains(['?', '#']) {
        return Err(format!("`{text}`: the query stays that of the request, leave out `?` and `#`"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("`{text}`: write spaces and letters outside ASCII as requests send them (%20)"));
    }
    Ok(text.to_owned())
}
