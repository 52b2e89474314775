//! Which URLs there are, and how others are refused.

use super::*;

fn all() -> Vec<Resource> {
    vec![
        Resource::Discovery,
        Resource::Human,
        Resource::Oauth,
        Resource::Compat,
        Resource::Graphql,
        Resource::Assets { path: None },
        Resource::AdminApi,
        Resource::Health,
        Resource::Prometheus,
        Resource::ConnectionInfo,
    ]
}

#[tokio::test]
async fn discovery_names_what_synapse_needs_and_only_what_exists() {
    let running = Running::start(tcp(&[Resource::Discovery])).await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let answer = running.get(path, "").await;
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        let metadata = answer.json();
        assert_eq!(metadata["issuer"], "https://auth.example.com/");
        assert_eq!(metadata["account_management_uri"], "https://auth.example.com/account/");
        assert_eq!(metadata["introspection_endpoint"], "https://auth.example.com/oauth2/introspect");
        assert!(metadata.get("authorization_endpoint").is_none());
    }
}

#[tokio::test]
async fn webfinger_knows_the_issuer_of_everything() {
    let running = Running::start(tcp(&[Resource::Discovery])).await;
    let relation = "http%3A%2F%2Fopenid.net%2Fspecs%2Fconnect%2F1.0%2Fissuer";
    for (query, links) in [("", 1), ("&rel=other", 0), (&format!("&rel=other&rel={relation}"), 1)] {
        let answer =
            running.get(&format!("/.well-known/webfinger?resource=acct%3Aa%40example.com{query}"), "").await;
        assert_eq!(answer.header("content-type"), Some("application/jrd+json"));
        assert_eq!(answer.json()["subject"], "acct:a@example.com");
        assert_eq!(answer.json()["links"].as_array().map(Vec::len), Some(links), "{query}");
    }
    assert_eq!(running.get("/.well-known/webfinger", "").await.status, 400);
}

#[tokio::test]
async fn a_path_that_is_not_carried_is_refused_in_the_manner_of_its_caller() {
    let running = Running::start(tcp(&[Resource::Health])).await;
    let matrix = running.get("/_matrix/client/v3/login", "").await;
    assert_eq!((matrix.status, matrix.json()["errcode"].as_str()), (404, Some("M_UNRECOGNIZED")));
    assert_eq!(matrix.header("access-control-allow-origin"), Some("*"));
    let oauth = running.request("POST", "/oauth2/token").await;
    assert_eq!((oauth.status, oauth.json()["error"].as_str()), (404, Some("not_found")));
    let admin = running.get("/api/admin/v1/users", "").await;
    assert_eq!((admin.status, admin.json()["errors"][0]["title"].as_str()), (404, Some("no such endpoint")));
    let page = running.get("/login", "").await;
    assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").is_some_and(|policy| !policy.contains("unsafe")));
    assert_eq!(page.header("access-control-allow-origin"), None);
    assert!(!page.body.contains("style="), "no inline styles");
}

#[tokio::test]
async fn resources_whose_place_is_empty_are_accepted_and_answer_404() {
    let running = Running::start(tcp(&all())).await;
    for path in ["/login", "/graphql", "/api/spec.json", "/account/", "/oauth2/registration"] {
        assert_eq!(running.get(path, "").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn compat_and_introspection_are_where_clients_and_synapse_look() {
    let running = Running::start(tcp(&all())).await;
    for version in ["r0", "v1", "v3", "api/v1", "unstable"] {
        let answer = running.get(&format!("/_matrix/client/{version}/login"), "").await;
        assert!(answer.json()["flows"].is_array(), "{version}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    let stranger = running.request("POST", "/oauth2/introspect").await;
    assert_eq!(stranger.status, 401, "{}", stranger.body);
}

#[tokio::test]
async fn everything_lies_below_the_prefix() {
    let listener = AuthListener {
        prefix: "/auth".into(),
        ..tcp(&[Resource::Discovery, Resource::Health, Resource::Health])
    };
    let running = Running::start(listener).await;
    assert_eq!(running.get("/auth/health", "").await.body, "ok\n");
    assert_eq!(running.get("/health", "").await.status, 404);
    let matrix = running.get("/auth/_matrix/client/v3/login", "").await;
    assert_eq!(matrix.json()["errcode"], "M_UNRECOGNIZED");
    let wrong = running.request("DELETE", "/auth/.well-known/openid-configuration").await;
    assert_eq!((wrong.status, wrong.json()["error"].as_str()), (405, Some("invalid_request")));
    assert_eq!(wrong.header("allow"), Some("get,head"));
}

#[tokio::test]
async fn browsers_may_ask_apis_from_anywhere() {
    let running = Running::start(tcp(&all())).await;
    for path in [
        "/_matrix/client/v3/login",
        "/oauth2/token",
        "/.well-known/openid-configuration",
        "/_matrix/whatever",
    ] {
        let answer = running.request("OPTIONS", path).await;
        assert_eq!(answer.status, 204, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert!(
            answer
                .header("access-control-allow-headers")
                .is_some_and(|names| names.contains("authorization"))
        );
        assert_eq!(answer.header("access-control-max-age"), Some("3600"));
    }
    assert_ne!(running.request("OPTIONS", "/login").await.status, 204, "pages are not for other sites");
}

#[tokio::test]
async fn assets_are_found_through_the_page_and_a_head_has_no_body() {
    let running = Running::start(tcp(&all())).await;
    let page = running.get("/nowhere", "").await.body;
    let link = page.split('"').find(|part| part.starts_with("/assets/gatehouse.")).expect("a style sheet");
    let style = running.get(link, "").await;
    assert_eq!((style.status, style.header("content-type")), (200, Some("text/css; charset=utf-8")));
    let head = running.request("HEAD", link).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), style.header("content-length"));
    let cached =
        running.get(link, &format!("If-None-Match: {}\r\n", style.header("etag").expect("a tag"))).await;
    assert_eq!(cached.status, 304);
    assert_eq!(running.get("/assets/..%2f..%2fetc/passwd", "").await.status, 404);
}

#[tokio::test]
async fn metrics_count_what_was_answered() {
    let running = Running::start(tcp(&all())).await;
    running.get("/nowhere", "").await;
    let metrics = running.get("/metrics", "").await.body;
    assert!(metrics.contains("gatehouse_auth_requests_total{status=\"4xx\"} 1\n"), "{metrics}");
    assert!(metrics.contains("gatehouse_auth_outbox_jobs 0\n"), "{metrics}");
    assert!(metrics.contains("gatehouse_auth_logins_total{result=\"ok\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_database_that_is_gone_is_not_healthy() {
    let running = Running::start(tcp(&[Resource::Health])).await;
    assert_eq!(running.get("/health", "").await.status, 200);
    running.fixture.state.storage.close().await;
    assert_eq!(running.get("/health", "").await.status, 503);
}

#[tokio::test]
async fn secrets_are_not_shown_back() {
    let running = Running::start(tcp(&[Resource::ConnectionInfo])).await;
    let info = running
        .get("/connection-info", "Authorization: Bearer abc\r\nCookie: s=abc\r\nX-Test: shown\r\n")
        .await;
    assert!(!info.body.contains("abc"), "{}", info.body);
    assert_eq!(info.json()["headers"]["x-test"], "shown");
    assert_eq!(info.json()["tls"], Value::Null);
}
