//! Manual pages and shell completions, made from the definition of a command line and a few sections written by hand.
#![forbid(unsafe_code)]

mod man;

use std::fmt;
use std::str::FromStr;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// What can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// A manual page of section 8, in roff.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for zsh.
    Zsh,
    /// Completions for fish.
    Fish,
}

/// A section of the manual page that does not follow from the command line.
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Its title, in capital letters.
    pub title: &'a str,
    /// Its text: lines are kept as they are.
    pub text: &'a str,
}

/// A word that names no [`Kind`].
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownKind(String);

impl fmt::Display for UnknownKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is none of man, bash, zsh, fish", self.0)
    }
}

impl std::error::Error for UnknownKind {}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <Self as ValueEnum>::from_str(text, false).map_err(|_| UnknownKind(text.into()))
    }
}

/// Makes a manual page with these sections behind those that follow from `command`, or completions.
///
/// # Errors
/// Those of clap's generators, which write to memory only.
pub fn generate(
    kind: Kind,
    mut command: Command,
    sections: &[Section<'_>],
) -> std::io::Result<Vec<u8>> {
    let shell = match kind {
        Kind::Man => return man::page(command, sections),
        Kind::Bash => Shell::Bash,
        Kind::Zsh => Shell::Zsh,
        Kind::Fish => Shell::Fish,
    };
    let name = command.get_name().to_string();
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut out);
    Ok(out)
}
