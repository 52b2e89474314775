//! `web_client`: the files of Element Web, Cinny or another web client, on a host of their own, with the caching and the security
//! headers that they need, and a `config.json` that knows this server.
//!
//! What is cached for good are names that change with their content: Element's `/bundles/<hash>/…` and `name.<hash>.ext`, and
//! `/assets/name-<hash>.ext` of clients built with Vite. Everything else is asked for again each time (`no-cache`, answered with 304).

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::expand::{deny, route};
use super::well_known::laid_over;
use super::{Authority, Preset};
use crate::reader::Item;
use crate::{Action, Encoding, Matcher, Respond, Route, StaticFiles};

/// `edge.matrix.web_client`, checked.
#[derive(Debug)]
pub(crate) struct WebClient {
    /// Where it is served, in lower case.
    pub(super) host: String,
    root: PathBuf,
    configuration: Configuration,
}

/// Where `/config.json` comes from.
#[derive(Debug)]
enum Configuration {
    /// A file called `config.json` in this folder: `root`, or where a link in it leads.
    In(PathBuf),
    /// Made from the preset, with members of the user's own.
    Made(Map<String, Json>),
}

/// The key as it is written; its host may depend on other keys.
#[derive(Debug)]
pub(super) struct Given<'a> {
    item: Item<'a>,
    root: PathBuf,
    host: Option<(Authority, Item<'a>)>,
    configuration: Configuration,
}

impl<'a> Given<'a> {
    /// Reads a folder, or `{root, host, config}`.
    pub(super) fn read(item: Item<'a>) -> Option<Self> {
        if !item.is_section() && !item.is_empty() {
            let root = read_root(&item)?;
            let configuration = Configuration::of(&root, &item);
            return Some(Self { item, root, host: None, configuration });
        }
        let mut section = item.section()?;
        let root_item = section.require("root", "name the folder with the client's index.html");
        let root = root_item.as_ref().and_then(read_root);
        let host = section.take("host").map_or(Some(None), |item| {
            let host = item.parse(Authority::parse)?;
            if host.port.is_some() {
                item.error("leave out the port, a site answers on every port of its listeners");
                return None;
            }
            Some(Some((host, item)))
        });
        let config = section.take_even_empty("config").map(|item| {
            let members = item.section()?.json()?;
            warn_of_two_servers(&item, &members);
            Some(members)
        });
        section.finish();
        let (root, root_item) = (root?, root_item?);
        let configuration = match config {
            Some(members) => Configuration::Made(members?),
            None => Configuration::of(&root, &root_item),
        };
        Some(Self { item, root, host: host?, configuration })
    }

    /// Settles where it is served, now that the other hosts are known.
    pub(super) fn settle(
        self,
        default: Authority,
        host: &Authority,
        auth_host: &Authority,
    ) -> Option<WebClient> {
        let place = self.host.as_ref().map_or(&self.item, |(_, item)| item);
        let name = self.host.as_ref().map_or(default, |(given, _)| given.clone()).name;
        if name == auth_host.name {
            place.error(format!(
                "`{name}` is where the auth service is: give the web client a host of its own"
            ));
            return None;
        }
        if name == host.name {
            place.warn(format!(
                "on `{name}` the web client shares its origin with Synapse, where a script in something that was uploaded could reach what the browser keeps for the client: give it a host of its own"
            ));
        }
        Some(WebClient { host: name, root: self.root, configuration: self.configuration })
    }
}

fn read_root(item: &Item<'_>) -> Option<PathBuf> {
    let root = item.file_path()?;
    if !root.is_dir() {
        item.warn(format!(
            "there is no folder {}, so every request for the web client is answered with 404",
            root.display()
        ));
    } else if !root.join(INDEX).is_file() {
        item.warn(format!("there is no {INDEX} in {}, is it the folder of a web client?", root.display()));
    }
    Some(root)
}

/// Element refuses to start when it is told its server in two ways.
fn warn_of_two_servers(item: &Item<'_>, members: &Map<String, Json>) {
    let old = OTHER_SERVERS.iter().find(|name| members.contains_key(**name));
    if let (Some(old), true) = (old, members.contains_key(SERVER)) {
        item.warn(format!("Element does not start with both `{old}` and `{SERVER}`, leave out the first"));
    }
}

impl Configuration {
    /// The file in the client's folder, if it has one. Debian's package of Element links it to `/etc`, outside of the folder.
    fn of(root: &Path, item: &Item<'_>) -> Self {
        let file = root.join("config.json");
        let Ok(target) = fs::canonicalize(&file) else { return Self::Made(Map::new()) };
        if let Err(why) = check_file(&target) {
            item.warn(format!("{} {why}, so the web client will not start", file.display()));
        }
        let is_named_so = target.file_name().is_some_and(|name| name == "config.json");
        match target.parent().filter(|_| is_named_so) {
            Some(folder) if !is_inside(&target, root) => Self::In(folder.to_owned()),
            Some(_) => Self::In(root.to_owned()),
            None => {
                if !is_inside(&target, root) {
                    item.warn(format!(
                        "{} is a link to a file of another name outside of the folder, which is not served: call the file config.json",
                        file.display()
                    ));
                }
                Self::In(root.to_owned())
            }
        }
    }
}

fn is_inside(target: &Path, root: &Path) -> bool {
    fs::canonicalize(root).is_ok_and(|root| target.starts_with(root))
}

fn check_file(path: &Path) -> Result<(), String> {
    // A pipe would be waited for.
    if !path.is_file() {
        return Err("is not a file".to_owned());
    }
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_CONFIG + 1).read_to_end(&mut text));
    read.map_err(|error| format!("cannot be read ({error})"))?;
    if text.len() as u64 > LARGEST_CONFIG {
        return Err("is far too large".to_owned());
    }
    match serde_json::from_slice::<Json>(&text) {
        Ok(Json::Object(_)) => Ok(()),
        Ok(_) => Err("is not a JSON object".to_owned()),
        Err(error) => Err(format!("is not JSON ({error})")),
    }
}

impl WebClient {
    /// All routes but the last, which takes the rest.
    pub(super) fn routes(&self, preset: &Preset) -> Vec<Route> {
        let mut routes = Vec::new();
        if self.host != preset.host.name {
            // Whoever looks for Synapse here should not be told the start of the client.
            routes.extend(["/_matrix/", "/_synapse/"].map(|prefix| deny(prefix, StatusCode::NOT_FOUND)));
        }
        routes.push(self.config(preset));
        routes.push(self.files(Matcher::Path("/version".to_owned()), "/version", &self.root, None, false));
        if let Ok(regex) = Regex::new(HASHED) {
            routes.push(self.files(Matcher::Regex(regex), HASHED, &self.root, Some(YEAR), false));
        }
        if let (true, Ok(regex)) = (self.root.join("olm.wasm").is_file(), Regex::new(OLM)) {
            let location = "/olm.wasm".to_owned();
            let action = Action::Redirect { location, status: StatusCode::PERMANENT_REDIRECT };
            routes.push(Route { headers: security(), ..route(OLM, Matcher::Regex(regex), action) });
        }
        routes
    }

    /// The client itself, also for addresses that only it understands.
    pub(super) fn rest(&self) -> Route {
        self.files(Matcher::Prefix("/".to_owned()), "/", &self.root, None, true)
    }

    fn config(&self, preset: &Preset) -> Route {
        let matcher = Matcher::Path("/config.json".to_owned());
        match &self.configuration {
            Configuration::In(folder) => self.files(matcher, "/config.json", folder, None, false),
            Configuration::Made(members) => {
                let body = serde_json::to_string(&made(preset, members)).unwrap_or_default();
                let headers = HeaderMap::from_iter([
                    (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
                    (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                ]);
                let action = Action::Respond(Respond { status: StatusCode::OK, headers, body });
                Route {
                    methods: Some(vec![Method::GET, Method::HEAD]),
                    headers: security(),
                    ..route("/config.json", matcher, action)
                }
            }
        }
    }

    fn files(
        &self,
        matcher: Matcher,
        name: &str,
        root: &Path,
        expires: Option<Duration>,
        is_page: bool,
    ) -> Route {
        let index = is_page.then(|| INDEX.to_owned());
        // A compressed config.json may be one from before somebody changed it.
        let precompressed = match matcher.matches("/config.json") && !is_page {
            true => Vec::new(),
            false => vec![Encoding::Brotli, Encoding::Zstd, Encoding::Gzip],
        };
        let files = StaticFiles {
            root: root.to_owned(),
            strip_prefix: "/".to_owned(),
            precompressed,
            expires,
            fallback: index.clone(),
            index,
        };
        Route { headers: security(), ..route(name, matcher, Action::Static(files)) }
    }
}

/// What Element and Cinny want to know; each passes over the other's members.
fn made(preset: &Preset, members: &Map<String, Json>) -> Map<String, Json> {
    let base_url = format!("https://{}", preset.host);
    // Cinny looks for the well-known document there, and takes the host itself if there is none.
    let server = match preset.is_delegated() {
        true => preset.server_name.clone(),
        false => preset.host.to_string(),
    };
    let mut made = Map::new();
    if !OTHER_SERVERS.iter().any(|name| members.contains_key(*name)) {
        let server_name = &preset.server_name;
        made.insert(
            SERVER.to_owned(),
            json!({ "m.homeserver": { "base_url": base_url, "server_name": server_name } }),
        );
    }
    made.insert("defaultHomeserver".to_owned(), json!(0));
    made.insert("homeserverList".to_owned(), json!([server]));
    made.insert("allowCustomHomeservers".to_owned(), json!(true));
    laid_over(made, members)
}

/// As the clients' makers recommend: in no foreign frame, types as they are said, and other servers learn no more than the origin.
/// Not the origin's path, since Cinny's has the names of rooms; but the origin, which embedded players ask for.
fn security() -> HeaderMap {
    let field = |(name, value)| (name, HeaderValue::from_static(value));
    let fields: [(HeaderName, &'static str); 4] = [
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'self'"),
        (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
    ];
    fields.map(field).into_iter().collect()
}

const INDEX: &str = "index.html";
const SERVER: &str = "default_server_config";
const OTHER_SERVERS: [&str; 2] = ["default_server_name", "default_hs_url"];

/// Names with a hash of the content: a folder of Element's bundles, a file as Vite calls it, a file as Element's webpack calls it.
const HASHED: &str = r"^/(bundles/[0-9a-f]{8,}/|(.+/)?assets/[^/]+-[0-9A-Za-z_-]{8}\.[0-9a-z]+$|.+\.[0-9a-f]{7,32}\.[0-9a-z]+$)";

/// Cinny looks for it beside whatever page it is on.
const OLM: &str = r"^/.+/olm\.wasm$";

/// Far more than all settings of a client.
const LARGEST_CONFIG: u64 = 1 << 20;

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_hash_are_kept_for_good() {
        let hashed = Regex::new(HASHED).unwrap();
        for name in [
            "/bundles/0123456789abcdef0123/bundle.js",
            "/bundles/0123456789abcdef0123/0.wasm",
            "/i18n/de_DE.1a2b3c4.json",
            "/fonts/Inter-Regular.c8ba521.woff2",
            "/img/warning.1234567.svg",
            "/opus-encoderWorker.min.4f0a5b1.js",
            "/assets/index-BCfQ_x2d.js",
            "/assets/matrix_sdk_crypto_wasm_bg-DHkP8-Ia.wasm",
            "/widgets/element-call/assets/index-Dk3jf92L.css",
        ] {
            assert!(hashed.is_match(name), "{name}");
        }
        for name in [
            "/",
            "/index.html",
            "/config.json",
            "/config.chat.example.com.json",
            "/version",
            "/sw.js",
            "/i18n/languages.json",
            "/manifest.json",
            "/bundles/",
            "/bundles/x/bundle.js",
            "/decoderWorker.min.wasm",
            "/olm.wasm",
            "/assets/logo.svg",
            "/assets/assets/images/icon-favourite.png",
            "/public/res/android/android-chrome-144x144.png",
            "/themes/element/img/logos/element-logo.svg",
            "/media/message.ogg",
        ] {
            assert!(!hashed.is_match(name), "{name}");
        }
    }
}
