//! Takes secrets out of a request target before it is logged.

/// Appends the target with the values of secret query parameters replaced.
pub(super) fn target(target: &str, out: &mut Vec<u8>, push: impl Fn(&mut Vec<u8>, &str)) {
    let Some((path, query)) = target.split_once('?') else { return push(out, target) };
    push(out, path);
    let mut separator = "?";
    for part in query.split('&') {
        push(out, separator);
        separator = "&";
        match part.split_once('=') {
            Some((name, _)) if is_secret(name) => {
                push(out, name);
                push(out, "=<redacted>");
            }
            Some(_) | None => push(out, part),
        }
    }
}

/// Whether a parameter's value is a secret; the name is compared decoded and in lower case.
fn is_secret(name: &str) -> bool {
    if !name.contains('%') {
        return SECRETS.iter().any(|secret| secret.eq_ignore_ascii_case(name));
    }
    let decoded = decode(name.as_bytes());
    SECRETS.iter().any(|secret| decoded.eq_ignore_ascii_case(secret.as_bytes()))
}

fn decode(name: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let escape = if *first == b'%' { tail.get(..2) } else { None };
        let value = escape.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        decoded.push(value.unwrap_or(*first));
        rest = if value.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    decoded
}

/// Of Matrix, OAuth 2.0 and OpenID Connect; and what people call secrets.
const SECRETS: [&str; 16] = [
    "access_token",
    "loginToken",
    "login_token",
    "refresh_token",
    "id_token",
    "id_token_hint",
    "token",
    "code",
    "code_verifier",
    "device_code",
    "user_code",
    "client_secret",
    "client_assertion",
    "password",
    "secret",
    "as_token",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sent: &str, logged: &str) {
        let mut out = Vec::new();
        target(sent, &mut out, |out, text| out.extend_from_slice(text.as_bytes()));
        assert_eq!(String::from_utf8(out).unwrap(), logged);
    }

    #[test]
    fn secrets_are_replaced() {
        check("/a?access_token=x&b=c", "/a?access_token=<redacted>&b=c");
        check("/a?b&LOGINTOKEN=x=y", "/a?b&LOGINTOKEN=<redacted>");
        check("/a?access%5Ftoken=x", "/a?access%5Ftoken=<redacted>");
        check("/a?%63ode=x&state=y", "/a?%63ode=<redacted>&state=y");
    }

    #[test]
    fn everything_else_stays() {
        for target in ["/a", "/a?", "/a?b=c&&=", "/token=x", "/a?code", "/a?%=1&%zz=2"] {
            check(target, target);
        }
    }
}
