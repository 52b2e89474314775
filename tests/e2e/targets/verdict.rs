//! What has to become of a target, written down a second time, in other words than the edge has it: split into segments first,
//! and every way of reading them compared.

/// Why a target is refused with 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// A fragment is for the client alone.
    Fragment,
    /// A byte that no target has.
    Byte,
    /// `%` without two digits.
    Escape,
    /// Another reading of the path leads elsewhere.
    Elsewhere,
}

/// All of them, with the words of the table in the README.
pub(crate) const REASONS: &[(Reason, &str)] = &[
    (Reason::Fragment, "a fragment: `#`"),
    (
        Reason::Byte,
        "a control byte, a space, a byte outside ASCII, `<` or `>`; a backquote in the path, a quote in the query",
    ),
    (Reason::Escape, "a `%` in the path without two hexadecimal digits behind it"),
    (
        Reason::Elsewhere,
        "a dot segment, `%2F`, `%5C` or a backslash in the path with which some server would see a path of another route",
    ),
];

/// Why the edge refuses this target of Synapse's; on the federation port only two prefixes lead there.
pub(crate) fn refusal(target: &[u8], on_federation_port: bool) -> Option<Reason> {
    if target.contains(&b'#') {
        return Some(Reason::Fragment);
    }
    let (path, query) = match target.iter().position(|&byte| byte == b'?') {
        Some(at) => (&target[..at], &target[at..]),
        None => (target, &b""[..]),
    };
    let is_foreign = |byte: &u8| *byte <= b' ' || *byte >= 0x7f || b"<>".contains(byte);
    if target.iter().any(is_foreign) || path.contains(&b'`') || query.contains(&b'"') {
        return Some(Reason::Byte);
    }
    let path = String::from_utf8(path.to_vec()).expect("only ASCII is left");
    let Some(tokens) = tokens(&path) else { return Some(Reason::Escape) };
    let place = |segments: &[String]| place(segments, on_federation_port);
    let readings = [false, true].map(|separates| segments(&tokens, separates));
    let meant = place(&readings[0]);
    let agree = readings.iter().all(|literal| place(literal) == meant && place(&resolved(literal)) == meant);
    if agree && meant != Place::Elsewhere { None } else { Some(Reason::Elsewhere) }
}

/// What has a route of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Synapse,
    /// This and the next are the two of the federation port.
    Federation,
    Keys,
    Elsewhere,
}

/// Characters, and escapes of what is not unreserved.
fn tokens(path: &str) -> Option<Vec<String>> {
    let mut tokens = Vec::new();
    let mut rest = path;
    while let Some(first) = rest.chars().next() {
        if first != '%' {
            tokens.push(first.to_string());
            rest = &rest[1..];
            continue;
        }
        let digits = rest.get(1..3).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        let byte = char::from(u8::from_str_radix(digits, 16).ok()?);
        let is_unreserved = byte.is_ascii_alphanumeric() || "-._~".contains(byte);
        tokens.push(if is_unreserved { byte.to_string() } else { format!("%{}", digits.to_uppercase()) });
        rest = &rest[3..];
    }
    Some(tokens)
}

/// What is between slashes, or between everything that somebody takes for one.
fn segments(tokens: &[String], separates: bool) -> Vec<String> {
    let is_separator =
        |token: &String| token == "/" || separates && ["%2F", "%5C", "\\"].contains(&token.as_str());
    tokens.split(is_separator).skip(1).map(<[String]>::concat).collect()
}

/// Without dot segments.
fn resolved(segments: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        let is_dots = segment == "." || segment == "..";
        if segment == ".." {
            kept.pop();
        }
        if !is_dots {
            kept.push(segment.clone());
        } else if at + 1 == segments.len() {
            kept.push(String::new());
        }
    }
    kept
}

/// Where these segments lead: `/_matrix/…` is Synapse's, but for logins and the auth service's metadata.
fn place(segments: &[String], on_federation_port: bool) -> Place {
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let is_login = |word: &str| ["login", "logout", "refresh"].contains(&word);
    match words[..] {
        ["_matrix", "federation", _, ..] if on_federation_port => Place::Federation,
        ["_matrix", "key", _, ..] if on_federation_port => Place::Keys,
        _ if on_federation_port => Place::Elsewhere,
        ["_matrix", "client", "api", version, word, ..] | ["_matrix", "client", version, word, ..]
            if !version.is_empty() && is_login(word) =>
        {
            Place::Elsewhere
        }
        ["_matrix", "client", "v1", "auth_metadata"]
        | ["_matrix", "client", "unstable", "org.matrix.msc2965", "auth_metadata"] => Place::Elsewhere,
        ["_matrix", _, ..] => Place::Synapse,
        _ => Place::Elsewhere,
    }
}
