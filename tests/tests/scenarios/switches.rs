//! A switch that is set on one node is seen on the other within a fraction of a second.

use std::time::Instant;

use mars_tests::setup::{PAIR, RESOURCE};
use mars_tests::{Node, Result, scenario};

const ROUNDS: usize = 10;

#[test]
fn a_switch_is_seen_on_the_other_node() -> Result {
    scenario(&PAIR, |cluster| {
        cluster.replicate(64 << 20)?;
        let (a, b) = (&cluster[0], &cluster[1]);
        let mut times = Vec::new();
        for round in 0..ROUNDS {
            let (command, value) = if round % 2 == 0 {
                ("pause-replay", "0")
            } else {
                ("resume-replay", "1")
            };
            let sees = |node: &Node| {
                PAIR.iter().all(|host| {
                    node.link_is(
                        &format!("resource-{RESOURCE}/todo-{host}/allow-replay"),
                        value,
                    )
                })
            };
            let (here, there) = if round % 4 < 2 { (a, b) } else { (b, a) };
            here.run(&format!("marsadm {command} {RESOURCE}"))?;
            let begin = Instant::now();
            cluster.wait("the switch is seen on the other node", 10, || sees(there))?;
            times.push(begin.elapsed());
        }
        times.sort();
        let (median, worst) = (times[ROUNDS / 2], times[ROUNDS - 1]);
        println!(
            "switch seen on the other node after {} ms (median of {ROUNDS}), {} ms at worst",
            median.as_millis(),
            worst.as_millis()
        );
        Ok(())
    })
}
