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
const ELSEWHERE: [(&str, &str); 1] = [(
    "verify",
    "the nodes differ while replication lags; a sync verifies and repairs: marsadm invalidate R",
)];

/// Carries out `words` if it is one of these; `None` if it is no command at all.
pub(crate) fn run(ctx: &mut Context, words: &[OsString]) -> Option<Result<()>> {
    let words: Vec<&str> = words.iter().map(|w| w.to_str().unwrap_or("")).collect();
    let (command, args) = words.split_first()?;
    let known = IGNORED.contains(command) || SENSELESS.contains(command);
    if known {
        let Some(resource) = args.iter().find(|a| !a.starts_with('-')) else {
            let text = format!("'{command}' needs the name of a resource, or 'all'");
            return Some(Err(AdmError::new(Exit::Usage, text)));
        };
        let senseless = SENSELESS.contains(command);
        return Some(for_each(ctx, resource, &|_, res| {
            say(&if senseless {
                format!("command '{command}' makes no sense with MARS (ignoring)")
            } else {
                format!("ignoring command '{command}' on resource '{res}'")
            });
            Ok(())
        }));
    }
    let (_, remedy) = ELSEWHERE.iter().find(|(name, _)| name == command)?;
    let text = format!("command '{command}' is not part of this tool");
    Some(Err(AdmError::new(Exit::Usage, text).remedy(*remedy)))
}
