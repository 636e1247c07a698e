//! Sessions between two and three devices, message by message: what is sent, what is left out,
//! what is refused, and what becomes of an index that was rolled back.

use kith_core::content::{Content, Layout, Piece};
use kith_core::effect::Effect;
use kith_core::exchange::{ProtocolError, ReceiveError, full_knowledge};
use kith_core::id::{ChunkId, Cursor, DeviceId, Reached, ShareId, Tag, WriterId};
use kith_core::index::{Index, IndexRead, Register};
use kith_core::register::Kind;
use kith_core::vector::VersionVector;
use kith_core::wire::{FRAME_MAX_BYTES, Message, Versions, encode_frame};
use kith_tests::conversation::{Device, End, greet, pass, registers, talk};
use std::collections::BTreeMap;

#[test]
fn two_devices_end_with_the_same_names_and_know_all_of_each_other() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 3);
    b.directories("b", 2);
    talk(&mut a, &mut b);
    assert_eq!(a.names(), ["a0", "a1", "a2", "b0", "b1"]);
    assert_eq!(a.names(), b.names());
    assert_eq!(full_knowledge(&a.state()), full_knowledge(&b.state()));
}

#[test]
fn a_new_connection_goes_on_where_the_last_one_ended() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 100);
    let all = registers(&talk(&mut a, &mut b));
    assert!(all >= 200, "{all}");
    assert_eq!(registers(&talk(&mut a, &mut b)), 0);
    a.directories("later", 1);
    assert_eq!(registers(&talk(&mut a, &mut b)), 2, "an inode and an entry");
}

#[test]
fn a_broken_connection_costs_no_more_than_what_was_under_way() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 1500);
    let (mut here, mut there) = greet(&mut a, &mut b);
    let first = here.session.next(&a.index).unwrap().unwrap();
    let Message::Batch { registers: sent, .. } = &first else { panic!("a batch comes first") };
    let sent = sent.len();
    there.take(&mut b, first).unwrap();
    // The second one is lost with the connection.
    here.session.next(&a.index).unwrap().unwrap();
    let said = talk(&mut a, &mut b);
    assert_eq!(registers(&said) + sent, 3000);
    assert_eq!(b.names().len(), 1500);
}

#[test]
fn what_came_through_a_third_device_is_not_sent_again() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.directories("a", 50);
    talk(&mut a, &mut b);
    talk(&mut b, &mut c);
    assert_eq!(a.names(), c.names());
    assert_eq!(registers(&talk(&mut a, &mut c)), 0);
    c.directories("c", 1);
    talk(&mut c, &mut b);
    talk(&mut b, &mut a);
    assert_eq!(a.names(), c.names());
}

#[test]
fn what_a_device_sends_does_not_come_back_to_it() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    c.directories("c", 700);
    talk(&mut c, &mut b);
    let (mut here, mut there) = greet(&mut a, &mut b);
    // One batch after the other, and each time the receiver may answer.
    let mut echoed = 0;
    while let Some(message) = there.session.next(&b.index).unwrap() {
        here.take(&mut a, message).unwrap();
        while let Some(message) = here.session.next(&a.index).unwrap() {
            echoed += registers(std::slice::from_ref(&message));
            there.take(&mut b, message).unwrap();
        }
    }
    assert_eq!(echoed, 0);
    assert_eq!(a.names(), c.names());
}

#[test]
fn knowledge_counts_only_once_the_log_was_had() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 600);
    let (mut here, mut there) = greet(&mut a, &mut b);
    while let Some(message) = here.session.next(&a.index).unwrap() {
        assert_eq!(b.state().knowledge, VersionVector::new());
        there.take(&mut b, message).unwrap();
    }
    assert_eq!(b.state().knowledge.number(WriterId(1)), a.state().number);
}

#[test]
fn two_devices_that_are_quiet_stay_quiet() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 3);
    talk(&mut a, &mut b);
    let (mut here, mut there) = greet(&mut a, &mut b);
    let mut said = 0;
    for _ in 0..10 {
        let (mut one, mut other) = ((&mut a, &mut here), (&mut b, &mut there));
        said += pass(&mut one, &mut other).len() + pass(&mut other, &mut one).len();
    }
    assert!(said <= 4, "{said} messages about nothing");
}

#[test]
fn messages_that_break_the_protocol_are_refused() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 3);
    b.directories("b", 3);
    let head = |number| Cursor { writer: WriterId(1), number, tag: Tag(1) };
    let batch = |after, head| {
        let upto = Reached::all(head);
        Message::Batch { after, registers: Vec::new(), upto }
    };
    let knowledge = |after, at| Message::Knowledge { after, at, knowledge: VersionVector::new() };
    let status = Message::Status {
        absent_bytes: 0,
        free_bytes: 0,
        knowledge: VersionVector::new(),
        meant: BTreeMap::new(),
    };
    // What comes before a Hello.
    for message in
        [batch(0, head(1)), knowledge(0, head(1)), status, Message::Announce { chunks: Vec::new() }]
    {
        let mut end = End::open(&b, &a);
        let refused = end.take(&mut b, message).unwrap_err();
        assert_eq!(refused, ReceiveError::Protocol(ProtocolError::NotGreeted));
    }
    // What comes after one.
    let foreign = Cursor { writer: WriterId(9), number: 9, tag: Tag(0) };
    let cases = [
        (batch(5, head(9)), ProtocolError::Gap { after: 5, reached: 0 }),
        (knowledge(5, head(9)), ProtocolError::Gap { after: 5, reached: 0 }),
        (batch(0, foreign), ProtocolError::End),
        (knowledge(0, foreign), ProtocolError::End),
        (End::open(&a, &b).hello, ProtocolError::GreetedTwice),
    ];
    for (message, error) in cases {
        let before = b.index.clone();
        let (_, mut there) = greet(&mut a, &mut b);
        let refused = there.take(&mut b, message.clone()).unwrap_err();
        assert_eq!(refused, ReceiveError::Protocol(error), "{message:?}");
        assert_eq!(b.index, before);
    }
    // Back to before where it was.
    let (_, mut there) = greet(&mut a, &mut b);
    there.take(&mut b, batch(0, head(4))).unwrap();
    let refused = there.take(&mut b, batch(4, head(3))).unwrap_err();
    assert_eq!(refused, ReceiveError::Protocol(ProtocolError::End));
}

#[test]
fn a_frame_that_is_lost_is_noticed() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 600);
    let (mut here, mut there) = greet(&mut a, &mut b);
    here.session.next(&a.index).unwrap().unwrap();
    let second = here.session.next(&a.index).unwrap().unwrap();
    let refused = there.take(&mut b, second).unwrap_err();
    assert!(matches!(refused, ReceiveError::Protocol(ProtocolError::Gap { .. })), "{refused:?}");
}

#[test]
fn a_stranger_is_told_what_is_the_matter() {
    let (a, mut b) = (Device::new(1), Device::new(2));
    let Message::Hello { head, knowledge, author, .. } = End::open(&a, &b).hello else {
        panic!("a session opens with a greeting");
    };
    let hello = |versions, share| Message::Hello {
        versions,
        share,
        head,
        knowledge: knowledge.clone(),
        reached: None,
        author: author.clone(),
    };
    let newer = Versions { oldest: 7, newest: 9 };
    let cases = [
        (hello(Versions::OURS, ShareId([8; 16])), ProtocolError::Share),
        (hello(newer, ShareId([7; 16])), ProtocolError::Versions { oldest: 7, newest: 9 }),
    ];
    for (message, error) in cases {
        let mut end = End::open(&b, &a);
        assert_eq!(end.take(&mut b, message), Err(ReceiveError::Protocol(error)));
    }
}

#[test]
fn a_register_too_large_for_a_frame_goes_out_in_parts() {
    let mut a = Device::new(1);
    let inode = a.make("many", Kind::File);
    let pieces: Vec<Piece> =
        (0..64).map(|n| Piece::Chunk { id: ChunkId([n; 32]), len_bytes: 4096 }).collect();
    let content = |n: u8| {
        let mut pieces = pieces.clone();
        pieces[0] = Piece::Chunk { id: ChunkId([100 + n; 32]), len_bytes: 4096 };
        Content { size_bytes: 64 * 4096, layout: Layout::Inline(pieces) }
    };
    a.publish(inode, VersionVector::new(), content(0));
    // Hundreds of versions that know nothing of one another, as from hundreds of devices.
    let mut state = a.index.inode(inode).unwrap().unwrap();
    let version = state.inode.versions.values().next().unwrap().clone();
    for n in 0..600 {
        let mut version = version.clone();
        version.dot.writer = WriterId(1000 + n);
        state.inode.versions.insert(version.dot, version);
    }
    a.index.put_inode(&state).unwrap();
    let mut b = Device::new(2);
    let said = talk(&mut a, &mut b);
    assert!(said.iter().all(|message| encode_frame(message).len() < FRAME_MAX_BYTES));
    let parts = said.iter().filter(|message| match message {
        Message::Batch { registers, .. } => matches!(registers[..], [Register::Inode(_)]),
        _ => false,
    });
    assert!(parts.count() >= 3);
    assert_eq!(b.index.inode(inode).unwrap().unwrap().inode.versions.len(), 601);
}

#[test]
fn an_index_that_was_rolled_back_goes_on_under_a_new_writer() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("old", 2);
    talk(&mut a, &mut b);
    // A connection in which b's cursor confirms what it has.
    talk(&mut a, &mut b);
    let backup = a.index.clone();
    a.directories("lost", 3);
    talk(&mut a, &mut b);
    for made_since in [0, 1, 10] {
        let mut b = Device { index: b.index.clone(), ..b };
        let mut a = Device { index: backup.clone(), tags: a.tags + 1000, ..a };
        a.directories("new", made_since);
        let (mut here, there) = (End::open(&a, &b), End::open(&b, &a));
        let effects = here.take(&mut a, there.hello.clone()).unwrap();
        assert_eq!(effects, [Effect::Reincarnated]);
        assert_ne!(a.state().writer, WriterId(1));
        // The old session is of no use any more.
        assert_eq!(here.session.next(&a.index).unwrap(), None);
        let refused = here.take(&mut a, there.hello.clone()).unwrap_err();
        assert_eq!(refused, ReceiveError::Protocol(ProtocolError::Reincarnated));
        if made_since == 0 {
            // What left before the rollback comes back.
            talk(&mut a, &mut b);
            assert_eq!(a.names(), ["lost0", "lost1", "lost2", "old0", "old1"]);
            assert_eq!(a.names(), b.names());
            assert_eq!(full_knowledge(&a.state()), full_knowledge(&b.state()));
        }
    }
}

#[test]
fn two_clones_of_one_index_part() {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.directories("a", 2);
    talk(&mut a, &mut b);
    let clone = Device { id: DeviceId([9; 32]), tags: 1 << 60, ..a.clone() };
    let mut here = End::open(&a, &clone);
    let there = End::open(&clone, &a);
    assert_eq!(here.take(&mut a, there.hello).unwrap(), [Effect::Reincarnated]);
}

#[test]
fn a_change_of_its_own_that_a_device_never_made_proves_a_rollback() {
    let (mut a, mut b, mut c) = (Device::new(1), Device::new(2), Device::new(3));
    a.directories("a", 1);
    let backup = a.index.clone();
    a.directories("lost", 300);
    // c gets to hear of it without the knowledge, because the connection breaks.
    talk(&mut a, &mut b);
    let (mut here, mut there) = greet(&mut b, &mut c);
    let batch = here.session.next(&b.index).unwrap().unwrap();
    there.take(&mut c, batch).unwrap();
    let mut a = Device { index: backup, ..a };
    let (mut here, there) = greet(&mut a, &mut c);
    let mut there = there;
    let mut effects = Vec::new();
    while let Some(message) = there.session.next(&c.index).unwrap() {
        effects = here.take(&mut a, message).unwrap();
        if !effects.is_empty() {
            break;
        }
    }
    assert_eq!(effects, [Effect::Reincarnated]);
    talk(&mut a, &mut c);
    assert_eq!(a.names(), c.names());
}
