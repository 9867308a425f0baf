//! The manual page: clap's own sections, the commands with their arguments, and what is written by hand.

use std::io::{self, Write};

use clap::{Arg, Command};
use clap_mangen::Man;

use crate::Section;

/// The page of `command`, section 8.
pub(crate) fn page(mut command: Command, sections: &[Section<'_>]) -> io::Result<Vec<u8>> {
    command.build();
    let man = Man::new(command.clone())
        .section("8")
        .manual("MARS")
        .title(command.get_name().to_uppercase());
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    render_commands(&mut out, &command)?;
    for section in sections {
        writeln!(out, ".SH \"{}\"\n.nf", escape(section.title))?;
        for line in section.text.lines() {
            writeln!(out, "{}", escape_line(line))?;
        }
        writeln!(out, ".fi")?;
    }
    Ok(out)
}

fn render_commands(out: &mut Vec<u8>, command: &Command) -> io::Result<()> {
    let mut title = Some(".SH COMMANDS");
    for sub in command.get_subcommands() {
        if sub.is_hide_set() || sub.get_name() == "help" {
            continue;
        }
        if let Some(title) = title.take() {
            writeln!(out, "{title}")?;
        }
        let own = |arg: &&Arg| !arg.is_global_set() && !arg.is_hide_set() && !is_help(arg);
        let usage: Vec<String> = sub
            .get_arguments()
            .filter(own)
            .filter(|arg| arg.is_positional())
            .map(|arg| escape(&arg.to_string()))
            .collect();
        let name = escape(sub.get_name());
        writeln!(out, ".SS \"{name} {}\"", usage.join(" "))?;
        if let Some(about) = sub.get_about() {
            writeln!(out, "{}", escape_line(&about.to_string()))?;
        }
        for arg in sub.get_arguments().filter(own) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let help = escape_line(&help);
            writeln!(out, ".TP\n\\fB{}\\fR\n{help}", escape(&arg.to_string()))?;
        }
    }
    Ok(())
}

fn is_help(arg: &Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

/// Text that roff prints as it is.
fn escape(text: &str) -> String {
    text.replace('\\', "\\e")
        .replace('-', "\\-")
        .replace('"', "\\(dq")
}

/// A line that roff prints as it is, even if it begins like a request.
fn escape_line(line: &str) -> String {
    let line = escape(line);
    if line.starts_with(['.', '\'']) {
        format!("\\&{line}")
    } else {
        line
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_roff_would_take_for_a_request_is_text() {
        let section = Section {
            title: "EXAMPLES",
            text: ".so evil\n'quoted' \\n -x",
        };
        let page = page(Command::new("tool"), &[section]).unwrap();
        let page = String::from_utf8(page).unwrap();
        let wanted = ".SH \"EXAMPLES\"\n.nf\n\\&.so evil\n\\&'quoted' \\en \\-x\n.fi\n";
        assert!(page.ends_with(wanted), "{page}");
    }

    #[test]
    fn visible_commands_are_listed_with_their_arguments() {
        let sub = Command::new("make-it")
            .about("Makes it.")
            .arg(Arg::new("what").required(true).value_name("WHAT"))
            .arg(Arg::new("how").long("how-far").help("So far."));
        let hidden = Command::new("secret").hide(true);
        let page = page(Command::new("tool").subcommands([sub, hidden]), &[]).unwrap();
        let page = String::from_utf8(page).unwrap();
        assert!(
            page.contains(".SH COMMANDS\n.SS \"make\\-it <WHAT>\"\nMakes it.\n"),
            "{page}"
        );
        assert!(
            page.contains("\\fB\\-\\-how\\-far <how>\\fR\nSo far.\n"),
            "{page}"
        );
        assert!(!page.contains("secret"), "{page}");
    }
}
