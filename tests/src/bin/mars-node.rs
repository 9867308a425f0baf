//! Helper processes of a cluster: the supervisor, the holder of the bridge and the init of a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match mars_tests::init::node_main(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("mars-node {}: {e}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}
