//! What the plan asks of whom, and that its books agree whatever happens.

use super::*;
use Priority::{Ahead, Background, Foreground};
use alloc::vec;

fn chunk(n: u32) -> ChunkId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    ChunkId(id)
}

const fn source(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn plan(sources: u8) -> FetchPlan {
    let mut plan = FetchPlan::new();
    (1..=sources).for_each(|n| assert!(plan.source_up(source(n))));
    plan
}

fn numbers(request: &Request) -> Vec<u32> {
    let number = |id: &ChunkId| u32::from_be_bytes(*id.0.first_chunk().unwrap());
    request.chunks.iter().map(|(id, _)| number(id)).collect()
}

#[test]
fn what_a_program_waits_for_comes_first_and_what_follows_it_next() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    plan.want(chunk(2), 10, Ahead);
    plan.want(chunk(3), 10, Foreground);
    let asked: Vec<_> =
        plan.next(0).iter().map(|request| (request.priority, numbers(request))).collect();
    assert_eq!(asked, [(Foreground, vec![3]), (Ahead, vec![2]), (Background, vec![1])]);
    assert_eq!(plan.next(0), []);
}

#[test]
fn small_chunks_share_a_request_within_its_bounds() {
    let cases = [
        (10, Background, 600, vec![256, 256, 88]),
        (100_000, Background, 25, vec![10, 10, 5]),
        (4 << 20, Background, 2, vec![1, 1]),
        (10, Foreground, 20, vec![16, 4]),
        (200_000, Foreground, 2, vec![1, 1]),
    ];
    for (len, priority, count, expected) in cases {
        let mut plan = plan(1);
        (0..count).for_each(|n| assert!(plan.want(chunk(n), len, priority)));
        let sizes: Vec<_> = plan.next(0).iter().map(|request| request.chunks.len()).collect();
        assert_eq!(sizes, expected, "{count} chunks of {len} bytes");
    }
}

#[test]
fn the_rarest_comes_first_in_the_background() {
    let mut plan = plan(2);
    (1..=3).for_each(|n| assert!(plan.want(chunk(n), 2 << 20, Background)));
    let asked = plan.next(0);
    let of_second = asked.iter().find(|request| request.source == source(2)).unwrap();
    let denied = of_second.chunks[0].0;
    plan.want(chunk(9), 2 << 20, Background);
    (10..30).for_each(|n| assert!(plan.want(chunk(n), 2 << 20, Background)));
    // Fill both sources, so that what was denied must wait, and then let one place get free.
    let _ = plan.next(0);
    plan.absent(of_second.id, denied);
    let first = asked.iter().find(|request| request.source == source(1)).unwrap();
    plan.arrived(0, first.id, first.chunks[0].0);
    let next = plan.next(0);
    let of_first = next.iter().find(|request| request.source == source(1)).unwrap();
    assert_eq!(of_first.chunks[0].0, denied);
}

#[test]
fn work_spreads_over_all_sources() {
    let mut plan = plan(3);
    (0..9).for_each(|n| assert!(plan.want(chunk(n), 1 << 20, Background)));
    let asked = plan.next(0);
    for n in 1..=3 {
        assert_eq!(asked.iter().filter(|request| request.source == source(n)).count(), 3);
    }
}

#[test]
fn no_more_is_in_flight_than_allowed_but_a_waiting_program_goes_before() {
    let mut plan = plan(1);
    (0..100).for_each(|n| assert!(plan.want(chunk(n), 1 << 20, Background)));
    assert_eq!(plan.next(0).len(), 16);
    assert_eq!(plan.in_flight_bytes(), IN_FLIGHT_MAX_BYTES);
    assert_eq!(plan.next(0).len(), 0);
    (100..120).for_each(|n| assert!(plan.want(chunk(n), 1 << 20, Foreground)));
    assert_eq!(plan.next(0).len(), 8);
    assert_eq!(plan.next(0).len(), 0);

    let mut plan = self::plan(1);
    (0..20_000).for_each(|n| assert!(plan.want(chunk(n), 1, Background)));
    assert_eq!(plan.next(0).len(), IN_FLIGHT_MAX_REQUESTS);
}

#[test]
fn a_chunk_that_becomes_urgent_is_asked_for_once_more() {
    let mut plan = plan(2);
    plan.want(chunk(1), 10, Background);
    let background = plan.next(0).remove(0);
    plan.want(chunk(1), 10, Foreground);
    let foreground = plan.next(0).remove(0);
    assert_eq!(foreground.priority, Foreground);
    plan.want(chunk(1), 10, Background);
    assert_eq!(plan.next(0), []);
    plan.arrived(0, foreground.id, chunk(1));
    assert!(!plan.is_wanted(chunk(1)));
    // The other answer comes too, and nobody minds.
    plan.arrived(0, background.id, chunk(1));
    assert_eq!(plan.in_flight_bytes(), 0);
    assert_eq!(plan.wake_ms(0), None);
}

#[test]
fn what_all_sources_deny_is_hopeless_until_one_announces_it() {
    let mut plan = plan(2);
    plan.want(chunk(1), 10, Foreground);
    for _ in 0..2 {
        assert!(!plan.is_hopeless(chunk(1)));
        let request = plan.next(0).remove(0);
        plan.absent(request.id, chunk(1));
    }
    assert!(plan.is_hopeless(chunk(1)));
    assert_eq!(plan.next(0), []);
    plan.announced(source(2), &[chunk(1), chunk(7)]);
    assert!(!plan.is_hopeless(chunk(1)));
    assert_eq!(plan.next(0)[0].source, source(2));
    // A source that comes up may have it as well.
    assert!(!plan.is_hopeless(chunk(7)), "what isn't wanted isn't hopeless");
}

#[test]
fn what_a_source_announces_before_its_older_denial_arrives_is_asked_of_it_again() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    let first = plan.next(0).remove(0);
    plan.announced(source(1), &[chunk(1)]);
    plan.absent(first.id, chunk(1));
    let second = plan.next(0).remove(0);
    // It announced it once.
    plan.absent(second.id, chunk(1));
    assert_eq!(plan.next(0), []);
}

#[test]
fn a_denial_lapses() {
    let mut plan = plan(1);
    plan.expire(0);
    plan.want(chunk(1), 10, Background);
    let request = plan.next(0).remove(0);
    plan.absent(request.id, chunk(1));
    assert_eq!(plan.wake_ms(1), Some(DENIED_MS));
    for (now_ms, asked) in [(DENIED_MS - 1, 0), (DENIED_MS, 1)] {
        plan.expire(now_ms);
        assert_eq!(plan.next(now_ms).len(), asked, "after {now_ms} ms");
    }
}

#[test]
fn a_request_without_progress_goes_to_another_source() {
    let mut plan = plan(2);
    plan.want(chunk(1), 10, Background);
    plan.want(chunk(2), 10, Background);
    let stuck = plan.next(0).remove(0);
    assert_eq!(plan.wake_ms(0), Some(STALL_MS));
    // Progress puts the deadline off.
    plan.arrived(4_000, stuck.id, chunk(1));
    assert_eq!(plan.expire(STALL_MS), []);
    assert_eq!(plan.expire(4_000 + STALL_MS), [stuck.id]);
    let other = plan.next(4_000 + STALL_MS).remove(0);
    assert_ne!(other.source, stuck.source);
    assert_eq!(numbers(&other), [2]);
    // If that one stalls too, the first gets another chance after its pause.
    let later = 4_000 + 2 * STALL_MS;
    assert_eq!(plan.expire(later), [other.id]);
    let again = plan.next(later).remove(0);
    assert_eq!(again.source, stuck.source);
    // The late answer of a request that was given up still counts.
    plan.arrived(later, other.id, chunk(2));
    assert_eq!(plan.wanted_len(), 0);
}

#[test]
fn a_source_that_fails_is_left_alone_for_a_while() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let request = plan.next(now).remove(0);
        plan.failed(now, request.id);
        assert_eq!(plan.next(now), []);
        let wake = plan.wake_ms(now).unwrap();
        pauses.push(wake - now);
        now = wake;
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    let request = plan.next(now).remove(0);
    plan.arrived(now, request.id, chunk(1));
    plan.want(chunk(2), 10, Background);
    let request = plan.next(now).remove(0);
    plan.failed(now, request.id);
    assert_eq!(plan.wake_ms(now), Some(now + 100), "success makes up for failures");
}

#[test]
fn an_answer_that_ends_early_is_a_failure() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    plan.want(chunk(2), 10, Background);
    let request = plan.next(0).remove(0);
    plan.arrived(0, request.id, chunk(1));
    plan.ended(0, request.id);
    assert_eq!(numbers(&plan.next(200)[0]), [2]);
}

#[test]
fn a_source_that_sends_wrong_bytes_is_dropped() {
    let mut plan = plan(2);
    (0..4).for_each(|n| assert!(plan.want(chunk(n), 1 << 20, Background)));
    let asked = plan.next(0);
    let bad: Vec<_> = asked
        .iter()
        .filter(|request| request.source == source(1))
        .map(|request| request.id)
        .collect();
    assert_eq!(bad.len(), 2);
    let wrong = asked.iter().find(|request| request.source == source(1)).unwrap().chunks[0].0;
    assert_eq!(plan.wrong(0, source(1), wrong), bad);
    let again = plan.next(0);
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|request| request.source == source(2)));
    plan.want(chunk(9), 10, Foreground);
    assert_eq!(plan.next(0)[0].source, source(2));
    plan.want(chunk(10), 10, Foreground);
    plan.source_down(source(2));
    assert_eq!(plan.next(WRONG_PAUSE_MS - 1), []);
    let late = plan.next(WRONG_PAUSE_MS);
    assert!(late.iter().flat_map(|request| &request.chunks).all(|(id, _)| *id != wrong));
    assert!(!late.is_empty());
}

#[test]
fn what_was_asked_of_a_source_that_goes_is_asked_of_another() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    let request = plan.next(0).remove(0);
    assert_eq!(plan.source_down(source(1)), [request.id]);
    assert!(plan.is_hopeless(chunk(1)));
    assert_eq!(plan.next(0), []);
    assert!(plan.source_up(source(2)));
    assert!(!plan.is_hopeless(chunk(1)));
    assert_eq!(plan.next(0)[0].source, source(2));
}

#[test]
fn what_is_not_wanted_any_more_is_not_asked_for() {
    let mut plan = plan(1);
    plan.want(chunk(1), 10, Background);
    plan.want(chunk(2), 10, Background);
    plan.unwant(chunk(1));
    let request = plan.next(0).remove(0);
    assert_eq!(numbers(&request), [2]);
    plan.unwant(chunk(2));
    plan.failed(0, request.id);
    assert_eq!(plan.next(1000), []);
    assert_eq!(plan.in_flight_bytes(), 0);
}

#[test]
fn wants_and_sources_are_bounded() {
    let mut plan = plan(1);
    for n in 0..2 * WANTED_MAX as u32 {
        assert_eq!(plan.want(chunk(n), 1, Background), n < WANTED_MAX as u32);
    }
    assert!(plan.want(chunk(u32::MAX), 1, Foreground));
    for n in 2..=255 {
        assert_eq!(plan.source_up(source(n)), usize::from(n) <= SOURCES_MAX);
    }
    assert!(plan.source_up(source(1)), "known ones stay");
}

/// Random events, after each of which the plan's own books must agree.
#[test]
fn the_books_agree_whatever_happens() {
    for seed in 0..200_u64 {
        let mut state = seed;
        let mut random = |end: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        let mut plan = FetchPlan::new();
        let mut open: Vec<Request> = Vec::new();
        let mut now = 0;
        for _ in 0..300 {
            now += random(400);
            let id = chunk(random(30) as u32);
            let device = source(random(4) as u8);
            let priority = [Background, Ahead, Foreground][random(3) as usize];
            match random(12) {
                0..=3 => drop(plan.want(id, 1 + random(2 << 20) as u32, priority)),
                4 => plan.unwant(id),
                5 => drop(plan.source_up(device)),
                6 if random(3) == 0 => drop(plan.source_down(device)),
                7 if random(8) == 0 => drop(plan.wrong(now, device, id)),
                8 => plan.announced(device, &[id]),
                9 => drop(plan.expire(now)),
                10 if !open.is_empty() => {
                    let request = open.swap_remove(random(open.len() as u64) as usize);
                    if random(3) == 0 {
                        plan.failed(now, request.id);
                    } else {
                        for (id, _) in request.chunks {
                            match random(3) {
                                0 => plan.absent(request.id, id),
                                _ => plan.arrived(now, request.id, id),
                            }
                        }
                        plan.ended(now, request.id);
                    }
                }
                _ => {}
            }
            open.extend(plan.next(now));
            plan.check();
        }
    }
}

impl FetchPlan {
    fn check(&self) {
        for (id, wanted) in &self.wanted {
            let queued =
                |source: &Source| wanted.rank.is_some_and(|rank| source.queue.holds(rank, *id));
            for (device, source) in &self.sources {
                assert!(!queued(source) || !wanted.absent.contains(device));
            }
            let able = self.sources.keys().any(|device| !wanted.absent.contains(device));
            let somewhere = self.sources.values().any(queued) || !wanted.flights.is_empty();
            assert!(somewhere || !able, "what could be asked for waits or is asked for");
            for flight in &wanted.flights {
                assert!(self.flights[flight].open.contains_key(id));
            }
        }
        for (device, source) in &self.sources {
            let flights = source.requests.iter().map(|id| &self.flights[id]);
            let bytes: u64 = flights
                .inspect(|flight| assert_eq!(flight.source, *device))
                .flat_map(|flight| flight.open.values())
                .map(|len| u64::from(*len))
                .sum();
            assert_eq!(bytes, source.bytes);
            assert!(source.bytes <= IN_FLIGHT_MAX_BYTES + FOREGROUND_EXTRA_BYTES + (4 << 20));
        }
        assert!(self.flights.values().all(|flight| self.sources.contains_key(&flight.source)));
    }
}
