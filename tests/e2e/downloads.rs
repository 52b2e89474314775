//! Files as a real client fetches them, curl over HTTP/1.1 and HTTP/2: whole, resumed, in parts, compressed, known already.

use std::fs;
use std::process::Command;

use super::harness::{Certificates, Curl, Folder, Gatehouse};

const HOST: &str = "auth.example.com";
/// Not a multiple of anything.
const LARGE_BYTES: u32 = 5_000_011;

struct Downloads {
    curl: Curl,
    folder: Folder,
    _edge: Gatehouse,
}

fn start() -> Downloads {
    let folder = Folder::new();
    let large: Vec<u8> =
        (0..LARGE_BYTES).map(|index| index.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    folder.write("share/large.bin", large);
    let script = folder.write("share/app.js", "let x = 'the same over and over';\n".repeat(500));
    assert!(Command::new("gzip").args(["-k", "-9"]).arg(script).status().unwrap().success());
    let certificates = Certificates::new(&folder, &[HOST]);
    let yaml = format!(
        r#"
edge:
  listeners: [{{name: https, binds: [{{address: "127.0.0.1:0"}}], tls: true}}]
  {tls}
  sites:
    - hosts: [{HOST}]
      routes:
        - {{prefix: /assets/, static: {{root: "{root}", precompressed: [br, zstd, gzip], expires: 1d}}}}
"#,
        tls = certificates.yaml(),
        root = folder.join("share").display(),
    );
    let mut edge = Gatehouse::start(&folder, &yaml);
    Downloads { curl: edge.curl("https", &certificates.ca), folder, _edge: edge }
}

impl Downloads {
    /// What curl says of `%{http_version} %{http_code} %{size_download}`; the body is in the file `out`.
    fn fetch(&self, version: &str, name: &str, arguments: &[&str]) -> String {
        let (out, url) = (self.folder.join("out"), format!("https://{HOST}:{{edge}}/assets/{name}"));
        let wanted = [
            version,
            "-o",
            out.to_str().unwrap(),
            "-w",
            "%{http_version} %{http_code} %{size_download}",
            &url,
        ];
        self.curl.run(&[HOST], &[&wanted, arguments].concat())
    }

    fn out(&self) -> Vec<u8> {
        fs::read(self.folder.join("out")).unwrap()
    }

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.folder.join("share").join(name)).unwrap()
    }

    fn check(&self, name: &str, arguments: &[&str], code_and_size: &str) {
        for (version, number) in [("--http1.1", "1.1"), ("--http2", "2")] {
            let _ = fs::remove_file(self.folder.join("out"));
            let said = self.fetch(version, name, arguments);
            assert_eq!(said, format!("{number} {code_and_size}"), "{name} {arguments:?}");
        }
    }
}

#[test]
fn a_large_file_arrives_whole() {
    let downloads = start();
    downloads.check("large.bin", &[], &format!("200 {LARGE_BYTES}"));
    assert!(downloads.out() == downloads.file("large.bin"));
    downloads.check("large.bin", &["--head"], "200 0");
}

#[test]
fn a_download_that_broke_off_is_resumed() {
    let downloads = start();
    let large = downloads.file("large.bin");
    for version in ["--http1.1", "--http2"] {
        downloads.folder.write("out", &large[..3_000_000]);
        let said = downloads.fetch(version, "large.bin", &["-C", "-"]);
        assert!(said.ends_with(" 206 2000011"), "{said}");
        assert!(downloads.out() == large);
    }
}

#[test]
fn parts_of_a_file_arrive() {
    let downloads = start();
    let large = downloads.file("large.bin");
    downloads.check("large.bin", &["-r", "-1000"], "206 1000");
    assert!(downloads.out() == large[large.len() - 1000..]);
    let beyond = downloads.fetch("--http2", "large.bin", &["-r", "5000011-", "-f"]);
    assert!(beyond.starts_with("2 416 "), "{beyond}");
    let said = downloads.fetch("--http2", "large.bin", &["-r", "10-19,1000000-1999999"]);
    assert!(said.starts_with("2 206 "), "{said}");
    let multipart = downloads.out();
    let has = |part: &[u8]| multipart.windows(part.len()).any(|window| window == part);
    assert!(has(&large[10..20]) && has(&large[1_000_000..2_000_000]));
    assert!(has(b"Content-Range: bytes 1000000-1999999/5000011\r\n"));
}

#[test]
fn a_compressed_file_decodes_to_the_plain_one() {
    let downloads = start();
    let compressed = downloads.file("app.js.gz").len();
    downloads.check("app.js", &["--compressed"], &format!("200 {compressed}"));
    assert_eq!(downloads.out(), downloads.file("app.js"));
    downloads.check(
        "app.js",
        &["-H", "Accept-Encoding: br, gzip;q=0"],
        &format!("200 {}", downloads.file("app.js").len()),
    );
}

#[test]
fn what_is_known_already_is_not_sent_again() {
    let downloads = start();
    let tag = downloads.folder.join("etag");
    let tag = tag.to_str().unwrap();
    downloads.check("large.bin", &["--etag-save", tag], &format!("200 {LARGE_BYTES}"));
    downloads.check("large.bin", &["--etag-compare", tag], "304 0");
    let file = downloads.folder.join("share/large.bin");
    downloads.check("large.bin", &["-z", file.to_str().unwrap()], "304 0");
    fs::rename(downloads.folder.write("next", "new"), file).unwrap();
    downloads.check("large.bin", &["--etag-compare", tag], "200 3");
}

#[test]
fn a_file_that_is_replaced_while_it_is_sent_stays_the_old_one() {
    let downloads = start();
    let old = downloads.file("large.bin");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| downloads.fetch("--http2", "large.bin", &["--limit-rate", "4M"]));
        let out = downloads.folder.join("out");
        while !fs::metadata(&out).is_ok_and(|out| out.len() > 0) && !slow.is_finished() {
            std::thread::yield_now();
        }
        fs::rename(downloads.folder.write("next", "new"), downloads.folder.join("share/large.bin")).unwrap();
        assert_eq!(slow.join().unwrap(), format!("2 200 {LARGE_BYTES}"));
    });
    assert!(downloads.out() == old);
    downloads.check("large.bin", &[], "200 3");
}
