//! `gatehouse user …`: accounts of the bundled auth service, straight in its database, also while it runs.

use std::io::{IsTerminal, Read, stdin};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use rand::Rng;
use serde::Serialize;
use service::accounts::{Accounts, NewUser, Session, User};

use crate::cli::{self, Files};
use crate::run::on_runtime;

/// Longest password read from standard input; the auth service has the same limit.
const LONGEST_PASSWORD_BYTES: u64 = 4096;
/// Letters and digits that are not mistaken for one another.
const ALPHABET: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 57^20 is more than 2^116.
const MADE_UP_LENGTH: usize = 20;

/// What `gatehouse user` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    files: Files,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes an account
    Add {
        /// The part of the user id before the colon
        name: String,
        #[command(flatten)]
        password: Password,
        /// E-mail address that may be used to sign in
        #[arg(long, value_name = "ADDR")]
        email: Option<String>,
        /// Name that others see
        #[arg(long, value_name = "TEXT")]
        display_name: Option<String>,
        /// May ask for the homeserver's admin rights. A login by password never carries them; the sign-in by OAuth that does
        /// comes with a later version
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Lists all accounts
    List {
        #[command(flatten)]
        format: Format,
    },
    /// Replaces an account's password
    SetPassword {
        /// The part of the user id before the colon
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Refuses logins and requests of an account until it is unlocked
    Lock {
        /// The part of the user id before the colon
        name: String,
    },
    /// Ends a lock
    Unlock {
        /// The part of the user id before the colon
        name: String,
    },
    /// Ends an account and all its sessions for good
    Deactivate {
        /// The part of the user id before the colon
        name: String,
    },
    /// Lists an account's sessions
    Sessions {
        /// The part of the user id before the colon
        name: String,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Args)]
struct Password {
    /// Reads the password from standard input (one line); otherwise a terminal is asked, or a password is made up and printed
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, Clone, Copy, Args)]
struct Format {
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

/// Runs one of the commands.
pub(crate) fn user(options: Options) -> Result<()> {
    let loaded = cli::load(&options.files)?;
    let auth =
        loaded.config.auth.context("the configuration has no auth service, so there are no accounts")?;
    on_runtime(async {
        let accounts = Accounts::open(Arc::new(auth), &loaded.config.data_dir).await?;
        run(&accounts, options.command).await
    })
}

async fn run(accounts: &Accounts, command: Command) -> Result<()> {
    match command {
        Command::Add { name, password, email, display_name, admin, format } => {
            let password = password.read()?;
            let new = NewUser { name, password: Some(password.text.clone()), email, display_name, admin };
            let user = accounts.add(new).await?;
            if format.json {
                print_json(&Added {
                    user: &user,
                    password: password.made_up.then_some(password.text.as_str()),
                })?;
            } else {
                println!("added {}", user.user_id);
                password.print_if_made_up();
            }
        }
        Command::List { format } => {
            let users = accounts.list().await?;
            if format.json {
                return print_json(&users);
            }
            print_table(&["USER", "STATUS", "ADMIN", "E-MAIL", "CREATED"], users.iter().map(user_row));
        }
        Command::SetPassword { name, password } => {
            let password = password.read()?;
            accounts.set_password(&name, &password.text).await?;
            println!("password of {name} replaced");
            password.print_if_made_up();
        }
        Command::Lock { name } => {
            accounts.lock(&name).await?;
            println!("{name} is locked");
        }
        Command::Unlock { name } => {
            accounts.unlock(&name).await?;
            println!("{name} is unlocked");
        }
        Command::Deactivate { name } => {
            accounts.deactivate(&name).await?;
            println!("{name} is deactivated");
        }
        Command::Sessions { name, format } => {
            let sessions = accounts.sessions(&name).await?;
            if format.json {
                return print_json(&sessions);
            }
            print_table(
                &["DEVICE", "NAME", "KIND", "CREATED", "LAST ACTIVE", "FROM"],
                sessions.iter().map(session_row),
            );
        }
    }
    Ok(())
}

/// Makes the account `name` with `password` unless there is one.
pub(crate) async fn ensure(auth: Arc<conf::Auth>, data_dir: &Path, name: &str, password: &str) -> Result<()> {
    let accounts = Accounts::open(auth, data_dir).await?;
    if accounts.list().await?.iter().any(|user| user.name == name) {
        return Ok(());
    }
    let (name, password) = (name.to_owned(), Some(password.to_owned()));
    accounts.add(NewUser { name, password, ..NewUser::default() }).await?;
    Ok(())
}

/// A random password that is easy to type.
pub(crate) fn made_up_password() -> String {
    let mut random = rand::rng();
    (0..MADE_UP_LENGTH).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())])).collect()
}

/// A password, and whether its owner still has to learn it.
struct Given {
    text: String,
    made_up: bool,
}

impl Password {
    fn read(&self) -> Result<Given> {
        if self.password_stdin {
            let mut text = String::new();
            stdin()
                .lock()
                .take(LONGEST_PASSWORD_BYTES)
                .read_to_string(&mut text)
                .context("cannot read the password from standard input")?;
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if text.is_empty() || text.contains('\n') {
                bail!("standard input has to be one line with the password");
            }
            return Ok(Given { text: text.to_owned(), made_up: false });
        }
        if !stdin().is_terminal() {
            return Ok(Given { text: made_up_password(), made_up: true });
        }
        let text = rpassword::prompt_password("Password (empty: one is made up): ")?;
        if text.is_empty() {
            return Ok(Given { text: made_up_password(), made_up: true });
        }
        if rpassword::prompt_password("Once more: ")? != text {
            bail!("the two passwords differ");
        }
        Ok(Given { text, made_up: false })
    }
}

impl Given {
    fn print_if_made_up(&self) {
        if self.made_up {
            println!("password: {}", self.text);
        }
    }
}

fn print_json(value: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

/// Columns as wide as their widest cell.
fn print_table<const N: usize>(head: &[&str; N], rows: impl Iterator<Item = [String; N]>) {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}

/// A new account as JSON, with the password that was made up for it.
#[derive(Serialize)]
struct Added<'a> {
    #[serde(flatten)]
    user: &'a User,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
}

fn user_row(user: &User) -> [String; 5] {
    [
        user.user_id.clone(),
        user.status.to_string(),
        if user.admin { "admin" } else { "" }.to_owned(),
        user.emails.join(", "),
        user.created_at.clone(),
    ]
}

fn session_row(session: &Session) -> [String; 6] {
    [
        session.device_id.clone(),
        session.display_name.clone().unwrap_or_default(),
        session.kind.to_owned(),
        session.created_at.clone(),
        session.last_active_at.clone().unwrap_or_default(),
        session.last_active_ip.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_passwords_are_long_and_differ() {
        let (one, two) = (made_up_password(), made_up_password());
        assert_eq!(one.len(), MADE_UP_LENGTH);
        assert_ne!(one, two);
        assert!(one.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
