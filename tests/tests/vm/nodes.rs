//! Whole clusters inside a virtual machine: some of the scenarios, with the kernel module on some nodes.

use std::time::Duration;

use mars_tests::Result;
use mars_tests::vm::Kernel;

use crate::{machine_with, plain_script, scenario_program, script};

/// The second disk has room for the disks and logs of all nodes; what is not written takes none.
const DISKS_MIB: [u64; 2] = [16, 6144];
/// Which nodes of a scenario have the kernel module as their shim.
const ON_THE_FIRST: &str = "istore-test-bs7";
const ON_BOTH: &str = "istore-test-bs7 istore-test-bap7";

/// What marsd had to warn of (the peer that it cannot reach yet, if nothing else) stands in the files of the module, too.
const MESSAGES: &str = r#"
grep MARS_WARN /proc/sys/mars/warnings || die "no warning in /proc/sys/mars"
"#;
/// How often the usual time things may take: every processor is emulated, and others may want it, too.
const PATIENCE: u32 = 10;
/// For the whole of a scenario; it only ends what hangs.
const SCENARIO_DEADLINE: Duration = Duration::from_secs(1800);

/// Runs the scenario `name` in a machine.
fn scenario(name: &str, kmod_nodes: &str) -> Result {
    let kernel = Kernel::Plain;
    let program = scenario_program()?;
    let body = format!(
        "log_disk\nexport MARS_TESTS_DIR=/mars MARS_TESTS_KMOD='{kmod_nodes}' MARS_TESTS_PATIENCE={PATIENCE}\n\
         {} --test-threads=1 --nocapture --exact {name}\n",
        program.display()
    );
    let script = if kmod_nodes.is_empty() {
        plain_script(&body)?
    } else {
        script(kernel, &format!("{body}{MESSAGES}rmmod mars\n"))?
    };
    let text = machine_with(kernel, &DISKS_MIB)?.run(&script, SCENARIO_DEADLINE)?;
    println!("{text}");
    // A name that no test has runs nothing, and that succeeds.
    assert!(text.contains("1 passed"), "{text}");
    Ok(())
}

/// The user-space shim works on the kernel of the virtual machine as on any other.
#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn the_user_space_shim_hands_over() -> Result {
    scenario(
        "handover::a_handover_of_a_mounted_device_waits_for_the_umount",
        "",
    )
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_primary_with_the_kernel_module_hands_over_to_and_fro() -> Result {
    scenario("handover::three_handovers_to_and_fro", ON_THE_FIRST)
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn two_nodes_with_the_kernel_module_hand_over() -> Result {
    scenario(
        "handover::a_handover_of_a_mounted_device_waits_for_the_umount",
        ON_BOTH,
    )
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_killed_marsd_finds_its_device_with_the_kernel_module_again() -> Result {
    scenario("daemon_killed::on_the_primary", ON_THE_FIRST)
}

#[test]
#[ignore = "needs a virtual machine: make vm-test"]
fn a_killed_marsd_costs_an_application_on_the_kernel_module_nothing() -> Result {
    scenario(
        "daemon_killed::under_an_application_that_verifies",
        ON_THE_FIRST,
    )
}
