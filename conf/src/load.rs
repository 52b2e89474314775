//! From files to a checked [`Config`].

use std::path::PathBuf;
use std::time::SystemTime;

use crate::auth::{self, unused_sections};
use crate::edge::OpenEdge;
use crate::effective;
use crate::preset::DEBIANS_SYNAPSE;
use crate::reader::{Context, Item};
use crate::report::{Report, Severity};
use crate::source::{Node, Sources, Span, merge};
use crate::{Auth, Config};

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    /// What is worth reading all the same; no errors among it.
    pub warnings: Report,
    /// The whole configuration as YAML: presets expanded, defaults filled in, secrets `<redacted>`.
    pub effective: String,
}

/// Loads files in this order: maps merge, lists append, other values of later files replace earlier ones.
///
/// Certificates are judged by the system's clock; [`load_at`] takes the time as an argument. With the preset, the configuration of a
/// Synapse that Debian's package installed on this machine is looked at.
///
/// # Errors
/// Every fault of every file, with its place, and the warnings among them.
pub fn load(paths: &[PathBuf]) -> Result<Loaded, Report> {
    #[expect(clippy::disallowed_methods, reason = "the one place where the crate asks for the time")]
    let now = SystemTime::now();
    load_in(paths, now, DEBIANS_SYNAPSE.map(PathBuf::from).into())
}

/// [`load`], with the time by which certificates are judged, and without a look at files that the configuration does not name.
///
/// # Errors
/// As [`load`].
pub fn load_at(paths: &[PathBuf], now: SystemTime) -> Result<Loaded, Report> {
    load_in(paths, now, Vec::new())
}

fn load_in(paths: &[PathBuf], now: SystemTime, synapse_files: Vec<PathBuf>) -> Result<Loaded, Report> {
    let mut sources = Sources::default();
    let read: Vec<_> = paths.iter().map(|path| (path, sources.read(path))).collect();
    let context = Context::new(sources, now, synapse_files);
    let mut merged: Option<Node> = None;
    for (path, result) in read {
        match (result, &mut merged) {
            (Err(fault), _) => context.fault(path, fault),
            (Ok(node), Some(base)) => merge(base, node),
            (Ok(node), None) => merged = Some(node),
        }
    }
    let broken = context.report().has_errors();
    let config = match &merged {
        // After a fault of YAML itself every other complaint would be about what could not be read.
        Some(node) if !broken => read_config(&context, node),
        Some(_) => None,
        None if broken => None,
        None => {
            let message = "no configuration file is given".to_owned();
            context.find(Severity::Error, None, "", message, &[]);
            None
        }
    };
    let report = context.report();
    match config {
        Some((config, encryption_file)) if !report.has_errors() => {
            let effective = effective::print(&config, encryption_file.as_deref());
            Ok(Loaded { config, warnings: report, effective })
        }
        Some(_) | None => Err(report),
    }
}

/// `$GATEHOUSE_CONFIG`, separated by `:`, else `gatehouse.yaml` in the current folder.
pub fn default_paths() -> Vec<PathBuf> {
    match std::env::var_os("GATEHOUSE_CONFIG").filter(|paths| !paths.is_empty()) {
        Some(paths) => std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => vec![PathBuf::from("gatehouse.yaml")],
    }
}

/// The configuration, and the file of the encryption secret if it came from one.
fn read_config(context: &Context, node: &Node) -> Option<(Config, Option<PathBuf>)> {
    let mut root = Item::root(context, node).section()?;
    let data_dir = match root.take("data_dir") {
        Some(item) => item.file_path(),
        None => Some(PathBuf::from(DATA_DIR)),
    };
    let assumed = data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR));
    let edge_item = root.take_even_empty("edge");
    let mut open = edge_item.as_ref().map(OpenEdge::open);

    let preset = open.as_ref().and_then(|open| open.as_ref()?.preset.as_ref());
    let has_preset = open.as_ref().is_some_and(|open| open.as_ref().is_none_or(OpenEdge::has_preset));
    let bundled = preset.is_some_and(|preset| preset.bundled);
    let wanted = root.take("http").is_some() || root.take("matrix").is_some() || bundled;
    let auth: Option<Option<(Auth, Option<PathBuf>)>> = if wanted {
        auth::read(&mut root, preset, &assumed).map(Some)
    } else {
        auth::take_unserved(&mut root, has_preset);
        Some(None)
    };
    unused_sections(&mut root);

    let listeners = auth.iter().flatten().next().map(|(auth, _)| auth.http.listeners.as_slice());
    let edge = match open.take() {
        Some(open) => open.and_then(|open| open.finish(listeners)).map(Some),
        None => Some(None),
    };
    if edge_item.is_none() && !wanted {
        let message = "there is nothing to run: give `edge`, or `http` and `matrix`, or both";
        let whole = Span { width: 0, ..root.item.span() };
        context.find(Severity::Error, Some(whole), "", message.to_owned(), &[]);
    }
    root.finish();
    let (auth, encryption_file) = auth?.unzip();
    Some((Config { data_dir: data_dir?, edge: edge?, auth }, encryption_file.flatten()))
}

/// Where Debian's users look for the state of a service.
const DATA_DIR: &str = "/var/lib/gatehouse";

#[cfg(test)]
mod tests;
