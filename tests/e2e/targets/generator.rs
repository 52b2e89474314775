//! Request targets of the Matrix API from the grammar of RFC 3986, with everything in them that it allows, and some of what it
//! does not.

use crate::harness::Dice;

/// `{}` stands for an identifier in a path, `[]` for one in a query.
const FEDERATION: &[&str] = &[
    "/_matrix/federation/v1/event/{}",
    "/_matrix/federation/v1/state/{}?event_id=[]",
    "/_matrix/federation/v1/state_ids/{}?event_id=[]",
    "/_matrix/federation/v1/event_auth/{}/{}",
    "/_matrix/federation/v1/backfill/{}?v=[]&v=[]&limit=100",
    "/_matrix/federation/v1/make_join/{}/{}?ver=1&ver=2&ver=[]",
    "/_matrix/federation/v2/send_join/{}/{}",
    "/_matrix/federation/v2/invite/{}/{}",
    "/_matrix/federation/v1/send/{}",
    "/_matrix/federation/v1/query/directory?room_alias=[]",
    "/_matrix/federation/v1/query/profile?user_id=[]&field=displayname",
    "/_matrix/federation/v1/user/devices/{}",
    "/_matrix/federation/v1/media/download/{}",
    "/_matrix/key/v2/server",
    "/_matrix/key/v2/server/{}",
    "/_matrix/key/v2/query/{}?minimum_valid_until_ts=[]",
];

const CLIENT: &[&str] = &[
    "/_matrix/client/v3/rooms/{}/state/{}/{}",
    "/_matrix/client/v3/rooms/{}/event/{}",
    "/_matrix/client/v3/rooms/{}/messages?from=[]&filter=[]",
    "/_matrix/client/v3/directory/room/{}",
    "/_matrix/client/v3/join/{}?server_name=[]&via=[]",
    "/_matrix/client/v3/profile/{}/displayname",
    "/_matrix/client/v3/user/{}/account_data/{}",
    "/_matrix/client/v3/sync?since=[]&filter=[]",
    "/_matrix/client/v1/media/thumbnail/{}/{}?width=32&method=[]",
    "/_matrix/client/unstable/org.example/{}",
    "/_matrix/media/v3/download/{}/{}",
    "/_matrix/media/v3/preview_url?url=[]",
];

const UNRESERVED: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
/// RFC 3986 §2.2, and the two that a segment may have besides.
const IN_SEGMENTS: &[u8] = b"!$&'()*+,;=:@";
const IN_QUERIES: &[u8] = b"!$&'()*+,;=:@/?";
const HEX: &[u8] = b"0123456789abcdefABCDEF";

/// Segments that some server reads as something else.
const ODD_SEGMENTS: &[&str] = &[
    "",
    ".",
    "..",
    "%2e",
    "%2E%2e",
    ".%2E",
    "...",
    "%2e%2e%2e",
    "..;",
    "..;a=b",
    ";a=b;c",
    "%2F",
    "%2f..%2f",
    "..%2F",
    "a%2Fb",
    "%23a%2Fb:example.com",
    "%5C",
    "..%5c..",
    "%252F",
    "%252e%252e",
    "%00",
    "%0D%0A",
    "login",
    "login.png",
    "logout",
    "refresh",
    "%6Cogin",
    "a%2flogin",
    "~",
    "a=b",
    "a,b",
    "*",
    "%E2%82%AC",
    "%ff%FE",
    "%C0%AE%c0%ae",
    "%3F",
    "%3fa=b",
    "../login",
    "..%2flogin",
    "%2e%2e%2Frefresh",
    "../../../../_synapse/admin/v1/users",
    "..%2f..%2f..%2f..%2f_synapse%2Fmas",
    "..%5c..%5C..%5c..",
    "../..",
    "../../..",
    "%2E%2E/%2e%2e/%2e./.%2E/metrics",
    "..%2F../..%2f../_matrix/key/v2/server",
    "../../key/v2",
];

/// Queries as a whole.
const ODD_QUERIES: &[&str] = &[
    "",
    "?",
    "??",
    "&",
    "=",
    "&&==",
    "+",
    "a=b+c%2B%20",
    "/../..",
    "%",
    "%zz",
    "a=%",
    "%u0041",
    "a=1&a=2&a[]",
];

/// What RFC 3986 does not have, though the last ones pass: browsers and libraries send them.
const FOREIGN: &[&str] = &[
    "#",
    "#fragment",
    " ",
    "\t",
    "\u{1}",
    "\u{7f}",
    "é",
    "€",
    "<",
    ">",
    "%",
    "%4",
    "%g0",
    "%0g",
    "%%41",
    "\"",
    "{",
    "}",
    "|",
    "^",
    "[",
    "]",
    "\\",
];

/// One target, and whether it is one of the federation.
pub(crate) fn target(dice: &mut Dice) -> (Vec<u8>, bool) {
    let is_federation = dice.once_in(2);
    let template = dice.one_of(if is_federation { FEDERATION } else { CLIENT });
    let mut target = String::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '[']) {
        target.push_str(&rest[..at]);
        target.push_str(&if rest[at..].starts_with('{') { segment(dice) } else { in_query(dice) });
        rest = &rest[at + 2..];
    }
    target.push_str(rest);
    if !target.contains('?') && dice.once_in(6) {
        target.push('?');
        target.push_str(if dice.once_in(2) { dice.one_of(ODD_QUERIES) } else { "" });
    }
    if dice.once_in(25) {
        let places: Vec<usize> =
            target.char_indices().map(|(at, _)| at).filter(|at| *at > 20).chain([target.len()]).collect();
        target.insert_str(places[dice.below(places.len())], dice.one_of(FOREIGN));
    }
    (target.into_bytes(), is_federation)
}

fn segment(dice: &mut Dice) -> String {
    if dice.once_in(5) {
        return match dice.below(3) {
            0 => format!("{}/{}", dice.one_of(ODD_SEGMENTS), characters(dice, IN_SEGMENTS)),
            1 => format!("{}/{}", characters(dice, IN_SEGMENTS), dice.one_of(ODD_SEGMENTS)),
            _ => dice.one_of(ODD_SEGMENTS).to_owned(),
        };
    }
    let sigil = dice.one_of(&["!", "%21", "$", "%24", "@", "%40", "%23"]);
    let server =
        dice.one_of(&["", ":example.com", "%3Aexample.com:8448", "%3aexample.com", ":%5B%3A%3A1%5D"]);
    format!("{sigil}{}{server}", characters(dice, IN_SEGMENTS))
}

fn in_query(dice: &mut Dice) -> String {
    if dice.once_in(8) { dice.one_of(ODD_QUERIES).to_owned() } else { characters(dice, IN_QUERIES) }
}

/// Unreserved characters, the others that may stand here, and escapes of every byte in either case.
fn characters(dice: &mut Dice, others: &[u8]) -> String {
    let mut text = String::new();
    for _ in 0..dice.between(1, 12) {
        match dice.below(4) {
            0 => text.push_str(&format!("%{}", dice.word(HEX, 2, 2))),
            1 => text.push_str(&dice.word(others, 1, 1)),
            _ => text.push_str(&dice.word(UNRESERVED, 1, 3)),
        }
    }
    text
}
