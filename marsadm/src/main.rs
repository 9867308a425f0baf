//! marsadm: administers MARS by reading and writing the symlink tree, with a running daemon or without.

mod address;
mod cli;
mod commands;
mod context;
mod device;
mod error;
mod exit;
mod history;
mod manual;
mod progress;
mod rebase;
mod resource;
mod ssh;
mod wait;

use std::io::Write;
use std::process::ExitCode;

use error::AdmError;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::from(error.code as u8)
        }
    }
}

/// Prints an error on stderr.
fn print_error(error: &AdmError) {
    let _ = writeln!(std::io::stderr(), "ERROR: {error}");
}
