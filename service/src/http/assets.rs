//! `/assets/*`: style sheet and icon of the pages, embedded in the program or read once from a folder.
//!
//! Everything is compressed and hashed when the service starts, so that a request is a look-up in a map: no path of a request ever
//! reaches the file system. Embedded files carry a fingerprint in their name; a folder's files are expected to (as build tools do it).

mod folder;
mod negotiate;

use std::collections::HashMap;
use std::io;

use async_compression::Level;
use async_compression::brotli::EncoderParams;
use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use conf::Encoding;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

pub use folder::FolderError;
pub use negotiate::encoding_for;

/// A year: the name changes when the content does.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// What is embedded: name and content.
const EMBEDDED: [(&str, &[u8]); 2] = [
    ("gatehouse.css", include_bytes!("../../assets/gatehouse.css")),
    ("arch.svg", include_bytes!("../../assets/arch.svg")),
];

/// Files by the path below `/assets/`, ready to be sent.
#[derive(Debug, Default)]
pub struct Assets {
    files: HashMap<String, Asset>,
    /// Embedded name → name with fingerprint.
    fingerprinted: HashMap<&'static str, String>,
}

#[derive(Debug)]
struct Asset {
    content_type: HeaderValue,
    /// The file as it is first, then its smaller forms.
    plain: Representation,
    encoded: Vec<(Encoding, Representation)>,
}

#[derive(Debug)]
struct Representation {
    etag: HeaderValue,
    body: Bytes,
}

impl Assets {
    /// The embedded files, as `name.<fingerprint>.ext`.
    ///
    /// # Errors
    /// When compressing fails, which happens only without memory.
    pub async fn embedded() -> io::Result<Self> {
        let mut assets = Self::default();
        for (name, content) in EMBEDDED {
            let fingerprint = &hex::encode(Sha256::digest(content))[..12];
            let public = match name.rsplit_once('.') {
                Some((stem, extension)) => format!("{stem}.{fingerprint}.{extension}"),
                None => format!("{name}.{fingerprint}"),
            };
            assets
                .files
                .insert(public.clone(), Asset::compress(&public, Bytes::from_static(content), &[]).await?);
            assets.fingerprinted.insert(name, public);
        }
        Ok(assets)
    }

    /// The name under which an embedded file is served: `gatehouse.css` → `gatehouse.<fingerprint>.css`.
    pub fn public_name<'a>(&'a self, name: &'a str) -> &'a str {
        self.fingerprinted.get(name).map_or(name, String::as_str)
    }

    /// The answer to a GET for `path` (what follows `/assets/`), or `None` when there is no such file.
    pub fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let asset = self.files.get(path)?;
        let available: Vec<Encoding> = asset.encoded.iter().map(|(encoding, _)| *encoding).collect();
        let encoding = encoding_for(headers, &available);
        let chosen = asset
            .encoded
            .iter()
            .find(|(candidate, _)| Some(*candidate) == encoding)
            .map_or(&asset.plain, |(_, representation)| representation);

        let mut answer = HeaderMap::new();
        answer.insert(header::CACHE_CONTROL, IMMUTABLE);
        answer.insert(header::ETAG, chosen.etag.clone());
        answer.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        answer.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        if negotiate::already_has(headers, &chosen.etag) {
            return Some((StatusCode::NOT_MODIFIED, answer).into_response());
        }
        answer.insert(header::CONTENT_TYPE, asset.content_type.clone());
        if let Some(encoding) = encoding {
            answer.insert(header::CONTENT_ENCODING, HeaderValue::from_static(negotiate::token(encoding)));
        }
        Some((answer, Body::from(chosen.body.clone())).into_response())
    }
}

impl Asset {
    /// Keeps the forms that are given, makes the missing ones where it pays.
    async fn compress(name: &str, content: Bytes, given: &[(Encoding, Bytes)]) -> io::Result<Self> {
        let content_type = content_type(name);
        let fingerprint = hex::encode(&Sha256::digest(&content)[..16]);
        let representation = |suffix: &str, body: Bytes| -> io::Result<Representation> {
            let etag =
                HeaderValue::from_str(&format!("\"{fingerprint}{suffix}\"")).map_err(io::Error::other)?;
            Ok(Representation { etag, body })
        };
        let mut encoded = Vec::new();
        for encoding in [Encoding::Brotli, Encoding::Zstd, Encoding::Gzip] {
            let body = match given.iter().find(|(candidate, _)| *candidate == encoding) {
                Some((_, body)) => body.clone(),
                None if compressible(name) => compress(encoding, &content).await?,
                None => continue,
            };
            if body.len() < content.len() {
                encoded.push((encoding, representation(&format!("-{}", negotiate::token(encoding)), body)?));
            }
        }
        Ok(Self { content_type, plain: representation("", content)?, encoded })
    }
}

async fn compress(encoding: Encoding, content: &[u8]) -> io::Result<Bytes> {
    // The slow levels cost seconds from about this size on, and hardly win anything.
    let level = if content.len() < 256 * 1024 { Level::Best } else { Level::Default };
    let mut out = Vec::new();
    match encoding {
        Encoding::Brotli => {
            // A window larger than the file costs a second of clearing memory, and is good for nothing.
            let window = usize::BITS - content.len().leading_zeros();
            let parameters =
                EncoderParams::default().quality(level).window_size(window.clamp(10, 22).cast_signed());
            let mut encoder = BrotliEncoder::with_params(&mut out, parameters);
            encoder.write_all(content).await?;
            encoder.shutdown().await?;
        }
        Encoding::Zstd => {
            // The highest levels take hundreds of megabytes to begin with.
            let mut encoder = ZstdEncoder::with_quality(&mut out, Level::Precise(12));
            encoder.write_all(content).await?;
            encoder.shutdown().await?;
        }
        Encoding::Gzip => {
            let mut encoder = GzipEncoder::with_quality(&mut out, level);
            encoder.write_all(content).await?;
            encoder.shutdown().await?;
        }
    }
    Ok(out.into())
}

fn extension(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(_, extension)| extension)
}

fn compressible(name: &str) -> bool {
    matches!(
        extension(name),
        "css"
            | "js"
            | "mjs"
            | "json"
            | "map"
            | "svg"
            | "txt"
            | "html"
            | "xml"
            | "webmanifest"
            | "wasm"
            | "ttf"
            | "ico"
    )
}

fn content_type(name: &str) -> HeaderValue {
    HeaderValue::from_static(match extension(name) {
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "svg" => "image/svg+xml",
        "html" => "text/html; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "xml" => "application/xml",
        "wasm" => "application/wasm",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        _ => "application/octet-stream",
    })
}

#[cfg(test)]
mod tests;
