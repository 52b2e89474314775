//! `gatehouse init`: a commented starter configuration with fresh secrets.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::private_file::{self, random_token};

/// What `gatehouse init` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The part of user ids after the colon, such as example.com
    #[arg(long, value_name = "NAME")]
    server_name: String,
    /// Folder to write into
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// Writes `gatehouse.yaml` and two secrets, and prints what to paste into Synapse's configuration.
///
/// # Errors
/// Nothing is written when any of the files is there already.
pub(crate) fn init(options: &Options) -> Result<()> {
    std::fs::create_dir_all(&options.dir)
        .with_context(|| format!("cannot make the folder {}", options.dir.display()))?;
    let folder = options.dir.canonicalize()?;
    let configuration = folder.join("gatehouse.yaml");
    let matrix_secret = folder.join("matrix-secret");
    let encryption_secret = folder.join("encryption-secret");
    for path in [&configuration, &matrix_secret, &encryption_secret] {
        if path.exists() {
            bail!(
                "{} is there already, and init never overwrites; give another folder with --dir",
                path.display()
            );
        }
    }
    let text = conf::starter(&options.server_name).map_err(|message| anyhow::anyhow!(message))?;
    private_file::create(&matrix_secret, &format!("{}\n", random_token()))?;
    private_file::create(&encryption_secret, &format!("{}\n", random_token()))?;
    private_file::create(&configuration, &text)?;

    println!("wrote {}", configuration.display());
    println!(
        "wrote {} and {} (readable by their owner only)",
        matrix_secret.display(),
        encryption_secret.display()
    );
    println!("\nAdd this to Synapse's homeserver.yaml and restart Synapse:\n");
    print!("{}", conf::synapse_snippet(&matrix_secret));
    println!("\nThen: gatehouse check -c {0} && gatehouse run -c {0}", configuration.display());
    Ok(())
}
