//! Colours: on a terminal only, and not where `NO_COLOR` is set.

use console::{Style, Term};

use crate::render::{Ink, Piece};

const NOTE: &str = "\nNOTE !!!\n********\n\
    The author does not guarantee this development-test-alpha-pre-beta-version, it is untested and certainly not fully \
    functional. Use at your own risk ;)\n\n";

/// Turns pieces into text for one kind of output.
#[derive(Debug, Clone, Copy)]
pub struct Painter {
    is_terminal: bool,
    colours: bool,
}

impl Painter {
    /// For standard output, whatever it is.
    pub fn of_stdout() -> Self {
        let term = Term::stdout();
        Self {
            is_terminal: term.features().is_attended() && !is_dumb(),
            colours: term.features().colors_supported(),
        }
    }

    /// With or without colours.
    pub const fn new(colours: bool) -> Self {
        Self {
            is_terminal: colours,
            colours,
        }
    }

    /// Whether a person is looking.
    pub const fn is_terminal(self) -> bool {
        self.is_terminal
    }

    /// What a screen that is shown again and again begins with.
    pub const fn note(self) -> &'static str {
        NOTE
    }

    /// The text of the pieces.
    pub fn paint(self, pieces: &[Piece]) -> String {
        pieces
            .iter()
            .map(|piece| {
                style(piece.ink)
                    .force_styling(self.colours)
                    .apply_to(&piece.text)
                    .to_string()
            })
            .collect()
    }
}

/// Whether the terminal knows no commands at all.
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

fn style(ink: Ink) -> Style {
    match ink {
        Ink::Faint => Style::new().dim(),
        Ink::Bold => Style::new().bold(),
        Ink::Red => Style::new().red(),
        Ink::Green => Style::new().green(),
        Ink::Blue => Style::new().blue(),
    }
}
