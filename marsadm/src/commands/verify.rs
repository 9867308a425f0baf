//! `verify`: has members compare their disks with that of a peer, and tells what they found.

use std::collections::BTreeMap;
use std::time::Instant;

use mars_core::link::{ActualKey, ResourceLink};
use mars_core::plan::is_consistent;
use mars_core::verify::{VerifyMode, VerifyOrder, VerifyOutcome, VerifyState};
use mars_core::{HostName, LinkPath, ResourceName, ResourceView, Switch, Tree};

use crate::context::{Context, Edit, is_alive, say};
use crate::error::{AdmError, Result};
use crate::exit::Exit;
use crate::resource::primary_of;
use crate::wait::{Interrupt, Progress, wait_for};

/// Ranges printed of one node.
const RANGES_SHOWN: usize = 50;

type Answers = BTreeMap<HostName, VerifyState>;

/// Compares the disks of all secondaries (or of `--node`), and overwrites what differs if `repair` is given.
pub(crate) fn run(ctx: &mut Context, res: &ResourceName, repair: bool) -> Result<()> {
    let tree = ctx.tree();
    let targets = targets(ctx, &tree, res)?;
    for host in &targets {
        check(&tree, res, host)?;
    }
    let mode = if repair {
        VerifyMode::Repair
    } else {
        VerifyMode::Check
    };
    let orders = order(ctx, &tree, res, &targets, mode)?;
    if ctx.opts.dry_run {
        return Ok(());
    }
    let size = tree.resource(res).size_bytes().unwrap_or(0);
    let answers = wait(ctx, res, &orders, size).inspect_err(|_| {
        // Nobody waits for the answer any more.
        let now = ctx.quiet_tree();
        let open =
            |(host, order): &(&HostName, &u64)| !is_answered(now.resource(res), host, **order);
        let left: Vec<HostName> = orders.iter().filter(open).map(|(h, _)| h.clone()).collect();
        if let Err(error) = order(ctx, &now, res, &left, VerifyMode::Stop) {
            crate::print_error(&error);
        }
    })?;
    report(res, &answers, size)
}

fn targets(ctx: &Context, tree: &Tree, res: &ResourceName) -> Result<Vec<HostName>> {
    if let Some(node) = &ctx.opts.node {
        return Ok(vec![node.clone()]);
    }
    let view = tree.resource(res);
    let primary = primary_of(view)?;
    let hosts: Vec<HostName> = view
        .members()
        .into_iter()
        .filter(|h| Some(*h) != primary.as_ref())
        .cloned()
        .collect();
    if hosts.is_empty() {
        let what = format!("resource '{res}' has no secondary that could be compared");
        return Err(AdmError::missing(what));
    }
    Ok(hosts)
}

/// Refuses what the node would refuse, with more to say about it.
fn check(tree: &Tree, res: &ResourceName, host: &HostName) -> Result<()> {
    let view = tree.resource(res);
    let link = |link: ResourceLink| LinkPath::res(res, link);
    if !view.members().contains(host) {
        let missing = link(ResourceLink::Device(host.clone()));
        return Err(
            AdmError::missing(format!("{host} has not joined resource '{res}'"))
                .link(format!("{missing} is missing")),
        );
    }
    let serves = ResourceLink::Actual(host.clone(), ActualKey::IsPrimary);
    if view.is_designated_primary(host) || view.actual(host, ActualKey::IsPrimary) {
        let said = if view.is_designated_primary(host) {
            format!("{} -> {host}", link(ResourceLink::Primary))
        } else {
            format!("{} -> 1", link(serves))
        };
        return Err(AdmError::refused(format!(
            "{host} is primary: its disk is what the others are compared with"
        ))
        .link(said)
        .remedy(format!("marsadm verify {res}, without --node {host}")));
    }
    if !is_alive(tree, host) {
        let alive = LinkPath::Alive(host.clone());
        return Err(AdmError::refused(format!(
            "marsd of {host} gives no sign of life, and it is what compares"
        ))
        .link(alive)
        .remedy(format!(
            "start marsd on {host}, or look why it is not reached"
        )));
    }
    for (switch, command) in [
        (Switch::Attach, "attach"),
        (Switch::Connect, "connect-local"),
    ] {
        if !view.switch(host, switch) {
            let todo = link(ResourceLink::Todo(host.clone(), switch));
            return Err(
                AdmError::refused(format!("{} is off on {host}", switch.as_str()))
                    .link(format!("{todo} is not 1"))
                    .remedy(format!("on {host}: marsadm {command} {res}")),
            );
        }
    }
    if !is_consistent(view, host) {
        let status = link(ResourceLink::SyncStatus(host.clone()));
        return Err(
            AdmError::refused(format!("{host} is not synced, so it is not consistent"))
                .link(format!(
                    "{status} -> {}",
                    view.get(ResourceLink::SyncStatus(host.clone()))
                        .unwrap_or("(none)")
                ))
                .remedy(format!("marsadm wait-sync {res} --node {host}")),
        );
    }
    Ok(())
}

/// Writes the orders; their numbers.
fn order(
    ctx: &Context,
    tree: &Tree,
    res: &ResourceName,
    hosts: &[HostName],
    mode: VerifyMode,
) -> Result<BTreeMap<HostName, u64>> {
    let view = tree.resource(res);
    let mut numbers = BTreeMap::new();
    let mut edits = Vec::new();
    for host in hosts {
        let ordered = view.verify_order(host).map_or(0, |o| o.number);
        let answered = view.verify_answer(host).map_or(0, |a| a.number);
        let number = ordered.max(answered).saturating_add(1);
        let path = LinkPath::res(res, ResourceLink::Verify(host.clone()));
        edits.push(Edit::Set(path, VerifyOrder { number, mode }.to_string()));
        numbers.insert(host.clone(), number);
    }
    ctx.apply(&edits)?;
    Ok(numbers)
}

fn is_answered(view: ResourceView<'_>, host: &HostName, number: u64) -> bool {
    view.verify_answer(host)
        .is_some_and(|a| a.number > number || (a.number == number && a.is_final()))
}

fn wait(
    ctx: &mut Context,
    res: &ResourceName,
    orders: &BTreeMap<HostName, u64>,
    size: u64,
) -> Result<Answers> {
    let interrupt = Interrupt::arm()?;
    let timeout = ctx.timeout(0);
    let begun = Instant::now();
    wait_for(ctx, &interrupt, timeout, |tree| {
        let view = tree.resource(res);
        let mut answers = Answers::new();
        let mut waiting = Vec::new();
        for (host, number) in orders {
            let answer = view.verify_answer(host);
            if answer.as_ref().is_some_and(|a| a.number > *number)
                || view.verify_order(host).is_some_and(|o| o.number > *number)
            {
                let why = "somebody else gave another order";
                answers.insert(host.clone(), VerifyState::Failed(why.into()));
                continue;
            }
            match answer.filter(|a| a.number == *number).map(|a| a.state) {
                Some(VerifyState::Running(bytes)) => {
                    waiting.push((host, progress(host, bytes, size, begun.elapsed().as_secs())));
                }
                Some(state) => drop(answers.insert(host.clone(), state)),
                None => waiting.push((host, format!("waiting for {host} to begin"))),
            }
        }
        if let Some((host, _)) = waiting.iter().find(|(host, _)| !is_alive(tree, host)) {
            return Err(AdmError::new(
                Exit::Peer,
                format!("marsd of {host} gives no sign of life any more"),
            )
            .link(LinkPath::Alive((*host).clone()))
            .remedy("the comparison begins anew when it is started again, unless it was stopped"));
        }
        if waiting.is_empty() {
            return Ok(Progress::Done(answers));
        }
        let texts: Vec<String> = waiting.into_iter().map(|(_, text)| text).collect();
        Ok(Progress::Waiting(texts.join("; ")))
    })
}

/// `comparing on HOST (12 of 100 MiB, 12 %, 8 s left)`.
fn progress(host: &HostName, bytes: u64, size: u64, secs: u64) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let percent = bytes.saturating_mul(100).checked_div(size).unwrap_or(100);
    let left = secs
        .saturating_mul(size.saturating_sub(bytes))
        .checked_div(bytes)
        .map_or(String::new(), |left| format!(", {left} s left"));
    format!(
        "comparing on {host} ({} of {} MiB, {percent} %{left})",
        mib(bytes),
        mib(size)
    )
}

fn report(res: &ResourceName, answers: &Answers, size: u64) -> Result<()> {
    let (mut failed, mut differing, mut unchecked) = (Vec::new(), Vec::new(), Vec::new());
    for (host, state) in answers {
        match state {
            VerifyState::Done(outcome) => {
                for line in describe(res, host, outcome, size) {
                    say(&line);
                }
                if outcome.repaired < outcome.differing {
                    differing.push(host.to_string());
                }
                if outcome.unchecked > 0 {
                    unchecked.push(format!("{host} ({} blocks)", outcome.unchecked));
                }
            }
            VerifyState::Failed(why) => failed.push(format!("{host}: {why}")),
            VerifyState::Running(_) => {}
        }
    }
    if !failed.is_empty() {
        let what = format!(
            "resource {res} was not compared on {}",
            failed.join("; on ")
        );
        let log = "look at mars-status and the messages of marsd there, then verify again";
        return Err(AdmError::new(Exit::System, what).remedy(log));
    }
    if !differing.is_empty() {
        let hosts = differing.join(", ");
        return Err(
            AdmError::refused(format!("the disk of {hosts} differs, see above")).remedy(format!(
                "find out what wrote to it or whether it is failing; then: marsadm verify {res} --repair"
            )),
        );
    }
    if !unchecked.is_empty() {
        let what = format!("not everything was compared on {}", unchecked.join(", "));
        return Err(AdmError::new(Exit::Unchecked, what)
            .remedy(format!("when less is written there: marsadm verify {res}")));
    }
    Ok(())
}

/// What was found on one node, as lines.
fn describe(
    res: &ResourceName,
    host: &HostName,
    outcome: &VerifyOutcome,
    size: u64,
) -> Vec<String> {
    let VerifyOutcome {
        differing,
        repaired,
        unchecked,
        ranges,
        more,
    } = outcome;
    let mut lines = vec![if *differing == 0 {
        format!("resource {res} on {host}: no differences in {size} bytes")
    } else {
        format!(
            "resource {res} on {host}: {differing} blocks of 4096 bytes differ, {repaired} repaired"
        )
    }];
    for range in ranges.iter().take(RANGES_SHOWN) {
        let (start, last) = (range.start, (range.start + range.len).saturating_sub(1));
        lines.push(format!("  bytes {start} to {last} ({} bytes)", range.len));
    }
    if *more || ranges.len() > RANGES_SHOWN {
        lines.push("  further ranges are not listed".into());
    }
    if *unchecked > 0 {
        lines.push(format!(
            "  {unchecked} blocks were written whenever they were looked at, and are not compared"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use mars_core::verify::ByteRange;

    #[test]
    fn ranges_and_counts_are_told_and_progress_says_how_long() {
        let res = ResourceName::new("r1").unwrap();
        let host = HostName::new("B").unwrap();
        let mut outcome = VerifyOutcome::default();
        assert_eq!(
            describe(&res, &host, &outcome, 1 << 20),
            ["resource r1 on B: no differences in 1048576 bytes"]
        );
        outcome.differing = 3;
        outcome.unchecked = 2;
        outcome.ranges = vec![ByteRange {
            start: 4096,
            len: 8192,
        }];
        outcome.more = true;
        assert_eq!(
            describe(&res, &host, &outcome, 1 << 20),
            [
                "resource r1 on B: 3 blocks of 4096 bytes differ, 0 repaired",
                "  bytes 4096 to 12287 (8192 bytes)",
                "  further ranges are not listed",
                "  2 blocks were written whenever they were looked at, and are not compared",
            ]
        );
        assert_eq!(
            progress(&host, 25 << 20, 100 << 20, 10),
            "comparing on B (25 of 100 MiB, 25 %, 30 s left)"
        );
        assert_eq!(
            progress(&host, 0, 0, 0),
            "comparing on B (0 of 0 MiB, 100 %)"
        );
    }

    #[test]
    fn only_what_is_repaired_or_equal_is_success() {
        let res = ResourceName::new("r1").unwrap();
        let unchecked = |differing, repaired, unchecked| {
            VerifyState::Done(VerifyOutcome {
                differing,
                repaired,
                unchecked,
                ..VerifyOutcome::default()
            })
        };
        let state = |differing, repaired| unchecked(differing, repaired, 0);
        let answers = |states: Vec<VerifyState>| -> Answers {
            let hosts = ["B", "C"].map(|h| HostName::new(h).unwrap());
            hosts.into_iter().zip(states).collect()
        };
        assert!(report(&res, &answers(vec![state(0, 0), state(2, 2)]), 0).is_ok());
        let error = report(&res, &answers(vec![state(0, 0), state(2, 0)]), 0).unwrap_err();
        assert_eq!(error.code, Exit::Refused);
        assert!(error.to_string().contains("disk of C differs"), "{error}");
        let some = report(&res, &answers(vec![state(0, 0), unchecked(1, 1, 7)]), 0).unwrap_err();
        assert_eq!(some.code, Exit::Unchecked);
        assert!(some.to_string().contains("C (7 blocks)"), "{some}");
        let both = report(&res, &answers(vec![unchecked(0, 0, 1), state(2, 0)]), 0).unwrap_err();
        assert_eq!(both.code, Exit::Refused, "a difference weighs more");
        let failed = VerifyState::Failed("A is not connected".into());
        let error = report(&res, &answers(vec![state(2, 0), failed]), 0).unwrap_err();
        assert_eq!(error.code, Exit::System);
        assert!(
            error.to_string().contains("C: A is not connected"),
            "{error}"
        );
    }
}
