//! A taste of the simulator with every test run. `simulate` plays thousands.

use kith_tests::simulator::{History, play};

#[test]
fn random_histories_end_in_one_tree_and_lose_nothing() {
    let mut operations = 0;
    for seed in 0..400 {
        let outcome = play(&History::draw(seed));
        assert_eq!(
            outcome.violation, None,
            "seed {seed}: play it with `simulate --seeds 1 --first {seed}`"
        );
        operations += outcome.operations;
    }
    assert!(operations > 1000, "histories are not empty");
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [3, 77] {
        let (one, other) = (History::draw(seed), History::draw(seed));
        assert_eq!(one, other);
        let (one, other) = (play(&one), play(&other));
        assert_eq!((one.operations, one.messages), (other.operations, other.messages));
    }
}
