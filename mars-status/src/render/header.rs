//! The five lines that everything begins with, and the word about marsd.

use mars_core::status::Alive;

use super::{Ink, Screen};
use crate::model::Model;

pub(super) fn render(screen: &mut Screen, model: &Model) {
    let header = &model.header;
    let resource = match &header.resource {
        Some(name) => format!(", Ressource: {name}"),
        None => String::new(),
    };
    for line in [
        format!(
            "MARS Status - {}, {}{resource}\n",
            header.host, header.status
        ),
        format!("MARS Admin  - {}\n", header.admin),
        format!("MARS Module - {}\n", header.module),
        format!("MARS Kernel - {}\n", header.kernel),
    ] {
        screen.put(Ink::Blue, line);
    }
    screen.faint(format!("{}\n", "-".repeat(79)));
}

/// That marsd does not run, as far as its sign of life tells, and what to do.
pub fn daemon_text(model: &Model) -> String {
    let host = &model.header.host;
    let since = match model.daemon {
        Alive::Yes => return format!("marsd is running on {host}"),
        Alive::Never => "no sign of life was ever given".to_string(),
        Alive::Stopped { age_secs } => format!("it was stopped {age_secs} seconds ago"),
        Alive::Silent { age_secs } => format!("last sign of life {age_secs} seconds ago"),
    };
    format!(
        "marsd is not running on {host} ({since}): what follows may be out of date; start marsd"
    )
}
