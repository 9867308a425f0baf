//! Runs the display: reads options, prints once or in an interval, and ends with a meaningful code.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use mars_status::exit::{self, Exit};
use mars_status::facts::Facts;
use mars_status::model::Model;
use mars_status::options::{self, Options, Parsed};
use mars_status::paint::Painter;
use mars_status::watch::{self, Next, Pause};
use mars_status::{json, manual, render};
use mars_tree::{Env, Loaded, TreeDir};

/// Lines below a frame at most.
const FRAME_COMPLAINTS: usize = 10;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let code = match options::parse(&args) {
        Parsed::Run(options) => run(&options),
        Parsed::Help(text) => print(text.as_bytes()).map(|()| Exit::OK),
        Parsed::Generate(kind) => manual::generate(kind)
            .and_then(|text| print(&text))
            .map(|()| Exit::OK),
        Parsed::Wrong { text, exit } => {
            complain(text.trim_end());
            Ok(exit)
        }
    };
    match code {
        Ok(code) => code.into(),
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            complain(&format!(
                "mars-status: cannot write to standard output: {e}"
            ));
            Exit::FAILED.into()
        }
    }
}

fn run(options: &Options) -> io::Result<Exit> {
    let env = match Env::from_env() {
        Ok(env) => env,
        Err(e) => {
            let code = exit::unusable(options);
            if options.json {
                print(json::unusable(&options.show, &e.to_string(), code)?.as_bytes())?;
            }
            complain(&format!("mars-status: {e}"));
            return Ok(code);
        }
    };
    let painter = Painter::of_stdout();
    match options.interval {
        Some(pause) => repeat(&env, options, painter, pause),
        None => {
            let round = Round::of(&env, options, painter)?;
            print(round.out.as_bytes())?;
            round.complain();
            Ok(round.code)
        }
    }
}

/// One round after the other; in place on a terminal.
fn repeat(env: &Env, options: &Options, painter: Painter, time: Duration) -> io::Result<Exit> {
    let in_place = painter.is_terminal() && !options.json;
    let pause = Pause::new(in_place)?;
    let mut is_first = true;
    loop {
        let round = Round::of(env, options, painter)?;
        if in_place {
            let text = round.screen(painter);
            let frame = watch::frame(&text, watch::terminal_size(), is_first);
            print(frame.as_bytes())?;
        } else {
            print(round.out.as_bytes())?;
            round.complain();
        }
        is_first = match pause.wait(time)? {
            Next::Again => false,
            Next::Resized => true,
            Next::End => {
                print(watch::LEAVE.as_bytes())?;
                return Ok(Exit::OK);
            }
        };
    }
}

/// What one look at the tree came to.
struct Round {
    out: String,
    complaints: Vec<String>,
    code: Exit,
}

impl Round {
    fn of(env: &Env, options: &Options, painter: Painter) -> io::Result<Self> {
        let loaded = load(env, options);
        let facts = Facts::gather(env, &loaded.tree, options);
        let model = Model::build(&loaded.tree, &env.host, &facts, options);
        let out = if options.json {
            json::document(&model, &loaded.problems, options.interval.is_none())?
        } else {
            painter.paint(&render::render(&model))
        };
        let problems = loaded.problems.iter().map(ToString::to_string);
        Ok(Self {
            out,
            complaints: problems.chain(render::complaints(&model)).collect(),
            code: exit::code(&model),
        })
    }

    fn complain(&self) {
        for line in &self.complaints {
            complain(&format!("mars-status: {line}"));
        }
    }

    /// All of it for one screen.
    fn screen(&self, painter: Painter) -> String {
        let mut text = format!("{}{}", painter.note(), self.out);
        if self.complaints.is_empty() {
            return text;
        }
        if !text.trim_end_matches(' ').ends_with('\n') {
            text.push('\n');
        }
        for line in self.complaints.iter().take(FRAME_COMPLAINTS) {
            text.push_str(&format!("\rmars-status: {line}\n"));
        }
        let more = self.complaints.len().saturating_sub(FRAME_COMPLAINTS);
        if more > 0 {
            text.push_str(&format!("mars-status: and {more} more\n"));
        }
        text
    }
}

/// Of a single resource only its own directory is read, unless deletion orders or the names of others are needed.
fn load(env: &Env, options: &Options) -> Loaded {
    let dir = TreeDir::new(&env.dir);
    if let Some(wanted) = options.resource.as_ref().filter(|_| !options.history) {
        let loaded = dir.load_resource(wanted);
        if loaded.tree.resources().any(|name| name == *wanted) {
            return loaded;
        }
    }
    dir.load()
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// Nobody is left to tell if this fails.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
