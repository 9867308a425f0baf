//! A short random life of four nodes with a fixed seed; `make chaos` runs longer ones.

use std::time::Duration;

use mars_tests::Result;
use mars_tests::chaos::{Options, run};

#[test]
fn a_short_life_of_four_nodes() -> Result {
    run(&Options {
        seed: 4,
        nodes: 4,
        length: Duration::ZERO,
        rounds: 1,
        decisions: 24,
        keep: false,
    })
}
