//! One reload: the files are read again, everything is prepared, and then put in force. What fails changes nothing.

use std::time::Instant;

use accept::{BoundSocket, Change, Changed, Sockets};
use conf::Bind;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::life::{Files, InForce};
use super::supervisor::Work;
use super::wire::Answer;
use super::{Fault, systemd};

/// Nothing that is prepared takes so long, unless it hangs: names are resolved within 10 s, a database is opened within 30 s.
pub(super) const DEADLINE: std::time::Duration = std::time::Duration::from_secs(60);

/// Reloads, and says in the log and to whoever asked what came of it.
pub(super) async fn reload<W: Work>(
    work: &W,
    files: &Files,
    sockets: &Sockets,
    in_force: &mut InForce,
) -> Answer {
    let began = Instant::now();
    systemd::notify_reloading();
    let prepared = timeout(DEADLINE, prepare(work, files, sockets, in_force)).await;
    let prepared =
        prepared.unwrap_or_else(|_| Err(Fault::new(format!("it took more than {} s", DEADLINE.as_secs()))));
    // Nothing may interrupt a commit: it has bounds of its own.
    let outcome = match prepared {
        Ok(prepared) => Ok(prepared.commit(work, in_force).await),
        Err(fault) => Err(fault),
    };
    systemd::notify_ready();
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    match outcome {
        Ok(report) => {
            let generation = in_force.generation;
            info!(generation, duration_ms, "configuration reloaded");
            let mut lines =
                vec![format!("configuration reloaded: generation {generation}, {duration_ms} ms")];
            lines.extend(report.lines());
            Answer::done(lines)
        }
        Err(fault) => {
            error!(duration_ms, "reload failed, the old configuration stays in force");
            // One line for each fault, with the lines that underline it.
            for fault in paragraphs(&fault.text) {
                error!(fault, "reload failed");
            }
            Answer::failed(&fault, Some("reload failed, the old configuration stays in force"))
        }
    }
}

/// What a reload changed.
struct Report {
    sockets: Changed,
    differences: Vec<conf::Difference>,
    warnings: conf::Report,
}

/// What a reload has opened and checked, and nobody has noticed yet.
struct Prepared<P> {
    change: Change,
    work: P,
    warnings: conf::Report,
    effective: String,
}

async fn prepare<W: Work>(
    work: &W,
    files: &Files,
    sockets: &Sockets,
    in_force: &InForce,
) -> Result<Prepared<W::Prepared>, Fault> {
    let mut change = sockets.change();
    let began = async {
        // It stays where it is, wherever `data_dir` leads now.
        if let Some(bind) = &in_force.control {
            bind_control(&mut change, bind).await?;
        }
        files.load().await
    };
    let loaded = began.await.inspect_err(|_| work.refused())?;
    let conf::Loaded { config, warnings, effective } = loaded;
    let work = work.prepare(config, &mut change).await?;
    Ok(Prepared { change, work, warnings, effective })
}

impl<P> Prepared<P> {
    async fn commit<W: Work<Prepared = P>>(self, work: &W, in_force: &mut InForce) -> Report {
        let Self { change, work: prepared, warnings, effective } = self;
        let sockets = change.commit();
        work.commit(prepared).await;
        let differences = conf::differences(&in_force.effective, &effective);
        in_force.effective = effective;
        in_force.generation += 1;
        Report { sockets, differences, warnings }
    }
}

impl Report {
    /// As log lines, and as lines for whoever asked.
    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (listener, address) in &self.sockets.opened {
            lines.push(format!("{listener} listens on {address}"));
        }
        for (listener, address) in &self.sockets.closed {
            lines.push(format!("{listener} does not listen on {address} any more"));
        }
        for difference in &self.differences {
            let needs_start = difference.key == THREADS;
            let rest = if needs_start { ": takes effect with `gatehouse upgrade` or a restart" } else { "" };
            lines.push(format!("{}{difference}{rest}", if needs_start { "warning: " } else { "" }));
        }
        if lines.is_empty() {
            lines.push("no setting has changed; files that it names were read again".to_owned());
        }
        for warning in &self.warnings.diagnostics {
            warn!(warning = %warning, "configuration");
            lines.extend(warning.to_string().lines().map(str::to_owned));
        }
        lines
    }
}

/// Fixed with the start of a process.
const THREADS: &str = "edge.threads";

/// The control socket, in a change.
///
/// # Errors
/// When it cannot be bound.
pub(super) async fn bind_control(change: &mut Change, bind: &Bind) -> Result<Option<BoundSocket>, Fault> {
    let bound = change.bind("control", bind, 1).await;
    bound.map(|bound| bound.sockets.into_iter().next()).map_err(|error| Fault::of(&error))
}

/// Faults of a report: each begins at the margin, and its further lines do not.
fn paragraphs(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in text.lines() {
        match all.last_mut() {
            Some(last) if line.starts_with([' ', '\t']) => {
                last.push('\n');
                last.push_str(line);
            }
            _ => all.push(line.to_owned()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_one_line_of_the_log() {
        let text = "a.yaml:1:2: edge: unknown key\n    edgy: {}\n    ^^^^\na.yaml:3:1: other";
        assert_eq!(
            paragraphs(text),
            ["a.yaml:1:2: edge: unknown key\n    edgy: {}\n    ^^^^", "a.yaml:3:1: other"]
        );
    }
}
