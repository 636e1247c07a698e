//! Messages come back from their frames; nothing else is taken for one.

use super::*;
use crate::clock::Hlc;
use crate::id::{Dot, Tag, WriterId};
use alloc::string::ToString;
use alloc::vec;

const fn cursor(number: u64) -> Cursor {
    Cursor { writer: WriterId(u64::MAX), number, tag: Tag(7) }
}

fn vector() -> VersionVector {
    [Dot { writer: WriterId(1), number: 2 }].into_iter().collect()
}

/// As many as there may be, with a few ids and with many.
fn pages() -> Vec<Page> {
    let page = |number| {
        let kind = if number % 2 == 0 { IdKind::Inode } else { IdKind::Entry };
        let writer = WriterId(u64::MAX);
        let mut page = Page::new(PageId { kind, writer, number });
        let first = page.id.first();
        for n in 0..number % 300 {
            page.insert(Dot { writer, number: first + 7 * n });
        }
        page
    };
    (0..FORGOTTEN_PAGES_MAX as u64).map(page).collect()
}

fn messages() -> Vec<Message> {
    let reached = |number| Reached { number, head: cursor(9) };
    let hello = |reached| Message::Hello {
        versions: Versions::OURS,
        share: ShareId([3; 16]),
        head: Cursor { writer: WriterId(1), number: 9, tag: Tag(0) },
        knowledge: vector(),
        reached,
        author: "desk".to_string(),
    };
    vec![
        hello(None),
        hello(Some(reached(1))),
        Message::Batch { after: 0, registers: vec![], upto: reached(9) },
        Message::Knowledge { after: 9, at: cursor(u64::MAX), knowledge: vector() },
        Message::Status {
            absent_bytes: 1,
            free_bytes: u64::MAX,
            knowledge: VersionVector::new(),
            meant: BTreeMap::new(),
        },
        Message::Status {
            absent_bytes: 0,
            free_bytes: 0,
            knowledge: VersionVector::new(),
            meant: BTreeMap::from([(WriterId(3), Hlc(9)), (WriterId(u64::MAX), Hlc(u64::MAX))]),
        },
        Message::Announce { chunks: vec![ChunkId([9; 32]); ANNOUNCE_CHUNKS_MAX] },
        Message::Forgotten { pages: pages(), last: true, knowledge: vector(), heard: None },
        Message::Forgotten {
            pages: Vec::new(),
            last: false,
            knowledge: VersionVector::new(),
            heard: Some(vector()),
        },
    ]
}

fn body(frame: &[u8]) -> &[u8] {
    let (head, body) = frame.split_first_chunk().unwrap();
    assert_eq!(frame_len(*head), Ok(body.len()));
    body
}

#[test]
fn every_message_comes_back_as_it_was_and_never_from_less_or_more() {
    for message in messages() {
        let frame = encode_frame(&message);
        let bytes = body(&frame);
        assert_eq!(decode(bytes), Ok(Some(message)));
        for cut in 0..bytes.len().min(500) {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(decode(&longer), Err(DecodeError::Trailing.into()));
    }
}

#[test]
fn what_a_newer_version_says_is_skipped() {
    // A message of kind 99, and an announcement with a field 50.
    assert_eq!(decode(b"\x82\x18\x63\xa1\x01\x02"), Ok(None));
    let announce = Message::Announce { chunks: vec![] };
    assert_eq!(decode(b"\x82\x05\xa2\x01\x80\x18\x32\x81\xf6"), Ok(Some(announce)));
}

#[test]
fn frames_out_of_bounds_are_refused_by_their_length_alone() {
    for len in [0, FRAME_MAX_BYTES as u32 + 1, u32::MAX] {
        assert_eq!(frame_len(len.to_le_bytes()), Err(WireError::Length(len)));
    }
    assert_eq!(frame_len((FRAME_MAX_BYTES as u32).to_le_bytes()), Ok(FRAME_MAX_BYTES));
    assert!(decode(&vec![0; FRAME_MAX_BYTES + 1]).is_err());
}

#[test]
fn damaged_messages_are_refused_or_are_other_messages_but_never_a_panic() {
    for message in &messages()[..5] {
        let frame = encode_frame(message);
        let original = body(&frame);
        for at in 0..original.len() {
            for flip in 1..=255 {
                let mut bytes = original.to_vec();
                bytes[at] ^= flip;
                if let Ok(Some(message)) = decode(&bytes) {
                    assert_eq!(decode(body(&encode_frame(&message))), Ok(Some(message)));
                }
            }
        }
    }
}

#[test]
fn versions_agree_on_the_newest_that_both_speak() {
    let versions = |oldest, newest| Versions { oldest, newest };
    let cases = [
        (versions(1, 1), versions(1, 3), Some(1)),
        (versions(2, 4), versions(1, 3), Some(3)),
        (versions(1, 1), versions(2, 2), None),
        (versions(2, 2), versions(1, 1), None),
        (versions(3, 2), versions(1, 9), None),
    ];
    for (one, other, common) in cases {
        assert_eq!(one.common(other), common, "{one:?} {other:?}");
        assert_eq!(other.common(one), common, "{other:?} {one:?}");
    }
}

#[test]
fn a_request_comes_back_within_its_bounds() {
    let chunks = vec![(ChunkId([5; 32]), crate::content::CHUNK_MAX_BYTES); FETCH_CHUNKS_MAX];
    let request = FetchRequest { chunks, foreground: true };
    let frame = request.encode_frame();
    assert!(frame.len() <= FETCH_REQUEST_MAX_BYTES);
    assert_eq!(FetchRequest::decode(body(&frame)), Ok(request.clone()));
    let empty = FetchRequest { chunks: vec![], foreground: false };
    assert!(FetchRequest::decode(body(&empty.encode_frame())).is_err());
    let zero = FetchRequest { chunks: vec![(ChunkId([5; 32]), 0)], foreground: false };
    assert!(FetchRequest::decode(body(&zero.encode_frame())).is_err());
}

#[test]
fn a_head_answers_only_what_was_asked() {
    let request = FetchRequest { chunks: vec![(ChunkId([5; 32]), 300)], foreground: false };
    for head in
        [FetchHead { index: 0, len_bytes: Some(300) }, FetchHead { index: 0, len_bytes: None }]
    {
        assert_eq!(FetchHead::decode(head.encode(), &request), Ok(head));
    }
    let wrong = [
        FetchHead { index: 1, len_bytes: None }.encode(),
        FetchHead { index: 0, len_bytes: Some(299) }.encode(),
        [0, 0, 2, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0],
    ];
    for bytes in wrong {
        assert!(FetchHead::decode(bytes, &request).is_err(), "{bytes:?}");
    }
}
