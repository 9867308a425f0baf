//! Runs the display: reads options, prints once or in an interval, and ends with a meaningful code.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use std::thread;

use mars_status::exit::{self, Exit};
use mars_status::facts::Facts;
use mars_status::model::Model;
use mars_status::options::{self, Options, Parsed};
use mars_status::paint::Painter;
use mars_status::render;
use mars_tree::{Env, TreeDir};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let code = match options::parse(&args) {
        Parsed::Run(options) => run(&options),
        Parsed::Help(text) => print(&text).map(|()| Exit::OK),
        Parsed::Wrong { text, exit } => {
            eprintln!("{}", text.trim_end());
            Ok(exit)
        }
    };
    match code {
        Ok(code) => code.into(),
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mars-status: cannot write to standard output: {e}");
            Exit::FAILED.into()
        }
    }
}

fn run(options: &Options) -> io::Result<Exit> {
    let env = match Env::from_env() {
        Ok(env) => env,
        Err(e) => {
            eprintln!("mars-status: {e}");
            return Ok(exit::unusable(options));
        }
    };
    let painter = Painter::of_stdout();
    loop {
        let code = round(&env, options, painter)?;
        match options.interval {
            Some(interval) => thread::sleep(interval),
            None => return Ok(code),
        }
    }
}

fn round(env: &Env, options: &Options, painter: Painter) -> io::Result<Exit> {
    let loaded = TreeDir::new(&env.dir).load();
    for problem in &loaded.problems {
        eprintln!("mars-status: {problem}");
    }
    let facts = Facts::gather(env, &loaded.tree, options);
    let model = Model::build(&loaded.tree, &env.host, &facts, options);
    let mut out = String::new();
    if options.interval.is_some() && painter.is_terminal() {
        out.push_str(&painter.fresh_screen());
    }
    out.push_str(&painter.paint(&render::render(&model)));
    print(&out)?;
    for line in render::complaints(&model) {
        eprintln!("mars-status: {line}");
    }
    Ok(exit::code(&model))
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
