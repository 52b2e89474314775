//! What is served, how, and what is not.

use http::HeaderName;
use http_body_util::BodyExt;

use super::*;

async fn bytes(response: Response) -> Bytes {
    response.into_body().collect().await.expect("a body").to_bytes()
}

fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn embedded_files_are_fingerprinted_compressed_and_immutable() {
    let assets = Assets::embedded().await.expect("assets");
    let name = assets.public_name("gatehouse.css");
    assert!(name.starts_with("gatehouse.") && name.ends_with(".css") && name.len() > 20, "{name}");

    let plain = assets.answer(name, &HeaderMap::new()).expect("the style sheet");
    assert_eq!(plain.headers()[header::CACHE_CONTROL], "public, max-age=31536000, immutable");
    assert_eq!(plain.headers()[header::CONTENT_TYPE], "text/css; charset=utf-8");
    assert_eq!(plain.headers()[header::VARY], "accept-encoding");
    let plain_tag = plain.headers()[header::ETAG].clone();
    let length = bytes(plain).await.len();

    let mut tags = vec![plain_tag];
    for encoding in ["br", "zstd", "gzip"] {
        let answer =
            assets.answer(name, &headers(&[(header::ACCEPT_ENCODING, encoding)])).expect("the style sheet");
        assert_eq!(answer.headers()[header::CONTENT_ENCODING], encoding);
        tags.push(answer.headers()[header::ETAG].clone());
        assert!(bytes(answer).await.len() < length, "{encoding}");
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each form has its own strong tag");
}

#[tokio::test]
async fn a_client_that_has_it_gets_304_without_a_body() {
    let assets = Assets::embedded().await.expect("assets");
    let name = assets.public_name("arch.svg");
    let etag = assets.answer(name, &HeaderMap::new()).expect("the icon").headers()[header::ETAG].clone();
    let answer =
        assets.answer(name, &HeaderMap::from_iter([(header::IF_NONE_MATCH, etag)])).expect("the icon");
    assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
    assert!(!answer.headers().contains_key(header::CONTENT_TYPE));
    assert!(bytes(answer).await.is_empty());
}

#[tokio::test]
async fn the_name_without_its_fingerprint_is_not_served() {
    let assets = Assets::embedded().await.expect("assets");
    assert!(assets.answer("gatehouse.css", &HeaderMap::new()).is_none());
    assert!(assets.answer("../Cargo.toml", &HeaderMap::new()).is_none());
    assert!(assets.answer("", &HeaderMap::new()).is_none());
}

#[tokio::test]
async fn a_folder_serves_its_files_and_their_compressed_neighbours_but_no_dot_files_or_links() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path();
    std::fs::create_dir(root.join("js")).expect("mkdir");
    std::fs::write(root.join("js/app.js"), "x".repeat(1000)).expect("write");
    std::fs::write(root.join("js/app.js.br"), "made by the build").expect("write");
    std::fs::write(root.join(".secret"), "no").expect("write");
    std::os::unix::fs::symlink("/etc/passwd", root.join("passwd")).expect("link");

    let assets = Assets::from_folder(root).await.expect("assets");
    let answer = assets.answer("js/app.js", &headers(&[(header::ACCEPT_ENCODING, "br")])).expect("app.js");
    assert_eq!(bytes(answer).await, "made by the build");
    let answer = assets.answer("js/app.js", &headers(&[(header::ACCEPT_ENCODING, "gzip")])).expect("app.js");
    assert_eq!(answer.headers()[header::CONTENT_ENCODING], "gzip");
    assert!(assets.answer(".secret", &HeaderMap::new()).is_none());
    assert!(assets.answer("passwd", &HeaderMap::new()).is_none());
    assert!(Assets::from_folder(&root.join("absent")).await.is_err());
}
