//! Boots a virtual machine and runs one script in it, for trying things out.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mars_tests::Result;
use mars_tests::cluster::RunningTime;
use mars_tests::vm::{Kernel, Machine};

/// Run a script as root in a virtual machine; it sees the files of this machine below a layer in memory.
#[derive(Parser)]
struct Args {
    /// Use the kernel that looks for mistakes.
    #[arg(long)]
    checked: bool,
    /// Add a disk of that many MiB: /dev/vda, then /dev/vdb ...
    #[arg(long, value_name = "MIB")]
    disk: Vec<u64>,
    /// Memory in MiB.
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECS", default_value_t = 600)]
    deadline: u64,
    /// Print what the kernel says, too.
    #[arg(long)]
    console: bool,
    /// The script, for bash.
    script: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("mars-vm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<i32> {
    let kernel = if args.checked {
        Kernel::Checked
    } else {
        Kernel::Plain
    };
    let mut machine = Machine::new(kernel, args.memory)?;
    for mib in &args.disk {
        machine.add_disk(mib << 20)?;
    }
    let mut boot = machine.start(&args.script)?;
    let mut shown = 0;
    let mut show = |text: &str| {
        let mut out = std::io::stdout();
        // Nobody reads any more: the script goes on all the same.
        let _ = out.write_all(text.as_bytes().get(shown..).unwrap_or_default());
        let _ = out.flush();
        shown = text.len();
    };
    let deadline = Duration::from_secs(args.deadline);
    let mut clock = RunningTime::default();
    while boot.runs() && clock.passed() < deadline {
        show(&boot.output());
        std::thread::sleep(Duration::from_millis(100));
    }
    if args.console {
        println!("{}", boot.console());
    }
    let output = boot.wait(Duration::ZERO)?;
    show(&output.text);
    Ok(output.code)
}
