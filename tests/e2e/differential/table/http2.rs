//! Over HTTP/2.

use super::Difference;

/// In the order of what we do, then nginx, then HAProxy.
pub(crate) const HTTP_2: &[Difference] = &[
    Difference {
        mutations: &[":path with lone %"],
        outcomes: ["400", "400", "forwarded"],
        why: "A `%` in a path without two digits has as many meanings as there are decoders.",
    },
    Difference {
        mutations: &["host twice"],
        outcomes: ["400", "400", "forwarded"],
        why: "Every request names one host, once.",
    },
    Difference {
        mutations: &["length twice"],
        outcomes: ["400", "400", "forwarded"],
        why: "Refused, as in HTTP/1.1.",
    },
    Difference {
        mutations: &[":path * with OPTIONS"],
        outcomes: ["400", "400", "forwarded"],
        why: "The server as a whole is us, and we have nothing to say; no upstream is meant.",
    },
    Difference {
        mutations: &["host other than :authority"],
        outcomes: ["400", "400", "forwarded"],
        why: "Two hosts in one request.",
    },
    Difference {
        mutations: &["neither host nor :authority"],
        outcomes: ["400", "400", "forwarded, malformed: no Host"],
        why: "Every request names one host, once.",
    },
    Difference {
        mutations: &[":path *"],
        outcomes: ["400", "400", "forwarded, other target"],
        why: "The server as a whole is us, and we have nothing to say; no upstream is meant.",
    },
    Difference {
        mutations: &[":scheme ftp"],
        outcomes: ["400", "forwarded", "forwarded, other target"],
        why: "An upstream speaks HTTP, and no other scheme's resources are here.",
    },
    Difference {
        mutations: &[":authority with user", ":authority with port of letters", ":authority with comma"],
        outcomes: ["400", "forwarded, malformed: Host", "forwarded, malformed: Host"],
        why: "Not `host[:port]`: refused as in HTTP/1.1.",
    },
    Difference {
        mutations: &[":path in UTF-8"],
        outcomes: ["400", "forwarded, malformed: target", "forwarded, malformed: target"],
        why: "Only visible ASCII in a target (RFC 3986 §2).",
    },
    Difference {
        mutations: &["CONNECT"],
        outcomes: ["405", "400", "forwarded, method CONNECT, other target, other Host"],
        why: "405, as in HTTP/1.1.",
    },
    Difference { mutations: &["TRACE"], outcomes: ["405", "405", "forwarded"], why: "405, as in HTTP/1.1." },
    Difference {
        mutations: &["expect: nonsense"],
        outcomes: ["417", "forwarded", "forwarded, with expect"],
        why: "417, as in HTTP/1.1.",
    },
    Difference {
        mutations: &[":authority with space", ":path with DEL", ":method with space", ":scheme with a host"],
        outcomes: ["closed", "400", "400"],
        why: "Nobody forwards it; for us it is a malformed stream (RFC 9113 §8.1.1).",
    },
    Difference {
        mutations: &[
            "unknown pseudo field",
            ":status",
            ":authority twice",
            ":path empty",
            ":path without slash",
            ":path absolute",
            ":path with space",
            ":path with version",
            ":path with tab",
            ":path missing",
            ":path twice",
            ":method empty",
            ":method missing",
            ":method twice",
            ":scheme missing",
            ":scheme twice",
        ],
        outcomes: ["closed", "400", "closed"],
        why: "Nobody forwards it; for us and HAProxy it is a malformed stream (RFC 9113 §8.3).",
    },
    Difference {
        mutations: &[
            "length shorter than the body",
            "length longer than the body",
            "length twice, different",
            "length with plus sign",
            "length empty",
            "length beyond 64 bits",
        ],
        outcomes: ["closed", "400", "closed"],
        why: "Nobody forwards it; for us it is a malformed stream (RFC 9113 §8.1.1).",
    },
    Difference {
        mutations: &["length without a body", "length as a list", "length with a space"],
        outcomes: ["closed", "400", "forwarded"],
        why: "No such length, or not the body's: a malformed stream. HAProxy writes a length of its \
              own.",
    },
    Difference {
        mutations: &[":authority empty", ":authority with path"],
        outcomes: ["closed", "400", "forwarded, malformed: Host"],
        why: "Not `host[:port]`: refused as in HTTP/1.1.",
    },
    Difference {
        mutations: &["CONNECT for a WebSocket"],
        outcomes: ["closed", "400", "forwarded, with sec-websocket-key and upgrade"],
        why: "Not offered (RFC 8441 §3), so a client may not send it; HAProxy offers it.",
    },
    Difference {
        mutations: &["CONNECT with path"],
        outcomes: ["closed", "405", "closed"],
        why: "CONNECT has no path (RFC 9113 §8.5).",
    },
    Difference {
        mutations: &["transfer-encoding: identity", "transfer-encoding with vertical tab"],
        outcomes: ["closed", "501", "closed"],
        why: "Fields of an HTTP/1.1 connection make a stream malformed (RFC 9113 §8.2.2); nginx \
              drops them.",
    },
    Difference {
        mutations: &["name not ASCII"],
        outcomes: ["closed", "forwarded", "closed"],
        why: "A malformed stream (RFC 9113 §8.2.1, §8.3); nginx drops the field or does not mind.",
    },
    Difference {
        mutations: &[
            "transfer-encoding: chunked",
            "connection: close",
            "connection nominates content-length",
            "keep-alive",
            "upgrade",
            "te: chunked",
        ],
        outcomes: ["closed", "forwarded", "closed"],
        why: "Fields of an HTTP/1.1 connection make a stream malformed (RFC 9113 §8.2.2); nginx \
              drops them.",
    },
    Difference {
        mutations: &["head in a frame for each byte"],
        outcomes: ["closed", "forwarded", "forwarded"],
        why: "So many CONTINUATION frames are an attack.",
    },
    Difference {
        mutations: &[":path with characters outside the grammar"],
        outcomes: ["closed", "forwarded", "forwarded"],
        why: "`<`, `>` and a backquote are no part of a URI; they have to be escaped.",
    },
    Difference {
        mutations: &["value with control byte", "value with DEL"],
        outcomes: [
            "closed",
            "forwarded, malformed: control byte in a value",
            "forwarded, malformed: control byte in a value",
        ],
        why: "No control bytes in values (RFC 9110 §5.5).",
    },
    Difference {
        mutations: &["body behind the end"],
        outcomes: ["closed", "forwarded, not answered", "closed"],
        why: "The stream is closed: an error of the connection for us and HAProxy (RFC 9113 §5.1). \
              The request was complete before, and nginx forwards it.",
    },
    Difference {
        mutations: &["proxy-connection"],
        outcomes: ["closed", "forwarded, with proxy-connection", "closed"],
        why: "Fields of an HTTP/1.1 connection make a stream malformed (RFC 9113 §8.2.2); nginx \
              drops them.",
    },
    Difference {
        mutations: &["pseudo field behind a field"],
        outcomes: ["closed", "forwarded, with x-odd", "closed"],
        why: "A malformed stream (RFC 9113 §8.2.1, §8.3); nginx drops the field or does not mind.",
    },
    Difference {
        mutations: &[":method in lower case"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "A method is any token, and its case counts; nginx takes capital letters, `_` and `-`.",
    },
    Difference {
        mutations: &["host as :authority"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "The same host in both is one (RFC 9113 §8.3.1); nginx takes one field only.",
    },
    Difference {
        mutations: &["trailer content-length", "trailer :path"],
        outcomes: ["forwarded", "closed", "closed"],
        why: "Trailers are read and dropped, whatever they say; nginx 1.22 knows none.",
    },
    Difference {
        mutations: &["trailers"],
        outcomes: ["forwarded", "closed", "forwarded"],
        why: "Trailers are read and dropped, whatever they say; nginx 1.22 knows none.",
    },
    Difference {
        mutations: &["padded"],
        outcomes: ["forwarded", "forwarded", "forwarded, not answered"],
        why: "HAProxy 2.6 forwards the request and never answers.",
    },
    Difference {
        mutations: &["te: trailers"],
        outcomes: ["forwarded", "forwarded", "forwarded, with te"],
        why: "A field of this connection, or with an underscore, ends here.",
    },
    Difference {
        mutations: &["transfer_encoding"],
        outcomes: ["forwarded", "forwarded", "forwarded, with transfer_encoding"],
        why: "A field of this connection, or with an underscore, ends here.",
    },
    Difference {
        mutations: &["http2-settings"],
        outcomes: ["forwarded", "forwarded, with http2-settings", "forwarded, with http2-settings"],
        why: "A field of this connection, or with an underscore, ends here.",
    },
    Difference {
        mutations: &[":path with fragment"],
        outcomes: ["forwarded, other target", "forwarded, malformed: target", "closed"],
        why: "The library that reads HTTP/2 for us cuts fragments off before anybody sees them: \
              nothing of it reaches a route, a log or an upstream.",
    },
    Difference {
        mutations: &["expect: 100-continue"],
        outcomes: ["forwarded, with expect", "forwarded", "forwarded, with expect"],
        why: "We pass the expectation on; nginx meets it itself.",
    },
    Difference {
        mutations: &["length 0 and a body"],
        outcomes: ["closed or forwarded, without body, not answered", "400", "closed"],
        why: "The stream is reset for the body that must not come, which ends the request if it is not on \
              its way by then. It was complete without a body, and is one.",
    },
    Difference {
        mutations: &["name with underscore"],
        outcomes: ["forwarded, without x_odd", "forwarded, without x_odd", "forwarded"],
        why: "Dropped: CGI-like servers read `X_A` as `X-A`. HAProxy passes it on.",
    },
];
