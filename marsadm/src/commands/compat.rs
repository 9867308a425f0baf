//! Commands that users of DRBD or of the old tool may still have in their scripts.

use std::ffi::OsString;

use crate::context::{Context, say};
use crate::error::{AdmError, Result};
use crate::exit::Exit;
use crate::resource::for_each;

const IGNORED: [&str; 6] = [
    "syncer",
    "get-gi",
    "show-gi",
    "outdate",
    "adjust",
    "hidden-commands",
];
const SENSELESS: [&str; 4] = ["create-md", "dump-md", "dump", "new-current-uuid"];

/// Carries out `words` if it is one of these; `None` if it is no command at all.
pub(crate) fn run(ctx: &mut Context, words: &[OsString]) -> Option<Result<()>> {
    let words: Vec<&str> = words.iter().map(|w| w.to_str().unwrap_or("")).collect();
    let (command, args) = words.split_first()?;
    if !IGNORED.contains(command) && !SENSELESS.contains(command) {
        return None;
    }
    let Some(resource) = args.iter().find(|a| !a.starts_with('-')) else {
        let text = format!("'{command}' needs the name of a resource, or 'all'");
        return Some(Err(AdmError::new(Exit::Usage, text)));
    };
    let senseless = SENSELESS.contains(command);
    Some(for_each(ctx, resource, &|_, res| {
        say(&if senseless {
            format!("command '{command}' makes no sense with MARS (ignoring)")
        } else {
            format!("ignoring command '{command}' on resource '{res}'")
        });
        Ok(())
    }))
}
