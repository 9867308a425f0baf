//! What a chaos run does next: drawn from the seed and from what was drawn before, never from what really happened, so
//! that a seed always gives the same decisions.

use std::collections::BTreeSet;
use std::fmt;

use crate::load::mix;

/// Numbers that follow from a seed.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x6d61_7273))
    }

    /// A number below `sides`, which must not be 0.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0) % sides.max(1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let sides = u64::try_from(from.len()).ok().filter(|n| *n > 0)?;
        usize::try_from(self.roll(sides))
            .ok()
            .and_then(|i| from.get(i).copied())
    }
}

/// One step; nodes are numbers from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Write so many blocks on whoever serves the device.
    Write(u64),
    /// A command of marsadm on a node.
    Command(usize, &'static str),
    /// The same, not waited for.
    Background(usize, &'static str),
    /// The role goes to a node whatever speaks against it.
    Force(usize),
    /// `fake-sync` on a node whose disk is known to be right.
    FakeSync(usize),
    /// `invalidate-remote --node` of the second on the first.
    InvalidateRemote(usize, usize),
    /// A member leaves the resource.
    Leave(usize),
    /// A node joins the resource.
    Join(usize),
    /// marsd dies; it is started again at once, or later by [`Decision::StartDaemon`].
    KillDaemon(usize, bool),
    /// marsd is started.
    StartDaemon(usize),
    /// The shim dies.
    KillShim(usize),
    /// The node dies.
    PowerOff(usize),
    /// It comes back with its daemon.
    Boot(usize),
    /// The cable between two nodes is cut.
    Cut(usize, usize),
    /// It is mended.
    Heal(usize, usize),
    /// The clock of a node jumps to so many seconds from the right time.
    Clock(usize, i64),
    /// So many milliseconds pass.
    Pause(u64),
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(node, command) => write!(f, "node {node}: marsadm {command}"),
            Self::Background(node, command) => write!(f, "node {node}: marsadm {command} &"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// Commands that concern the whole resource or one node; `log-*` and roles come more often than the others.
const COMMANDS: [&str; 26] = [
    "primary",
    "primary",
    "primary",
    "secondary",
    "log-rotate",
    "log-rotate",
    "log-rotate",
    "log-delete",
    "log-delete-all",
    "connect",
    "disconnect",
    "connect-local",
    "disconnect-local",
    "pause-sync",
    "resume-sync",
    "pause-sync-local",
    "resume-sync-local",
    "pause-replay",
    "resume-replay",
    "pause-replay-local",
    "resume-replay-local",
    "attach",
    "detach",
    "up",
    "down",
    "invalidate",
];

const CLOCKS: [i64; 6] = [0, 7_200, -7_200, 90, -90, 86_400 * 3];

/// Draws decisions for a number of nodes.
#[derive(Debug, Clone)]
pub struct Decider {
    dice: Dice,
    nodes: usize,
    without_daemon: BTreeSet<usize>,
    off: BTreeSet<usize>,
    cut: BTreeSet<(usize, usize)>,
}

impl Decider {
    /// The decisions of `seed`.
    pub fn new(seed: u64, nodes: usize) -> Self {
        Self {
            dice: Dice::new(seed),
            nodes,
            without_daemon: BTreeSet::new(),
            off: BTreeSet::new(),
            cut: BTreeSet::new(),
        }
    }

    /// Everything is mended.
    pub fn rest(&mut self) {
        self.without_daemon.clear();
        self.off.clear();
        self.cut.clear();
    }

    /// The next step.
    pub fn decide(&mut self) -> Decision {
        loop {
            if let Some(decision) = self.draw() {
                return decision;
            }
        }
    }

    fn node(&mut self) -> Option<usize> {
        let all: Vec<usize> = (0..self.nodes).collect();
        self.dice.pick(&all)
    }

    /// A node that is up.
    fn living(&mut self) -> Option<usize> {
        self.node().filter(|n| !self.off.contains(n))
    }

    fn draw(&mut self) -> Option<Decision> {
        Some(match self.dice.roll(100) {
            0..=24 => Decision::Write(50 + self.dice.roll(1200)),
            25..=54 => {
                let (node, command) = (self.living()?, self.dice.pick(&COMMANDS)?);
                if self.dice.roll(4) == 0 {
                    Decision::Background(node, command)
                } else {
                    Decision::Command(node, command)
                }
            }
            55..=56 => Decision::Force(self.living()?),
            57 => Decision::FakeSync(self.living()?),
            58..=59 => self.pair().map(|(a, b)| Decision::InvalidateRemote(a, b))?,
            60..=61 => Decision::Leave(self.living()?),
            62..=64 => Decision::Join(self.living()?),
            65..=71 => self.daemon()?,
            72..=75 => Decision::KillShim(self.living()?),
            76..=81 => self.power()?,
            82..=88 => self.cable()?,
            89..=91 => Decision::Clock(self.living()?, self.dice.pick(&CLOCKS)?),
            _ => Decision::Pause(self.dice.roll(1500)),
        })
    }

    fn pair(&mut self) -> Option<(usize, usize)> {
        let (a, b) = (self.living()?, self.living()?);
        (a != b).then_some((a.min(b), a.max(b)))
    }

    fn daemon(&mut self) -> Option<Decision> {
        let node = self.living()?;
        if self.without_daemon.remove(&node) {
            return Some(Decision::StartDaemon(node));
        }
        let again = self.dice.roll(3) > 0;
        if !again {
            self.without_daemon.insert(node);
        }
        Some(Decision::KillDaemon(node, again))
    }

    fn power(&mut self) -> Option<Decision> {
        let node = self.node()?;
        if self.off.remove(&node) {
            self.without_daemon.remove(&node);
            return Some(Decision::Boot(node));
        }
        // At least two stay up.
        (self.off.len() + 2 < self.nodes).then(|| {
            self.off.insert(node);
            Decision::PowerOff(node)
        })
    }

    fn cable(&mut self) -> Option<Decision> {
        let (a, b) = self.pair()?;
        Some(if self.cut.remove(&(a, b)) {
            Decision::Heal(a, b)
        } else {
            self.cut.insert((a, b));
            Decision::Cut(a, b)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_decisions_and_another_seed_others() {
        let draw = |seed| {
            let mut decider = Decider::new(seed, 4);
            (0..300).map(|_| decider.decide()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn what_is_off_is_not_commanded_and_two_nodes_stay_up() {
        let mut decider = Decider::new(3, 4);
        let mut off = BTreeSet::new();
        for _ in 0..3000 {
            match decider.decide() {
                Decision::PowerOff(n) => assert!(off.insert(n) && off.len() <= 2),
                Decision::Boot(n) => assert!(off.remove(&n)),
                Decision::Command(n, _) | Decision::KillDaemon(n, _) | Decision::Force(n) => {
                    assert!(!off.contains(&n));
                }
                _ => {}
            }
        }
    }
}
