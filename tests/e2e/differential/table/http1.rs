//! Over HTTP/1.1.

use super::Difference;

/// In the order of what we do, then nginx, then HAProxy.
pub(crate) const HTTP_1: &[Difference] = &[
    Difference {
        mutations: &["line target with lone %", "line target with %zz"],
        outcomes: ["400", "400", "forwarded"],
        why: "A `%` in a path without two digits has as many meanings as there are decoders.",
    },
    Difference {
        mutations: &["CL folded, whole", "Host folded", "field only space"],
        outcomes: ["400", "400", "forwarded"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &["Host twice"],
        outcomes: ["400", "400", "forwarded"],
        why: "More than one Host is refused (RFC 9112 §3.2), the same one too; HAProxy makes one of \
              equal ones.",
    },
    Difference {
        mutations: &["CL list of equals, whole", "CL twice, whole", "CL twice, in mixed case, whole"],
        outcomes: ["400", "400", "forwarded"],
        why: "One length, said twice, is refused, although RFC 9112 §6.3 allows to take it as one; \
              HAProxy makes one of it. The request behind the body is then one of its own.",
    },
    Difference {
        mutations: &["line tab before the target", "line tab behind the target"],
        outcomes: ["400", "400", "forwarded"],
        why: "One space, and nothing else, between the words (RFC 9112 §3). HAProxy takes a tab \
              too.",
    },
    Difference {
        mutations: &["line OPTIONS *", "line GET *"],
        outcomes: ["400", "400", "forwarded"],
        why: "The server as a whole is us, and we have nothing to say; no upstream is meant.",
    },
    Difference {
        mutations: &["TE chunked, TE.CL", "TE in mixed case, TE.CL", "TE without space, TE.CL"],
        outcomes: ["400", "400", "forwarded"],
        why: "Two ways to say where the body ends: refused, as RFC 9112 §6.3 advises. HAProxy takes \
              the coding and drops the length.",
    },
    Difference {
        mutations: &["CL beyond 64 bits, *"],
        outcomes: ["400", "400", "forwarded, malformed: Content-Length"],
        why: "No number that anybody could count to. HAProxy forwards it as it came.",
    },
    Difference {
        mutations: &["Host folded behind a name"],
        outcomes: ["400", "400", "forwarded, malformed: Host"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &[
            "Host empty",
            "Host list",
            "Host with space",
            "Host with tab",
            "Host with path",
            "Host with scheme",
            "Host only a port",
            "Host IPv6 without bracket",
        ],
        outcomes: ["400", "400", "forwarded, malformed: Host"],
        why: "Not `host[:port]` as RFC 3986 §3.2.2 has it: links that an upstream makes of it would \
              lead anywhere.",
    },
    Difference {
        mutations: &["TE in HTTP/1.0, *"],
        outcomes: ["400", "400", "forwarded, malformed: Transfer-Encoding"],
        why: "HTTP/1.0 has no transfer codings (RFC 9112 §6.1). HAProxy leaves it to the upstream, \
              as HTTP/1.0.",
    },
    Difference {
        mutations: &["TE behind NUL and LF, *", "Host with NUL", "field NUL in the value"],
        outcomes: ["400", "400", "forwarded, malformed: control byte in a value"],
        why: "A NUL is refused in every field (RFC 9110 §5.5); HAProxy passes it on in values.",
    },
    Difference {
        mutations: &["Host missing", "Host absolute target without Host"],
        outcomes: ["400", "400", "forwarded, malformed: no Host"],
        why: "Every request names its host (RFC 9112 §3.2). HAProxy forwards it without.",
    },
    Difference {
        mutations: &["line version 0.9"],
        outcomes: ["400", "400", "forwarded, malformed: request line"],
        why: "No such version. HAProxy forwards the line as it came.",
    },
    Difference {
        mutations: &["line target with DEL"],
        outcomes: ["400", "400", "400 or forwarded, malformed: target"],
        why: "Only visible ASCII in a target (RFC 3986 §2). HAProxy sees a DEL or does not, depending on \
              where it stands.",
    },
    Difference {
        mutations: &["TE chunked, CL.TE", "TE in mixed case, CL.TE", "TE without space, CL.TE"],
        outcomes: ["400", "400", "forwarded, other body"],
        why: "Two ways to say where the body ends: refused, as RFC 9112 §6.3 advises. HAProxy takes \
              the coding and drops the length.",
    },
    Difference {
        mutations: &["Host absolute target, with user", "Host absolute target, no host"],
        outcomes: ["400", "400", "forwarded, other target"],
        why: "The target says something else than Host, byte for byte, or is no HTTP URI with a \
              path: refused, since one of the two would have to be ignored.",
    },
    Difference {
        mutations: &["TE behind a bare LF, TE.CL"],
        outcomes: ["400", "400", "forwarded, with x-before"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["TE folded into the field before, CL.TE"],
        outcomes: ["400", "400", "forwarded, with x-before"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them, and what it sees then \
              has no body.",
    },
    Difference {
        mutations: &["TE behind a bare LF, CL.TE"],
        outcomes: ["400", "400", "forwarded, with x-before, other body"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["TE folded into the field before, alone"],
        outcomes: ["400", "400", "forwarded, with x-before, without body"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them, and what it sees then \
              has no body.",
    },
    Difference {
        mutations: &["field folded", "field folded with a tab", "field folded to nothing"],
        outcomes: ["400", "400", "forwarded, with x-odd"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &["line preface of HTTP/2"],
        outcomes: ["400", "400", "no HTTP"],
        why: "HTTP/2 is spoken after TLS has agreed on it, only. HAProxy recognises the preface and \
              answers in HTTP/2.",
    },
    Difference {
        mutations: &["CL folded, short"],
        outcomes: ["400", "400", "two requests"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &["TE folded into the field before, TE.CL", "CL folded into the field before, *"],
        outcomes: ["400", "400", "two requests"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them, and what it sees then \
              has no body.",
    },
    Difference {
        mutations: &["CL list of equals, short", "CL twice, short", "CL twice, in mixed case, short"],
        outcomes: ["400", "400", "two requests"],
        why: "One length, said twice, is refused, although RFC 9112 §6.3 allows to take it as one; \
              HAProxy makes one of it. The request behind the body is then one of its own.",
    },
    Difference {
        mutations: &[
            "TE vertical tab before the value, *",
            "TE vertical tab behind the value, *",
            "TE form feed before the value, *",
            "TE LF before the value, *",
        ],
        outcomes: ["400", "501", "400"],
        why: "Control bytes are looked for first; that it is no coding comes later.",
    },
    Difference {
        mutations: &["TE white space around the value, TE.CL"],
        outcomes: ["400", "501", "forwarded"],
        why: "Two ways to say where the body ends: refused, as RFC 9112 §6.3 advises. HAProxy takes \
              the coding and drops the length.",
    },
    Difference {
        mutations: &["TE white space around the value, CL.TE"],
        outcomes: ["400", "501", "forwarded, other body"],
        why: "Two ways to say where the body ends: refused, as RFC 9112 §6.3 advises. HAProxy takes \
              the coding and drops the length.",
    },
    Difference {
        mutations: &["line version 2.0", "line version 3.0"],
        outcomes: ["400", "505", "forwarded"],
        why: "Not in this form. HAProxy reads it as 1.1.",
    },
    Difference {
        mutations: &["TE CR behind the value, alone", "CL CR behind the value, whole"],
        outcomes: ["400", "forwarded", "400"],
        why: "A carriage return belongs to a line feed. nginx takes `CR CR LF` for a line end.",
    },
    Difference {
        mutations: &[
            "field bracket in the name",
            "field @ in the name",
            "field quote in the name",
            "field slash in the name",
            "field name not ASCII",
        ],
        outcomes: ["400", "forwarded", "400"],
        why: "A name is a token (RFC 9110 §5.1). nginx drops what is none and goes on.",
    },
    Difference {
        mutations: &["TE byte 0xFF before the name, CL.TE"],
        outcomes: ["400", "forwarded", "400"],
        why: "No byte outside ASCII in a name (RFC 9110 §5.1). nginx drops such a field and goes on \
              without it.",
    },
    Difference {
        mutations: &["line space at the end"],
        outcomes: ["400", "forwarded", "400"],
        why: "One space, and nothing else, between the words (RFC 9112 §3).",
    },
    Difference {
        mutations: &["line CR before"],
        outcomes: ["400", "forwarded", "400"],
        why: "Only CRLF may come before a request (RFC 9112 §2.2).",
    },
    Difference {
        mutations: &["Host absolute target, another host", "Host absolute target, another port"],
        outcomes: ["400", "forwarded", "400"],
        why: "The target says something else than Host, byte for byte, or is no HTTP URI with a \
              path: refused, since one of the two would have to be ignored.",
    },
    Difference {
        mutations: &["line version 1.10"],
        outcomes: ["400", "forwarded", "400"],
        why: "There is no such version, and will not be; RFC 9112 §2.3 would have it read as 1.1.",
    },
    Difference {
        mutations: &["chunk no end", "chunk trailer that is a request line"],
        outcomes: ["400", "forwarded", "400"],
        why: "Trailer fields have to be fields. nginx skips whatever stands there up to an empty \
              line, which hides a request or shows one, depending on who reads.",
    },
    Difference {
        mutations: &[
            "line LF before",
            "field every line ends with LF",
            "field lines end with LF, the head with CRLF",
            "field the head ends with LF",
        ],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["chunk trailer folded"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "Folded lines are refused in trailers too.",
    },
    Difference {
        mutations: &["chunk extension with NUL"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "No control bytes in an extension.",
    },
    Difference {
        mutations: &["chunk a hundred leading zeros", "chunk last chunk of many zeros"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "No honest size has more than sixteen digits.",
    },
    Difference {
        mutations: &["Host empty port", "Host port 65536", "Host of a kilobyte"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "No port that could be meant, or a name longer than the DNS has.",
    },
    Difference {
        mutations: &["line two spaces before the target", "line two spaces behind the target"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "One space, and nothing else, between the words (RFC 9112 §3).",
    },
    Difference {
        mutations: &["line version 1.2"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "There is no such version, and will not be; RFC 9112 §2.3 would have it read as 1.1.",
    },
    Difference {
        mutations: &["chunk extension behind a space", "chunk space behind", "chunk tab behind"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "White space behind a size, which RFC 9112 §7.1.1 only tolerates.",
    },
    Difference {
        mutations: &["line target with characters outside the grammar"],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "`<`, `>` and a backquote are no part of a URI; they have to be escaped.",
    },
    Difference {
        mutations: &[
            "connection nominates Content-Length",
            "connection nominates Transfer-Encoding",
            "connection nominates Host",
            "connection nominates X-Forwarded-For",
            "connection nominates many",
            "connection nominates nonsense",
        ],
        outcomes: ["400", "forwarded", "forwarded"],
        why: "`Connection` may not take away what the message needs, our word on who asked, or more \
              than ten fields. The others ignore it.",
    },
    Difference {
        mutations: &[
            "Host absolute target, same host in another case",
            "Host absolute target, standard port",
            "Host absolute target, another scheme",
        ],
        outcomes: ["400", "forwarded", "forwarded, other target"],
        why: "The target says something else than Host, byte for byte, or is no HTTP URI with a \
              path: refused, since one of the two would have to be ignored.",
    },
    Difference {
        mutations: &[
            "Host with user",
            "Host with query",
            "Host with fragment",
            "Host with backslash",
            "Host with %",
            "Host with comma",
            "Host with semicolon",
            "Host with bracket",
            "Host not ASCII",
            "Host port of letters",
            "Host negative port",
            "Host two ports",
            "Host IPv6 without end",
            "Host IPv6 wrong",
            "Host IPv6 with zone",
            "Host IPv6 with a name behind",
            "Host IPvFuture",
        ],
        outcomes: ["400", "forwarded, malformed: Host", "forwarded, malformed: Host"],
        why: "Not `host[:port]` as RFC 3986 §3.2.2 has it: links that an upstream makes of it would \
              lead anywhere.",
    },
    Difference {
        mutations: &[
            "field control byte in the value",
            "field DEL in the value",
            "field vertical tab in the value",
        ],
        outcomes: [
            "400",
            "forwarded, malformed: control byte in a value",
            "forwarded, malformed: control byte in a value",
        ],
        why: "No control bytes in values (RFC 9110 §5.5).",
    },
    Difference {
        mutations: &[
            "line no version",
            "line no version, space at the end",
            "line target with LF",
            "line HTTP/0.9",
        ],
        outcomes: ["400", "forwarded, malformed: no Host", "400"],
        why: "HTTP/0.9, with which nothing can be said about the request. nginx forwards it as \
              HTTP/1.1 without Host.",
    },
    Difference {
        mutations: &["line HTTP/1.0 without Host"],
        outcomes: ["400", "forwarded, malformed: no Host", "forwarded, as HTTP/1.0, other Host"],
        why: "Nobody can say whose request it is: every request has to name its host here.",
    },
    Difference {
        mutations: &["line target with fragment", "line target in UTF-8"],
        outcomes: ["400", "forwarded, malformed: target", "400"],
        why: "Only visible ASCII, and no fragment, in a target (RFC 3986 §2).",
    },
    Difference {
        mutations: &["Host with LF"],
        outcomes: ["400", "forwarded, other Host, with x-injected", "forwarded, other Host, with x-injected"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["Host absolute target, query without path"],
        outcomes: ["400", "forwarded, other target", "400"],
        why: "The target says something else than Host, byte for byte, or is no HTTP URI with a \
              path: refused, since one of the two would have to be ignored.",
    },
    Difference {
        mutations: &["field LF in the name"],
        outcomes: ["400", "forwarded, with odd and x-", "400"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["TE behind a bare LF, alone", "CL behind a bare LF, whole"],
        outcomes: ["400", "forwarded, with x-before", "forwarded, with x-before"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["field CR at the end of the value"],
        outcomes: ["400", "forwarded, with x-odd", "400"],
        why: "A carriage return belongs to a line feed. nginx takes `CR CR LF` for a line end.",
    },
    Difference {
        mutations: &["field no colon"],
        outcomes: ["400", "forwarded, with x-odd", "400"],
        why: "A name is a token (RFC 9110 §5.1). nginx drops what is none and goes on.",
    },
    Difference {
        mutations: &["field CR CR LF behind the value"],
        outcomes: ["400", "forwarded, with x-odd and x-other", "400"],
        why: "A carriage return belongs to a line feed. nginx takes `CR CR LF` for a line end.",
    },
    Difference {
        mutations: &["field LF behind the value"],
        outcomes: ["400", "forwarded, with x-odd and x-other", "forwarded, with x-odd and x-other"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["TE byte 0xFF before the name, alone"],
        outcomes: ["400", "forwarded, without body", "400"],
        why: "No byte outside ASCII in a name (RFC 9110 §5.1). nginx drops such a field and goes on \
              without it.",
    },
    Difference {
        mutations: &["CL CR behind the value, short"],
        outcomes: ["400", "two requests", "400"],
        why: "A carriage return belongs to a line feed. nginx takes `CR CR LF` for a line end.",
    },
    Difference {
        mutations: &["TE byte 0xFF before the name, TE.CL"],
        outcomes: ["400", "two requests", "400"],
        why: "No byte outside ASCII in a name (RFC 9110 §5.1). nginx drops such a field and goes on \
              without it.",
    },
    Difference {
        mutations: &["chunk trailer without colon"],
        outcomes: ["400", "two requests", "400"],
        why: "Trailer fields have to be fields. nginx skips whatever stands there up to an empty \
              line, which hides a request or shows one, depending on who reads.",
    },
    Difference {
        mutations: &["chunk trailer with space before the colon"],
        outcomes: ["400", "two requests", "400 or forwarded, malformed: trailer field"],
        why: "Trailer fields have to be fields. nginx skips whatever stands there up to an empty \
              line, which hides a request or shows one, depending on who reads.",
    },
    Difference {
        mutations: &["chunk trailer with NUL"],
        outcomes: ["400", "two requests", "two requests"],
        why: "A NUL is refused in every field; the others drop the trailer unread. The request \
              behind the body is then one of its own.",
    },
    Difference {
        mutations: &[
            "CL behind a bare LF, short",
            "chunk extension with LF and a request",
            "chunk LF behind the size",
            "chunk LF behind the data",
            "chunk only LF",
            "chunk LF behind the last size",
            "chunk LF at the end",
            "chunk trailer with LF",
            "field LF LF and a request",
        ],
        outcomes: ["400", "two requests", "two requests"],
        why: "A line feed alone ends no line here. Who takes it for one, as the others do (RFC 9112 \
              §2.2 allows it), can be told two things by one request.",
    },
    Difference {
        mutations: &["line CONNECT to a host"],
        outcomes: ["405", "400", "forwarded"],
        why: "We are no tunnel, whatever the target. HAProxy passes it on and lets the upstream \
              decide.",
    },
    Difference {
        mutations: &["line CONNECT to a path"],
        outcomes: ["405", "405", "400"],
        why: "We are no tunnel, whatever the target. HAProxy passes it on and lets the upstream \
              decide.",
    },
    Difference {
        mutations: &["line TRACE"],
        outcomes: ["405", "405", "forwarded"],
        why: "TRACE shows fields that a client must not see (RFC 9110 §9.3.8).",
    },
    Difference {
        mutations: &["chunk beyond 32 bits"],
        outcomes: ["408", "413", "504"],
        why: "A chunk that may come, and does not: given up after a second. nginx refuses what is \
              beyond its limit at once.",
    },
    Difference {
        mutations: &["length longer than all that comes", "chunk longer than all that comes"],
        outcomes: ["408", "closed", "504"],
        why: "Everybody waits for the rest and gives up after a second (for this test), each with a \
              status of its own.",
    },
    Difference {
        mutations: &["CL beyond 63 bits, *"],
        outcomes: ["413", "400", "400"],
        why: "A length that is well-formed, and more than is allowed.",
    },
    Difference {
        mutations: &["line target of 40 kB"],
        outcomes: ["414", "414", "forwarded"],
        why: "Longer than `max_header_size`, and than nginx's buffers; HAProxy had larger ones \
              here.",
    },
    Difference {
        mutations: &["connection Expect: nonsense"],
        outcomes: ["417", "forwarded", "forwarded, with expect"],
        why: "An expectation that nobody can meet: 417 (RFC 9110 §10.1.1).",
    },
    Difference {
        mutations: &["field of 40 kB"],
        outcomes: ["431", "400", "forwarded"],
        why: "Longer than `max_header_size`, and than nginx's buffers; HAProxy had larger ones \
              here.",
    },
    Difference {
        mutations: &["field three hundred of them"],
        outcomes: ["431", "forwarded", "400"],
        why: "More fields than 256, the engine's limit; HAProxy's is 101.",
    },
    Difference {
        mutations: &["TE twice, *", "TE chunked and identity, *"],
        outcomes: ["501", "400", "400"],
        why: "Nobody forwards two fields; the status says what is not supported.",
    },
    Difference {
        mutations: &["TE identity and chunked, *", "TE cow and chunked, *"],
        outcomes: ["501", "400", "422"],
        why: "Nobody forwards two fields; the statuses differ.",
    },
    Difference {
        mutations: &[
            "TE folded, alone",
            "TE folded, TE.CL",
            "TE folded with a tab, alone",
            "TE folded with a tab, TE.CL",
        ],
        outcomes: ["501", "400", "forwarded"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &["TE folded, CL.TE", "TE folded with a tab, CL.TE"],
        outcomes: ["501", "400", "forwarded, other body"],
        why: "Folded lines are refused (RFC 9112 §5.2). HAProxy joins them to one field.",
    },
    Difference {
        mutations: &[
            "TE xchunked, *",
            "TE chunked-x, *",
            "TE chunk, *",
            "TE identity, *",
            "TE chunked, identity, *",
            "TE chunked, chunked, *",
            "TE parameter, *",
            "TE quoted, *",
            "TE in single quotes, *",
            "TE empty value, *",
            "TE second colon, *",
            "TE byte 0xA0 before the value, *",
            "TE byte 0xFF behind the value, *",
        ],
        outcomes: ["501", "501", "400"],
        why: "Nobody forwards it: the coding is not exactly `chunked`. HAProxy calls it malformed.",
    },
    Difference {
        mutations: &["TE identity, chunked, *", "TE gzip, chunked, *", "TE comma before, *"],
        outcomes: ["501", "501", "422"],
        why: "Nobody forwards a second coding; HAProxy says 422.",
    },
    Difference {
        mutations: &["TE comma behind, *"],
        outcomes: ["501", "501", "forwarded, malformed: Transfer-Encoding"],
        why: "An empty element in a list of codings: not exactly `chunked`. HAProxy forwards it as \
              it came.",
    },
    Difference {
        mutations: &["end in the request line", "end in the fields"],
        outcomes: ["closed", "closed", "400"],
        why: "A head that breaks off gets no answer from us and nginx: nobody knows whether anybody \
              is left.",
    },
    Difference {
        mutations: &["line method in lower case", "line method of rare characters"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "A method is any token (RFC 9110 §9.1), and its case counts; nginx takes capital \
              letters, `_` and `-`.",
    },
    Difference {
        mutations: &["line target with %00"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "An escape like any other in RFC 3986, and a signature may cover it: forwarded byte \
              for byte.",
    },
    Difference {
        mutations: &["line target above the root"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "Dot segments are forwarded as received when they change no route; nginx refuses to \
              leave the root.",
    },
    Difference {
        mutations: &["Host only a dot", "Host two dots"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "Nobody's name, and well-formed in RFC 3986 §3.2.2; no site has it, unless `_` takes \
              every name, as here.",
    },
    Difference {
        mutations: &["CL white space around"],
        outcomes: ["forwarded", "400", "forwarded"],
        why: "White space around a value means nothing (RFC 9110 §5.5); nginx takes no tab there.",
    },
    Difference {
        mutations: &["TE white space around the value, alone"],
        outcomes: ["forwarded", "501", "forwarded"],
        why: "White space around a value means nothing (RFC 9110 §5.5); nginx takes the tab for a \
              part of the coding's name.",
    },
    Difference {
        mutations: &[
            "CL in HTTP/1.0",
            "CL in HTTP/1.0, kept alive",
            "line HTTP/1.0",
            "line HTTP/1.0, kept alive",
        ],
        outcomes: ["forwarded", "forwarded", "forwarded, as HTTP/1.0"],
        why: "An upstream gets HTTP/1.1 from us and from nginx; HAProxy keeps the client's version.",
    },
    Difference {
        mutations: &["connection Expect in HTTP/1.0"],
        outcomes: ["forwarded", "forwarded", "forwarded, as HTTP/1.0, with expect"],
        why: "We pass the expectation on, nginx meets it itself. HAProxy keeps the client's \
              version.",
    },
    Difference {
        mutations: &[
            "Host absolute target, same host",
            "Host absolute target, same host, https",
            "Host absolute target, scheme in upper case",
        ],
        outcomes: ["forwarded", "forwarded", "forwarded, other target"],
        why: "An upstream gets the path (RFC 9112 §3.2.1); HAProxy passes the whole URI on.",
    },
    Difference {
        mutations: &["CL underscore"],
        outcomes: ["forwarded", "forwarded", "forwarded, with content_length"],
        why: "An underscored name is another field, and dropped; HAProxy passes it on.",
    },
    Difference {
        mutations: &["connection keep-alive"],
        outcomes: ["forwarded", "forwarded", "forwarded, with keep-alive"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection TE: trailers"],
        outcomes: ["forwarded", "forwarded", "forwarded, with te"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["TE underscore, CL.TE"],
        outcomes: ["forwarded", "forwarded", "forwarded, with transfer_encoding"],
        why: "An underscored name is another field, and dropped (with `_` for `-` some servers \
              confuse the two); HAProxy passes it on. Without a length there is no body, and what \
              follows is refused.",
    },
    Difference {
        mutations: &["connection Upgrade: TLS", "connection Upgrade: nonsense"],
        outcomes: ["forwarded", "forwarded", "forwarded, with upgrade"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection Upgrade: h2c", "connection Upgrade: h2c, not nominated"],
        outcomes: [
            "forwarded",
            "forwarded, with http2-settings",
            "forwarded, with http2-settings and upgrade",
        ],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection Proxy"],
        outcomes: ["forwarded", "forwarded, with proxy", "forwarded, with proxy"],
        why: "Dropped: CGI programs take it for their own setting (httpoxy).",
    },
    Difference {
        mutations: &["connection Proxy-Authorization"],
        outcomes: ["forwarded", "forwarded, with proxy-authorization", "forwarded, with proxy-authorization"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection Proxy-Connection"],
        outcomes: ["forwarded", "forwarded, with proxy-connection", "forwarded, with proxy-connection"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection Trailer"],
        outcomes: ["forwarded", "forwarded, with trailer", "forwarded, with trailer"],
        why: "A field of this connection, or for this proxy, ends here (RFC 9110 §7.6.1, §11.7.2).",
    },
    Difference {
        mutations: &["connection nominates a field"],
        outcomes: ["forwarded", "forwarded, with x-nominated", "forwarded, with x-nominated"],
        why: "What `Connection` names ends here (RFC 9110 §7.6.1); the others pass it on.",
    },
    Difference {
        mutations: &["connection Upgrade: websocket"],
        outcomes: ["forwarded", "forwarded, without upgrade", "forwarded"],
        why: "WebSockets are forwarded as such, with body or without; nginx has to be told to, \
              HAProxy drops the upgrade of a request with a body. An upstream that does not upgrade \
              reads one request.",
    },
    Difference {
        mutations: &[
            "connection Upgrade: websocket with a body",
            "connection Upgrade: websocket with a chunked body",
        ],
        outcomes: ["forwarded", "forwarded, without upgrade", "forwarded, without upgrade"],
        why: "WebSockets are forwarded as such, with body or without; nginx has to be told to, \
              HAProxy drops the upgrade of a request with a body. An upstream that does not upgrade \
              reads one request.",
    },
    Difference {
        mutations: &["field rare characters in the name"],
        outcomes: ["forwarded", "forwarded, without x!#$%&'*+-.^`|~0", "forwarded"],
        why: "All of them are token characters (RFC 9110 §5.6.2). nginx drops names with other than \
              letters, digits and `-`.",
    },
    Difference {
        mutations: &["connection Expect twice"],
        outcomes: ["forwarded, with expect", "400", "forwarded, with expect"],
        why: "The same expectation twice is one; nginx takes one field only.",
    },
    Difference {
        mutations: &[
            "connection Expect: 100-continue",
            "connection Expect: 100-Continue",
            "connection Expect with GET",
        ],
        outcomes: ["forwarded, with expect", "forwarded", "forwarded, with expect"],
        why: "We pass the expectation on, so that the upstream can refuse before the body comes; \
              nginx meets it itself.",
    },
    Difference {
        mutations: &["TE underscore, alone"],
        outcomes: [
            "forwarded, without body",
            "forwarded, without body",
            "forwarded, with transfer_encoding, without body",
        ],
        why: "An underscored name is another field, and dropped (with `_` for `-` some servers \
              confuse the two); HAProxy passes it on. Without a length there is no body, and what \
              follows is refused.",
    },
    Difference {
        mutations: &["field underscore in the name"],
        outcomes: ["forwarded, without x_odd", "forwarded, without x_odd", "forwarded"],
        why: "Dropped: CGI-like servers read `X_A` as `X-A`. HAProxy passes it on.",
    },
];
