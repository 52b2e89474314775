//! What goes to the auth service, and what only looks like it.

use super::deployment::{MATRIX, deploy};
use crate::harness::{PASSWORD, Peer, federation, password_login};

/// The expression of the guide, `^/_matrix/client/(.*)/(login|logout|refresh)`, has no end and takes every path with such a word in
/// it. Proxies that match a decoded path take even more. In the wild as a Caddyfile, where everything else is a 404:
/// <https://github.com/element-hq/matrix-authentication-service/issues/3614>
#[test]
fn what_is_called_login_is_no_login() {
    let deployment = deploy();
    for (target, by) in [
        ("/_matrix/client/v3/login", "auth"),
        ("/_matrix/client/r0/login", "auth"),
        ("/_matrix/client/api/v1/login", "auth"),
        ("/_matrix/client/unstable/login?a=%2F", "auth"),
        ("/_matrix/client/v3/login/sso/redirect", "auth"),
        ("/_matrix/client/v3/login/sso/redirect/idp?redirectUrl=https%3A%2F%2Fx%2F", "auth"),
        ("/_matrix/client/v3/logout", "auth"),
        ("/_matrix/client/v3/logout/all", "auth"),
        ("/_matrix/client/v3/refresh", "auth"),
        ("/_matrix/client/v1/media/download/example.com/abc/login.png", "synapse"),
        ("/_matrix/client/v1/media/download/example.com/login", "synapse"),
        ("/_matrix/client/v1/media/download/example.com/abc/a%2Flogin", "synapse"),
        ("/_matrix/client/v1/media/thumbnail/example.com/refreshAbC?width=1&height=1", "synapse"),
        ("/_matrix/media/v3/download/example.com/logout/refresh", "synapse"),
        ("/_matrix/client/v3/rooms/!a:example.com/state/org.example/login", "synapse"),
        ("/_matrix/client/v3/rooms/!a:example.com/state/login", "synapse"),
        ("/_matrix/client/v3/rooms/!login:example.com/state/logout/refresh", "synapse"),
        ("/_matrix/client/v3/rooms/!a:example.com/send/login.event/login", "synapse"),
        ("/_matrix/client/v3/devices/login", "synapse"),
        ("/_matrix/client/v3/devices/refresh_me", "synapse"),
        ("/_matrix/client/v3/profile/@login:example.com/logout", "synapse"),
        ("/_matrix/client/v3/user/@a:example.com/account_data/logout", "synapse"),
        ("/_matrix/client/v3/sendToDevice/refresh/1", "synapse"),
        ("/_matrix/client/v3/room_keys/keys/!a:example.com/login", "synapse"),
        ("/_matrix/client/v3/directory/room/%23a:example.com%2Flogin", "synapse"),
        ("/_matrix/client/v3/pushrules/global/content/login", "synapse"),
        ("/_matrix/client/v3/loginx", "synapse"),
        ("/_matrix/client/v3/login.png", "synapse"),
        ("/_matrix/client/v3/refresh_token", "synapse"),
    ] {
        let answer = deployment.client(MATRIX).get(MATRIX, target).expect(200);
        assert_eq!(answer.json()["by"], by, "{target}");
        let upstream = if by == "auth" { &deployment.auth } else { &deployment.synapse };
        assert_eq!(upstream.requests().last().unwrap().target(), target);
    }
}

/// A route that matches `login` in more ways than its server understands sends passwords where nobody counts failures, or to a
/// Synapse that would say yes. Paths of Matrix are case-sensitive and have no final slash, so each odd form is either refused or
/// is the very same login, with the very same limits.
#[test]
fn odd_ways_to_write_login_are_no_second_door() {
    let alpha: &Peer = &federation().alpha;
    let host = "matrix.alpha.test";
    let token = alpha.log_in("odd");
    for (target, status) in [
        ("/_matrix/client/v3/login", 200),
        ("/_matrix/client/v3/login?a=b", 200),
        // The very same login, in the auth service.
        ("/_matrix/client/v3/login/", 200),
        ("/_matrix/client/v3/log%69n", 404),
        ("/%5fmatrix/client/v3/%6C%6F%67%69%6E", 404),
        // Synapse's, which knows of no such thing.
        ("/_matrix/client/v3/Login", 404),
        ("/_matrix/client/V3/login", 404),
        ("/_matrix/client/v3//login", 404),
        ("/_matrix/client/v3/login;a=1", 404),
        ("/_matrix/client/v3/login%3Fa", 404),
        ("/_matrix/client/v3/login%00", 404),
        ("/_matrix/client/v3/login%20", 404),
        // Nobody's.
        ("/_MATRIX/Client/V3/Login", 404),
        ("//_matrix/client/v3/login", 404),
        ("/_matrix/client/v3/./login", 400),
        ("/_matrix/client/v3/x/../login", 400),
        ("/_matrix/client/v3/login%2F", 400),
        ("/_matrix/client/v3%2Flogin", 400),
        ("/_matrix/client/v3\\login", 400),
    ] {
        let right = password_login("odd", PASSWORD);
        let answer = alpha.client("https", host).post(host, target, None, &right);
        assert_eq!(answer.status, status, "{target}: {}", answer.text());
        assert_eq!(answer.text().contains("access_token"), status == 200, "{target}");
        if status == 200 {
            let wrong = password_login("odd", "wrong");
            let refused = alpha.client("https", host).post(host, target, None, &wrong).expect(403);
            assert_eq!(refused.json()["errcode"], "M_FORBIDDEN");
        }
    }
    // Nor does an odd logout leave a session behind that looks ended.
    let authorization = format!("Authorization: Bearer {token}");
    let host_field = format!("Host: {host}");
    let whoami = || {
        let fields = [host_field.as_str(), authorization.as_str()];
        alpha.client("https", host).request("GET /_matrix/client/v3/account/whoami", &fields, b"").status
    };
    for (target, status) in [
        ("/_matrix/client/v3/Logout", 404),
        ("/_matrix/client/v3//logout", 404),
        ("/_matrix/client/v3/logou%74", 404),
        ("/_matrix/client/v3/./logout", 400),
    ] {
        let body = serde_json::json!({});
        let answer = alpha.client("https", host).post(host, target, Some(&token), &body);
        assert_eq!((answer.status, whoami()), (status, 200), "{target}: {}", answer.text());
    }
    let logout = "/_matrix/client/v3/logout/";
    alpha.client("https", host).post(host, logout, Some(&token), &serde_json::json!({})).expect(200);
    assert_eq!(whoami(), 401);
}
