//! The same requests through nginx, HAProxy and us: a few thousand from a grammar, most of them spoiled on purpose. Whatever they
//! are, one of a client's requests never becomes two of ours, nothing arrives that is not well-formed, and everybody gets his own
//! answer. Where the three differ, a table says why.
//!
//! `GATEHOUSE_DIFFERENTIAL_SEED` and `GATEHOUSE_DIFFERENTIAL_COUNT` repeat a run and prolong it; `UPDATE=1` writes the document.

mod exchange;
mod http2;
mod message;
mod mutation;
mod outcome;
mod proxies;
mod recorder;
mod table;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use exchange::{Seen, Victim};
use message::{Meaning, Message};
use mutation::Mutation;
use proxies::{Lane, Proxies};
use table::{Difference, Outcome};

use crate::harness::{Dice, number_from_environment};

/// Cases at once. Most of the time of a run is spent waiting for a proxy to give up on an incomplete request.
const LANES: usize = 12;
const COUNT: u64 = 3000;
const SEED: u64 = 0x6761_7465;

/// A request, and which mutations made it.
struct Case {
    message: Message,
    mutations: Vec<usize>,
    /// Writes that it is sent in.
    pieces: usize,
}

impl Case {
    /// Three of four have one mutation, each in turn; the fourth has two.
    fn new(seed: u64, id: usize, all: &[Mutation]) -> Self {
        let mut dice = Dice::of_case(seed, id);
        let mut message = Message::honest(id, &mut dice);
        let mut mutations = Vec::new();
        if id % 4 == 3 {
            let first = dice.below(all.len());
            let others: Vec<usize> =
                (0..all.len()).filter(|&other| all[other].aspect != all[first].aspect).collect();
            mutations.extend([first, others[dice.below(others.len())]]);
        } else {
            mutations.push((id - id / 4) % all.len());
        }
        for &mutation in &mutations {
            all[mutation].apply(&mut message, &mut dice);
        }
        let pieces = if dice.once_in(8) { dice.between(2, 4) } else { 1 };
        Self { message, mutations, pieces }
    }
}

#[test]
fn one_request_never_becomes_two_and_every_difference_is_explained() {
    let (seed, count) = seed_and_count(COUNT);
    let all = mutation::all();
    let cases: Vec<Case> = (0..count).map(|id| Case::new(seed, id, &all)).collect();
    let names = |case: &Case| case.mutations.iter().map(|&mutation| all[mutation].name.clone()).collect();
    let run = |case: &Case, lane: &Lane, victim: &mut Victim| {
        exchange::run(lane, victim, &case.message, case.pieces)
    };
    let shown = |case: &Case| case.message.bytes().escape_ascii().to_string();
    let outcomes = check(&cases, run, |case| &case.message.meaning, names, shown);
    compare(&outcomes, table::HTTP_1, all.len());
}

#[test]
fn one_request_over_http_2_never_becomes_two_and_every_difference_is_explained() {
    let all = http2::MUTATIONS;
    let (_, count) = seed_and_count(2 * all.len() as u64);
    let cases: Vec<(&str, http2::Request)> = (0..count.max(1))
        .map(|id| {
            let (name, change) = all[id % all.len()];
            let mut request = http2::Request::honest(id);
            change(&mut request);
            (name, request)
        })
        .collect();
    let outcomes = check(
        &cases,
        |(_, request), lane, victim| http2::run(lane, victim, request),
        |(_, request)| &request.meaning,
        |(name, _)| vec![(*name).to_owned()],
        |(_, request)| format!("{:?} {:?}", request.fields, request.body),
    );
    compare(&outcomes, table::HTTP_2, all.len());
}

#[test]
fn the_document_has_every_difference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/differential.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, table::render()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == table::render(), "{} is old: UPDATE=1 cargo e2e differential", path.display());
}

/// Their heads are seeds for the parser of heads too: `UPDATE=1` writes some.
#[test]
fn the_fuzzers_start_from_such_requests() {
    let all = mutation::all();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/head");
    for id in (0..400).step_by(10) {
        let head = Case::new(SEED, id, &all).message.head();
        let file = corpus.join(format!("generated-{id}"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &head).unwrap();
        }
        assert!(std::fs::read(&file).unwrap_or_default() == head, "{} is old: UPDATE=1", file.display());
    }
}

/// Of a run; printed, so that one that fails can be repeated.
fn seed_and_count(count: u64) -> (u64, usize) {
    let seed = number_from_environment("GATEHOUSE_DIFFERENTIAL_SEED", SEED);
    let count = number_from_environment("GATEHOUSE_DIFFERENTIAL_COUNT", count);
    println!("GATEHOUSE_DIFFERENTIAL_SEED={seed} GATEHOUSE_DIFFERENTIAL_COUNT={count}");
    (seed, usize::try_from(count).unwrap())
}

/// Runs all cases through the three, fails for what must never happen through us, and says what became of each.
fn check<Case: Sync>(
    cases: &[Case],
    run: impl Fn(&Case, &Lane, &mut Victim) -> Seen + Sync,
    meaning: impl Fn(&Case) -> &Meaning + Sync,
    names: impl Fn(&Case) -> Vec<String>,
    shown: impl Fn(&Case) -> String,
) -> Vec<Outcome> {
    let mut proxies = Proxies::start(LANES);
    let next = AtomicUsize::new(0);
    let seen = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for lane in 0..LANES {
            let (lanes, next, seen, run) = (&proxies.lanes, &next, &seen, &run);
            scope.spawn(move || {
                let mut victims = [const { Victim::new() }; 3];
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { return };
                    let mut victims = victims.iter_mut();
                    let of_three = lanes
                        .each_ref()
                        .map(|of_one| run(case, &of_one[lane], victims.next().expect("as many as proxies")));
                    seen.lock().unwrap().push((at, of_three));
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_by_key(|(at, _)| *at);
    let mut faults = Vec::new();
    let mut outcomes = Vec::new();
    for (at, of_three) in &seen {
        let case = &cases[*at];
        let violations = outcome::violations(&of_three[0], meaning(case));
        if !violations.is_empty() {
            let received: Vec<String> = of_three[0].requests.iter().map(|request| request.shown()).collect();
            let (names, sent, received) = (names(case), shown(case), received.join("\n    "));
            faults
                .push(format!("{names:?}: {violations:?}\n  sent\n    {sent}\n  received\n    {received}\n"));
        }
        let words = of_three.each_ref().map(|seen| outcome::words(seen, meaning(case)));
        outcomes.push(Outcome { mutations: names(case), words, sent: shown(case) });
    }
    assert!(proxies.is_running(), "gatehouse has ended:\n{}", proxies.log());
    let log = proxies.log();
    assert!(!log.contains("panicked") && !log.contains("\"level\":\"ERROR\""), "{log}");
    let asked = Outcome::count_per_proxy(&outcomes);
    println!("{} cases; forwarded by us, nginx, HAProxy: {asked:?}", outcomes.len());
    assert!(faults.is_empty(), "{} of {} cases:\n{}", faults.len(), cases.len(), faults.join("\n"));
    outcomes
}

/// Fails for a difference without an entry and, in a run that has had every mutation, for an entry without a difference.
fn compare(outcomes: &[Outcome], table: &[Difference], mutations: usize) {
    let unexplained = table::unexplained(outcomes, table);
    let rows: Vec<String> =
        unexplained.iter().map(|(words, names)| format!("{words:?}\n    {}", names.join("\n    "))).collect();
    assert!(rows.is_empty(), "differences that the table does not explain:\n{}", rows.join("\n"));
    if outcomes.len() >= 2 * mutations {
        let stale = table::stale(outcomes, table);
        assert!(stale.is_empty(), "the table explains what does not differ so:\n{}", stale.join("\n"));
    }
}
