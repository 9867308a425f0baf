//! Chooses the words: a pure function from the model to pieces of text with their ink.

mod debug;
mod header;
mod history;
mod lines;
mod node;
mod resource;
mod summary;
mod system;
mod units;

use mars_core::status::Alive;

use crate::model::Model;
use crate::options::Show;

pub use header::daemon_text;

/// How a piece is to be printed where colours are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Most of it.
    Faint,
    /// Headings.
    Bold,
    /// What needs somebody's eyes.
    Red,
    /// What is well.
    Green,
    /// What is always the same.
    Blue,
}

/// Text of one ink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// How.
    pub ink: Ink,
    /// What.
    pub text: String,
}

/// Pieces in the order of the screen.
#[derive(Debug, Default)]
pub(crate) struct Screen(Vec<Piece>);

impl Screen {
    fn put(&mut self, ink: Ink, text: impl Into<String>) {
        let text = text.into();
        match self.0.last_mut() {
            Some(last) if last.ink == ink && !last.text.ends_with('\n') => {
                last.text.push_str(&text)
            }
            _ => self.0.push(Piece { ink, text }),
        }
    }

    fn faint(&mut self, text: impl Into<String>) {
        self.put(Ink::Faint, text);
    }

    fn red(&mut self, text: impl Into<String>) {
        self.put(Ink::Red, text);
    }
}

/// The whole output.
pub fn render(model: &Model) -> Vec<Piece> {
    let mut screen = Screen::default();
    match &model.show {
        Show::Lines {
            role,
            dstate,
            cstate,
            ..
        } => lines::render(&mut screen, model, [*role, *dstate, *cstate]),
        Show::Versions => header::render(&mut screen, model),
        Show::Screen => {
            header::render(&mut screen, model);
            if model.daemon != Alive::Yes {
                screen.red(format!("{}\n", daemon_text(model)));
            }
            if let Some(system) = &model.system {
                system::render(&mut screen, model, system);
            }
            if model.resources.is_empty() && model.missing.is_none() {
                screen.red("---> HINT: no resources found\n");
            }
            for resource in &model.resources {
                resource::render(&mut screen, model, resource);
            }
            if let Some(debug) = &model.debug {
                debug::render(&mut screen, debug);
            }
        }
    }
    screen.0
}

/// Why the exit code is not 0, where the output itself does not say so.
pub fn complaints(model: &Model) -> Vec<String> {
    let mut out = Vec::new();
    if model.show == Show::Versions {
        return out;
    }
    if let Some(missing) = &model.missing {
        let known: Vec<&str> = missing.known.iter().map(|r| r.as_str()).collect();
        out.push(if known.is_empty() {
            format!(
                "resource '{}' does not exist: there are no resources",
                missing.name
            )
        } else {
            format!(
                "resource '{}' does not exist; there are: {}",
                missing.name,
                known.join(", ")
            )
        });
    }
    if let Show::Lines { .. } = model.show {
        if model.daemon != Alive::Yes {
            out.push(daemon_text(model));
        }
        if model.resources.is_empty() && model.missing.is_none() {
            out.push("no resources found".into());
        }
    }
    out
}
