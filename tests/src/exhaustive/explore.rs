//! Following all histories of a plan.

use super::canon::{self, Tokens};
use super::deed::{Deed, Device, Sort, Tally};
use kith_core::clock::WallMs;
use kith_core::id::Tag;
use kith_core::index::{IndexRead, Node, Register};
use kith_core::operation::Context;
use kith_core::receive::receive;
use kith_core::view::{Whole, compute};
use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// The devices' names.
const NAMES: [&str; 2] = ["desk", "lap"];

/// Which histories to follow.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What everybody has to begin with, as commands of the same words as histories have, with
    /// commas between.
    pub given: &'static str,
    /// Which kinds of operations there are.
    pub sorts: Vec<Sort>,
    /// How many operations each device does at most.
    pub most: [usize; 2],
    /// Whether messages can cross one another, or arrive as soon as they are sent.
    pub crossing: bool,
    /// Whether each message may arrive in part.
    pub cuts: bool,
    /// At how many states to give up: then the plan is too large to be followed.
    pub limit: u64,
}

/// What was followed.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Joint states of both devices and of what is under way between them.
    pub states: u64,
    /// Steps between them.
    pub steps: u64,
    /// Histories that the steps make, each beginning of one counted by itself.
    pub histories: u128,
    /// Different pairs of devices that were healed and checked.
    pub endings: u64,
    /// Whether the plan was given up.
    pub given_up: bool,
    /// What was found wrong, if anything.
    pub violation: Option<Violation>,
}

/// A history that breaks a promise, shortened.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What is wrong.
    pub problem: String,
    /// The history.
    pub history: Vec<String>,
}

/// A device as it was at some moment.
struct Moment {
    device: Device,
    tokens: Tokens,
}

#[derive(Clone)]
struct Side {
    now: Rc<Moment>,
    /// What it was before and may still arrive at the other, the oldest first.
    past: Vec<Rc<Moment>>,
    done: usize,
}

#[derive(Clone)]
struct Joint {
    sides: [Side; 2],
    tally: Tally,
}

enum Move {
    Do(usize, Deed),
    /// To whom, which moment of the other (its present is behind all past ones), and how many of
    /// the registers that are news, if not all.
    Hear(usize, usize, Option<usize>),
}

/// Follows all histories of a plan, until the first that breaks a promise.
#[must_use]
pub fn explore(plan: &Plan) -> Report {
    let mut explorer = Explorer {
        plan,
        known: HashMap::new(),
        healed: HashSet::new(),
        report: Report::default(),
        path: Vec::new(),
    };
    let begin = Joint::begin(plan.given);
    match explorer.visit(&begin) {
        Ok(histories) => explorer.report.histories = histories,
        Err(problem) => {
            let history = shorten(plan, core::mem::take(&mut explorer.path));
            let problem = replay(plan, &history).err().unwrap_or(problem);
            explorer.report.violation = Some(Violation { problem, history });
        }
    }
    explorer.report.endings = explorer.healed.len() as u64;
    explorer.report
}

struct Explorer<'a> {
    plan: &'a Plan,
    /// How many histories go on from each state.
    known: HashMap<u128, u128>,
    healed: HashSet<u128>,
    report: Report,
    path: Vec<String>,
}

impl Explorer<'_> {
    fn visit(&mut self, joint: &Joint) -> Result<u128, String> {
        let key = joint.key();
        if let Some(histories) = self.known.get(&key) {
            return Ok(*histories);
        }
        if self.report.states >= self.plan.limit {
            self.report.given_up = true;
            return Ok(0);
        }
        self.report.states += 1;
        if self.healed.insert(joint.ending_key()) {
            joint.heal()?;
        }
        let mut histories = 1_u128;
        for step in joint.moves(self.plan) {
            let text = joint.tell(&step);
            self.path.push(text);
            let next = joint.take(self.plan, &step);
            if let Some(next) = next? {
                self.report.steps += 1;
                let on = self.visit(&next)?;
                histories = histories.saturating_add(on);
            }
            self.path.pop();
        }
        self.known.insert(key, histories);
        Ok(histories)
    }
}

/// Plays a history, and says what is wrong with it. What can't be done is no history.
fn replay(plan: &Plan, history: &[String]) -> Result<bool, String> {
    let mut joint = Joint::begin(plan.given);
    for text in history {
        let steps = joint.moves(&Plan { most: [usize::MAX; 2], ..plan.clone() });
        let Some(step) = steps.iter().find(|step| joint.tell(step) == *text) else {
            return Ok(false);
        };
        match joint.take(plan, step)? {
            Some(next) => joint = next,
            None => return Ok(false),
        }
    }
    joint.heal()?;
    Ok(true)
}

/// Leaves out steps for as long as what is left is still wrong.
fn shorten(plan: &Plan, mut history: Vec<String>) -> Vec<String> {
    loop {
        let without = (0..history.len()).map(|at| {
            let mut shorter = history.clone();
            shorter.remove(at);
            shorter
        });
        match without.into_iter().find(|shorter| replay(plan, shorter).is_err()) {
            Some(shorter) => history = shorter,
            None => return history,
        }
    }
}

/// Does what may panic, and takes that for a problem.
fn soundly<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

impl Moment {
    fn new(device: Device) -> Rc<Moment> {
        let tokens = Tokens::of(&device);
        Rc::new(Moment { device, tokens })
    }

    /// What of this the other has not, in the order of the log.
    fn news_to(&self, other: &Moment) -> Vec<Register> {
        let mut news = self.device.index.registers();
        news.retain(|register| match register {
            Register::Inode(inode) => {
                let Ok(held) = other.device.index.inode(inode.id);
                held.is_none_or(|mut held| held.inode.merge(inode.clone()).changed)
            }
            Register::Entry(entry) => {
                let Ok(held) = other.device.index.entry(entry.id);
                held.is_none_or(|mut held| held.entry.merge(entry.clone()))
            }
        });
        news
    }
}

fn hear(device: &mut Device, steps: &mut u64, registers: Vec<Register>) {
    *steps += 1;
    let context = Context { now: WallMs(1_699_959_600_000 + *steps), tag: Tag(*steps) };
    let Ok(_) = receive(&mut device.index, context, registers);
}

impl Joint {
    fn begin(given: &str) -> Joint {
        let mut tally = Tally::default();
        let mut desk = Device::new(0);
        for command in given.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let deeds = desk.deeds(&Sort::ALL);
            let deed = deeds.iter().find(|deed| deed.text == command);
            let deed = deed.unwrap_or_else(|| panic!("{command} can't be done"));
            desk.perform(&mut tally, deed).expect("what is given can be done");
        }
        let mut lap = Device::new(1);
        hear(&mut lap, &mut tally.steps, desk.index.registers());
        let side = |device| Side { now: Moment::new(device), past: Vec::new(), done: 0 };
        Joint { sides: [side(desk), side(lap)], tally }
    }

    fn key(&self) -> u128 {
        let mut parts: Vec<([u8; 3], &Tokens)> = Vec::new();
        for (at, side) in self.sides.iter().enumerate() {
            let (at, done) = (at as u8, side.done as u8);
            parts.extend(side.past.iter().map(|moment| ([at, done, 0], &moment.tokens)));
            parts.push(([at, done, 1], &side.now.tokens));
        }
        let parts: Vec<(&[u8], &Tokens)> =
            parts.iter().map(|(head, tokens)| (&head[..], *tokens)).collect();
        canon::hash(&parts, self.tally.due())
    }

    fn ending_key(&self) -> u128 {
        let parts = self.sides.each_ref().map(|side| (&[][..], &side.now.tokens));
        canon::hash(&parts, self.tally.due())
    }

    fn moves(&self, plan: &Plan) -> Vec<Move> {
        let mut moves = Vec::new();
        for (at, side) in self.sides.iter().enumerate() {
            if side.done < plan.most[at] {
                let deeds = side.now.device.deeds(&plan.sorts);
                moves.extend(deeds.into_iter().map(|deed| Move::Do(at, deed)));
            }
            let other = &self.sides[1 - at];
            for (moment, then) in other.past.iter().chain([&other.now]).enumerate() {
                let news = then.news_to(&side.now).len();
                if news == 0 {
                    continue;
                }
                moves.push(Move::Hear(at, moment, None));
                if plan.cuts {
                    moves.extend((1..news).map(|cut| Move::Hear(at, moment, Some(cut))));
                }
            }
        }
        moves
    }

    fn tell(&self, step: &Move) -> String {
        match step {
            Move::Do(at, deed) => format!("{}: {}", NAMES[*at], deed.text),
            Move::Hear(to, moment, cut) => {
                let ago = self.sides[1 - to].past.len() - moment;
                let ago = if ago == 0 { String::new() } else { format!(", {ago} steps ago") };
                let cut = cut.map_or_else(String::new, |cut| format!(", {cut} registers"));
                format!("{} hears of {}{ago}{cut}", NAMES[*to], NAMES[1 - to])
            }
        }
    }

    /// Takes a step. The view that is kept up must be the one that the registers make.
    fn take(&self, plan: &Plan, step: &Move) -> Result<Option<Joint>, String> {
        let mut next = self.clone();
        let (at, device) = match step {
            Move::Do(at, deed) => {
                let mut device = self.sides[*at].now.device.clone();
                if soundly(|| Ok(device.perform(&mut next.tally, deed)))?.is_none() {
                    return Ok(None);
                }
                next.sides[*at].done += 1;
                (*at, device)
            }
            Move::Hear(to, moment, cut) => {
                let side = &self.sides[*to];
                let mut device = side.now.device.clone();
                let other = &mut next.sides[1 - to];
                let then = other.past.get(*moment).unwrap_or(&other.now).clone();
                let mut news = then.news_to(&side.now);
                news.truncate(cut.unwrap_or(usize::MAX));
                let passed = if cut.is_some() { *moment } else { moment + 1 };
                other.past.drain(..passed.min(other.past.len()));
                soundly(|| {
                    hear(&mut device, &mut next.tally.steps, news);
                    Ok(())
                })?;
                (*to, device)
            }
        };
        check_view(&device)?;
        let now = Moment::new(device);
        let before = core::mem::replace(&mut next.sides[at].now, now);
        let unheard = plan.crossing && !before.news_to(&next.sides[1 - at].now).is_empty();
        if unheard {
            next.sides[at].past.push(before);
        }
        Ok(Some(next))
    }

    /// What is open is finished, and both hear of everything: then they must agree.
    fn heal(&self) -> Result<(), String> {
        let mut tally = self.tally.clone();
        let [mut desk, mut lap] = self.sides.each_ref().map(|side| side.now.device.clone());
        soundly(|| {
            desk.finish(&mut tally);
            lap.finish(&mut tally);
            hear(&mut lap, &mut tally.steps, desk.index.registers());
            hear(&mut desk, &mut tally.steps, lap.index.registers());
            check_view(&desk)?;
            check_view(&lap)
        })?;
        let registers = |device: &Device| {
            let inodes = device.index.inodes().map(|state| state.inode.clone());
            let entries = device.index.entries().map(|state| state.entry.clone());
            (inodes.collect::<Vec<_>>(), entries.collect::<Vec<_>>())
        };
        let (ours, theirs) = (registers(&desk), registers(&lap));
        if ours != theirs {
            let one = ours.0.iter().zip(&theirs.0).find(|(one, other)| one != other);
            let two = ours.1.iter().zip(&theirs.1).find(|(one, other)| one != other);
            return Err(format!("both end with different registers: {one:?} {two:?}"));
        }
        if !desk.index.view().eq(lap.index.view()) {
            return Err("both end with different trees".to_owned());
        }
        let rows = desk.rows();
        if rows.len() != desk.index.view().count() {
            return Err("something shown can't be reached from the root".to_owned());
        }
        let mut shown = 0_u64;
        for (_, row, _) in &rows {
            let Ok(state) = desk.index.inode(row.node.inode());
            let inode = state.ok_or("a node without an inode")?.inode;
            let version = match row.node {
                Node::Inode(_) => inode.latest(),
                Node::Copy { version, .. } => inode.versions.get(&version),
            };
            let bytes = version.map_or(0, |version| version.content.size_bytes);
            shown |= if bytes < 64 { 1 << bytes } else { 0 };
        }
        match tally.due() & !shown {
            0 => Ok(()),
            lost => {
                let paths: Vec<&String> = rows.iter().map(|(path, _, _)| path).collect();
                Err(format!("save number {} is lost; shown is {paths:?}", lost.trailing_zeros()))
            }
        }
    }
}

fn check_view(device: &Device) -> Result<(), String> {
    let index = &device.index;
    let inodes: Vec<_> = index.inodes().map(|state| state.inode.clone()).collect();
    let entries: Vec<_> = index.entries().cloned().collect();
    let kept = Whole {
        shown: index.view().cloned().collect(),
        entries: entries
            .iter()
            .map(|state| (state.entry.id, (state.shown_parent, state.present)))
            .collect(),
        unions: index.unions().collect(),
    };
    let anew = compute(&inodes, &entries);
    if kept == anew {
        return Ok(());
    }
    Err(format!("the view that was kept up is {kept:?}, and anew it is {anew:?}"))
}
