//! Random histories on three real devices with real mounts, while cables are pulled and daemons
//! are killed; in the end all mounts show the same tree, and nothing that was saved is lost.
//!
//! Several histories are a **play**: they share its weather, and each works in directories of its
//! own, so that what costs time is waited for once. A history can be replayed alone in the weather
//! of its play.

pub mod hold;
pub mod ledger;
pub mod person;
pub mod stage;
pub mod weather;

use crate::random::Random;
use crate::tree::Tree;
use hold::Held;
use ledger::{Act, Ledger};
use person::Person;
use stage::Stage;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use weather::{DEVICES, Phase, Turn};

/// How many histories make a play. Their seeds follow one another.
pub const PLAY: u64 = 10;
/// How many histories are played in one circle, before a new one is founded.
pub const CIRCLE: u64 = 100;

/// What was played so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Total {
    /// How many histories.
    pub histories: u64,
    /// How many operations.
    pub operations: u64,
    /// How often a daemon was killed, or ended.
    pub stops: u64,
    /// How many copies and names beside others were in the final trees.
    pub repairs: u64,
}

/// Plays these histories, the seeds `first` and following. `progress` is told after each play;
/// `None` with a visible notice where this machine can't play.
///
/// # Panics
/// At the first violation; the message has its history, and how to replay it.
pub fn play_all(first: u64, histories: u64, mut progress: impl FnMut(&Total)) -> Option<Total> {
    let mut total = Total::default();
    let (mut next, end) = (first, first + histories);
    while next < end {
        let mut stage = Stage::or_skip()?;
        let until = end.min(next + CIRCLE);
        while next < until {
            let seeds: Vec<u64> = (next..until.min(next - next % PLAY + PLAY)).collect();
            next += seeds.len() as u64;
            play(&mut stage, &seeds, &mut total);
            progress(&total);
        }
    }
    Some(total)
}

/// Plays histories of one play.
fn play(stage: &mut Stage, seeds: &[u64], total: &mut Total) {
    let mut play = Play::new(stage, seeds);
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play.go(total)));
    let played = played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err((None, text.unwrap_or_else(|| "a test failed".into())))
    });
    let complaints = play.stage.complaints();
    let wrong = match played {
        Ok(()) if complaints.is_empty() => return,
        Ok(()) => (None, format!("a daemon complained:\n  {}", complaints.join("\n  "))),
        Err(wrong) => wrong,
    };
    let mut story = play.story_of(wrong.0);
    for device in (0..DEVICES).filter(|device| !play.stage.is_down(*device)) {
        let share = play.stage.device(device).share();
        let _ = writeln!(story, "  {}: {share:?}", play.stage.device(device).name());
    }
    let which = wrong.0.map_or(seeds[0], |history| seeds[history]);
    let count = if wrong.0.is_some() { 1 } else { seeds.len() };
    panic!(
        "history {which}: {}\n{story}Again: cargo run -p kith-tests --bin histories -- \
         --histories {count} --first {which}",
        wrong.1
    );
}

/// A violation: of which history if that is known, and what is wrong.
type Violation = (Option<usize>, String);

struct Play<'a> {
    stage: &'a mut Stage,
    seeds: &'a [u64],
    prefixes: Vec<String>,
    randoms: Vec<Random>,
    phases: Vec<Phase>,
    weather: Random,
    saves: u64,
    absent: BTreeSet<(usize, PathBuf)>,
    held: Vec<Held>,
    ledger: Ledger,
    story: Vec<(usize, String)>,
}

/// In the story: of all histories.
const ALL: usize = usize::MAX;

impl<'a> Play<'a> {
    fn new(stage: &'a mut Stage, seeds: &'a [u64]) -> Play<'a> {
        let mut weather = Random::new((seeds[0] / PLAY) ^ 0x7765_6174_6865_7200);
        let phases = weather::draw(&mut weather);
        Play {
            stage,
            seeds,
            prefixes: seeds.iter().map(|seed| format!("{}.", seed % PLAY)).collect(),
            randoms: seeds.iter().map(|seed| Random::new(seed ^ 0x6869_7374_6f72_7900)).collect(),
            phases,
            weather,
            saves: 0,
            absent: BTreeSet::new(),
            held: Vec::new(),
            ledger: Ledger::default(),
            story: Vec::new(),
        }
    }

    fn go(&mut self, total: &mut Total) -> Result<(), Violation> {
        for phase in std::mem::take(&mut self.phases) {
            self.absent.clear();
            for turn in phase.turns {
                self.turn(turn, total)?;
            }
            self.stage.stir();
            for _ in 0..phase.operations {
                for history in 0..self.seeds.len() {
                    self.operate(history)?;
                    total.operations += 1;
                }
            }
        }
        self.end(total)
    }

    fn turn(&mut self, mut turn: Turn, total: &mut Total) -> Result<(), Violation> {
        // Nobody is in sync while something is written that was not saved.
        if turn == Turn::Settle && self.held.iter().any(|held| held.dirty) {
            if self.weather.chance(60) {
                self.close_all(|held| held.dirty)?;
            } else {
                turn = Turn::Meet;
            }
        }
        if let Turn::Kill(device) | Turn::End(device) = turn
            && !self.stage.is_down(device)
        {
            total.stops += 1;
            self.forget_held(device, matches!(turn, Turn::End(_)));
        }
        if let Some((told, agreed)) = self.stage.turn(turn) {
            self.story.push((ALL, told));
            if let Some(tree) = agreed {
                self.judge(&tree)?;
            }
        }
        Ok(())
    }

    /// The files that were open on a device go with its daemon. What was written and not saved may
    /// come back as the file: if it was synced, if the daemon had time to end, and also if anybody
    /// closed the file meanwhile, a reader too, for then the kernel hands over times as it does
    /// when a writer closes it.
    fn forget_held(&mut self, device: usize, in_order: bool) {
        let alone = self.stage.is_alone(device);
        if !in_order {
            self.ledger.strike(device);
        }
        for mut held in self.held.extract_if(.., |held| held.device == device) {
            let nameless = !in_order && held.links().map_or(true, |links| links == 0);
            if nameless && let Ok(content) = held.content() {
                // There is nothing that it could come back beside.
                held.ended.extend(content);
            }
            if held.dirty {
                self.ledger.note(Act {
                    what: format!(
                        "{}: stops with {} open",
                        self.stage.device(device).name(),
                        held.path
                    ),
                    history: held.history,
                    device,
                    ended: held.ended.clone(),
                    alone,
                    ..Act::default()
                });
            }
        }
    }

    fn operate(&mut self, history: usize) -> Result<(), Violation> {
        let random = &mut self.randoms[history];
        let (device, chance) = (random.index(DEVICES), random.draw());
        if self.stage.is_down(device) {
            return Ok(());
        }
        let mut person = self.person(history, device);
        person.operate(chance).map_err(|wrong| (Some(history), wrong.0))
    }

    fn person(&mut self, history: usize, device: usize) -> Person<'_> {
        Person {
            mount: self.stage.device(device).mount(),
            prefix: &self.prefixes[history],
            history,
            device,
            name: self.stage.device(device).name(),
            alone: self.stage.is_alone(device),
            saves: &mut self.saves,
            absent: &mut self.absent,
            held: &mut self.held,
            ledger: &mut self.ledger,
            story: &mut self.story,
        }
    }

    /// Everything heals, and must be as was promised.
    fn end(&mut self, total: &mut Total) -> Result<(), Violation> {
        let early = self.weather.chance(50);
        if early {
            self.close_all(|_| true)?;
        }
        for device in 0..DEVICES {
            self.turn(Turn::Join(device), total)?;
            self.turn(Turn::Run(device), total)?;
        }
        if !early {
            self.turn(Turn::Meet, total)?;
            self.close_all(|_| true)?;
        }
        self.story.push((ALL, "--- everything heals".into()));
        let tree = self.stage.heal();
        self.judge(&tree)?;
        let beside = tree.nodes.keys().filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains(" ("))
        });
        total.repairs += beside.count() as u64;
        total.histories += self.seeds.len() as u64;
        let device = self.weather.index(DEVICES);
        self.stage.clear(device).map_err(|what| (None, what))
    }

    /// Nothing that was saved is lost.
    fn judge(&self, tree: &Tree) -> Result<(), Violation> {
        let lost = self.ledger.lost(&ledger::visible(tree));
        let Some(first) = lost.first() else { return Ok(()) };
        let all: Vec<String> = lost.iter().map(|lost| lost.what.clone()).collect();
        let prefix = &self.prefixes[first.history];
        let mut text = all.join("\n  ");
        for (path, node) in &tree.nodes {
            if path.to_string_lossy().starts_with(prefix) {
                let _ = write!(text, "\n  there is {}: {node}", path.display());
            }
        }
        Err((Some(first.history), text))
    }

    /// Closes those of the open files that `which` picks.
    fn close_all(&mut self, which: fn(&Held) -> bool) -> Result<(), Violation> {
        for held in self.held.extract_if(.., |held| which(held)).collect::<Vec<_>>() {
            let history = held.history;
            let mut person = self.person(history, held.device);
            person.finish(held).map_err(|wrong| (Some(history), wrong.0))?;
        }
        Ok(())
    }

    /// What was done in one history, or in all, and around it.
    fn story_of(&self, history: Option<usize>) -> String {
        let mut text = String::new();
        for (of, line) in &self.story {
            if *of == ALL || history.is_none_or(|history| history == *of) {
                let _ = writeln!(text, "  {line}");
            }
        }
        text
    }
}
