//! The beginning of a process's life: signals, the sockets of a former process, the configuration, and whatever serves opened with both.
//! The rest is in `supervisor`.

use std::env;
use std::path::{Path, PathBuf};

use accept::{BoundSocket, Change, Sockets};
use conf::Bind;
use tokio::sync::watch;
use tracing::warn;

use super::Fault;
use super::former::Former;
use super::program::{Program, TAKE_OVER_VARIABLE};
use super::reload::bind_control;
use super::signals::{self, Wishes};

/// How a process is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration files.
    pub files: Vec<PathBuf>,
    /// Name of the control socket in `data_dir`.
    pub control: &'static str,
    /// Whether to take over from a process that runs.
    pub take_over: TakeOver,
}

/// Whether to take over from a process that runs. The variable `GATEHOUSE_TAKE_OVER`, a path, says so too, and overrides this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeOver {
    /// No.
    No,
    /// From the one with the same `data_dir`.
    Same,
    /// From the one that listens there.
    At(PathBuf),
}

/// A process from its first moment to its last.
#[derive(Debug)]
pub struct Life {
    pub(super) files: Files,
    pub(super) program: Option<Program>,
    pub(super) sockets: Sockets,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) wishes: Wishes,
    pub(super) former: Option<Former>,
    pub(super) in_force: InForce,
    pub(super) control_socket: Option<BoundSocket>,
    control_name: &'static str,
}

/// The configuration files.
#[derive(Debug, Clone)]
pub(super) struct Files(pub(super) Vec<PathBuf>);

/// What the configuration in force is compared with at the next reload.
#[derive(Debug, Default)]
pub(super) struct InForce {
    pub(super) effective: String,
    pub(super) generation: u64,
    /// Where the control socket is; `None` when there is none.
    pub(super) control: Option<Bind>,
}

impl Life {
    /// From now on signals are heeded. Takes the sockets of a former process, if one is to be replaced. To be called inside a runtime,
    /// which has to live as long as the process.
    ///
    /// # Errors
    /// When the system refuses to register handlers, or nothing can be taken over.
    pub async fn begin(options: Options) -> Result<Self, Fault> {
        let cannot_wait = |error| Fault::of(&error).within("cannot wait for signals");
        // First: the executable may be replaced at any time.
        let program = Program::current()
            .inspect_err(|error| warn!(%error, "it cannot be told what runs: `upgrade` does not work"))
            .ok();
        accept::descriptors::raise();
        let stop = signals::stop_signal().map_err(cannot_wait)?;
        let wishes = Wishes::listen().map_err(cannot_wait)?;
        let Options { files, control, take_over } = options;
        let files = Files(files);
        let sockets = Sockets::default();
        let from = match (env::var_os(TAKE_OVER_VARIABLE), take_over) {
            (Some(path), _) => Some(PathBuf::from(path)),
            (None, TakeOver::At(path)) => Some(path),
            (None, TakeOver::Same) => Some(files.load().await?.config.data_dir.join(control)),
            (None, TakeOver::No) => None,
        };
        let former = match from {
            Some(path) => Some(Former::take(&path, &sockets).await?),
            None => None,
        };
        Ok(Self {
            files,
            program,
            sockets,
            stop,
            wishes,
            former,
            in_force: InForce { generation: 1, ..InForce::default() },
            control_socket: None,
            control_name: control,
        })
    }

    /// All sockets of the process.
    pub fn sockets(&self) -> Sockets {
        self.sockets.clone()
    }

    /// Loads the configuration, prints its warnings on stderr, and opens what it asks for, unless the process is asked to stop before that
    /// is done. Whatever fails is told to the former process too.
    ///
    /// # Errors
    /// Faults of the configuration, and what `open` says; [`EXIT_STOPPED`](super::EXIT_STOPPED) when it was stopped.
    pub async fn open<T>(
        &mut self,
        open: impl AsyncFnOnce(conf::Config, &mut Change) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut stop = self.stop.clone();
        let opened = tokio::select! {
            biased;
            opened = self.load_and_open(open) => opened,
            _ = stop.wait_for(|stop| *stop) => Err(Fault::stopped()),
        };
        if let (Err(fault), Some(former)) = (&opened, &mut self.former) {
            former.give_up(fault).await;
        }
        opened
    }

    async fn load_and_open<T>(
        &mut self,
        open: impl AsyncFnOnce(conf::Config, &mut Change) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let conf::Loaded { config, warnings, effective } = self.files.load().await?;
        if !warnings.diagnostics.is_empty() {
            eprint!("{warnings}");
        }
        self.in_force.effective = effective;
        let data_dir = config.data_dir.clone();
        let mut change = self.sockets.change();
        // Before anything says that it listens, so that whoever waits for that can ask; later when the folder is only made by the work.
        let is_there = data_dir.is_dir();
        if is_there {
            self.bind_control(&data_dir, &mut change).await;
        }
        let opened = open(config, &mut change).await?;
        if !is_there {
            self.bind_control(&data_dir, &mut change).await;
        }
        change.commit();
        Ok(opened)
    }

    async fn bind_control(&mut self, data_dir: &Path, change: &mut Change) {
        let bind = Bind::Socket { path: data_dir.join(self.control_name), mode: Some(0o600) };
        match bind_control(change, &bind).await {
            Ok(socket) => {
                self.control_socket = socket;
                self.in_force.control = Some(bind);
            }
            Err(fault) => warn!(
                error = fault.text,
                "no control socket: `reload`, `upgrade` and `--take-over` do not find this process; SIGHUP still reloads"
            ),
        }
    }
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub(super) async fn load(&self) -> Result<conf::Loaded, Fault> {
        let files = self.0.clone();
        let loaded = tokio::task::spawn_blocking(move || conf::load(&files)).await;
        Ok(loaded.map_err(|error| Fault::of(&error))??)
    }

    /// Their names as they are from wherever one looks.
    pub(super) fn absolute(&self) -> Vec<PathBuf> {
        self.0.iter().map(|file| std::path::absolute(file).unwrap_or_else(|_| file.clone())).collect()
    }
}
