//! Long descriptions as trees of lists: building them, and walking over their pieces.

use super::ReadError;
use kith_core::codec::{List, encode_list};
use kith_core::content::{Content, INLINE_PIECES_MAX, Layout, NodeRef, Piece};
use kith_core::id::ChunkId;
use std::sync::Arc;

/// No list but a level's last has fewer records.
const RECORDS_MIN: usize = INLINE_PIECES_MAX;
/// No list has more records.
const RECORDS_MAX: usize = 1024;
/// A record whose id has none of these bits set ends its list: one in 256.
const END_MASK: u8 = 0xff;

/// A list that was cut: its name and its bytes, a chunk that has to be stored.
pub(crate) type CutList = (ChunkId, Vec<u8>);

/// Takes pieces in the file's order and makes their description.
///
/// Where a list ends is a function of the records in it alone, so that a change in the middle of a
/// long file leaves most lists as they were. A hole never ends a list.
#[derive(Default)]
pub(crate) struct ListBuilder {
    size_bytes: u64,
    pieces: Vec<Piece>,
    pieces_total: usize,
    /// The open lists of nodes: those of height `n + 1` are at `n`.
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    nodes: Vec<NodeRef>,
    total: usize,
}

fn ends_list(id: &ChunkId) -> bool {
    id.0[0] & END_MASK == 0
}

fn is_full(records: usize, last: Option<&ChunkId>) -> bool {
    records >= RECORDS_MAX || records >= RECORDS_MIN && last.is_some_and(ends_list)
}

impl ListBuilder {
    /// Adds a piece. Lists that are thereby known to be whole are handed to `cut`.
    ///
    /// Two holes or two runs of pieces are never joined: the pieces come as they were cut.
    pub(crate) fn push(&mut self, piece: Piece, cut: &mut impl FnMut(CutList)) {
        let last = match self.pieces.last() {
            Some(Piece::Chunk { id, .. }) => Some(id),
            _ => None,
        };
        // A list ends only once something follows it: whether all fits a description without lists
        // isn't known before.
        if is_full(self.pieces.len(), last) {
            self.end_pieces(cut);
        }
        self.size_bytes += piece.len_bytes();
        self.pieces.push(piece);
        self.pieces_total += 1;
    }

    /// The whole description, once all pieces are in.
    pub(crate) fn finish(mut self, cut: &mut impl FnMut(CutList)) -> Content {
        if self.pieces_total <= INLINE_PIECES_MAX {
            return Content { size_bytes: self.size_bytes, layout: Layout::Inline(self.pieces) };
        }
        self.end_pieces(cut);
        let mut height = 0;
        while self.levels[height].total > INLINE_PIECES_MAX {
            self.end_nodes(height, cut);
            height += 1;
        }
        let nodes = std::mem::take(&mut self.levels[height].nodes);
        let height = u8::try_from(height).expect("each level has 64 times fewer records");
        Content { size_bytes: self.size_bytes, layout: Layout::Tree { height, nodes } }
    }

    fn end_pieces(&mut self, cut: &mut impl FnMut(CutList)) {
        let pieces = std::mem::take(&mut self.pieces);
        let span_bytes = pieces.iter().map(Piece::len_bytes).sum();
        let node = emit(&List::Pieces(pieces), span_bytes, cut);
        self.push_node(0, node, cut);
    }

    fn push_node(&mut self, level: usize, node: NodeRef, cut: &mut impl FnMut(CutList)) {
        if self.levels.len() == level {
            self.levels.push(Level::default());
        }
        let open = &self.levels[level].nodes;
        if is_full(open.len(), open.last().map(|last| &last.id)) {
            self.end_nodes(level, cut);
        }
        self.levels[level].nodes.push(node);
        self.levels[level].total += 1;
    }

    fn end_nodes(&mut self, level: usize, cut: &mut impl FnMut(CutList)) {
        let nodes = std::mem::take(&mut self.levels[level].nodes);
        let span_bytes = nodes.iter().map(|node| node.span_bytes).sum();
        let height = u8::try_from(level + 1).expect("each level has 64 times fewer records");
        let node = emit(&List::Nodes { height, nodes }, span_bytes, cut);
        self.push_node(level + 1, node, cut);
    }
}

fn emit(list: &List, span_bytes: u64, cut: &mut impl FnMut(CutList)) -> NodeRef {
    let bytes = encode_list(list);
    let id = ChunkId::of(&bytes);
    let len_bytes = u32::try_from(bytes.len()).expect("1,024 records fit a chunk");
    cut((id, bytes));
    NodeRef { id, len_bytes, span_bytes }
}

/// Where list nodes come from.
pub(crate) trait Lists {
    /// The list of `height` that `node` names.
    fn list(&self, node: &NodeRef, height: u8) -> Result<Arc<List>, ReadError>;
}

impl<L: Lists + ?Sized> Lists for &L {
    fn list(&self, node: &NodeRef, height: u8) -> Result<Arc<List>, ReadError> {
        (**self).list(node, height)
    }
}

/// Hands all chunks that a description names to `seen`, lists among them. Those that an absent list
/// names are passed over, since nobody knows them.
pub(crate) fn visit(
    content: &Content,
    lists: &impl Lists,
    seen: &mut impl FnMut(&ChunkId),
) -> Result<(), ReadError> {
    let pieces = |pieces: &[Piece], seen: &mut dyn FnMut(&ChunkId)| {
        for piece in pieces {
            if let Piece::Chunk { id, .. } = piece {
                seen(id);
            }
        }
    };
    let mut rest: Vec<(u8, NodeRef)> = match &content.layout {
        Layout::Inline(inline) => {
            pieces(inline, seen);
            return Ok(());
        }
        Layout::Tree { height, nodes } => nodes.iter().map(|node| (*height, *node)).collect(),
    };
    while let Some((height, node)) = rest.pop() {
        seen(&node.id);
        match lists.list(&node, height) {
            Ok(list) => match &*list {
                List::Pieces(named) => pieces(named, seen),
                List::Nodes { nodes, .. } => {
                    rest.extend(nodes.iter().map(|node| (height - 1, *node)));
                }
            },
            Err(ReadError::Absent(_)) => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

enum Records<'c> {
    Inline(&'c [Piece]),
    Top(u8, &'c [NodeRef]),
    List(Arc<List>),
}

enum Record {
    Piece(Piece),
    Node(u8, NodeRef),
}

impl Records<'_> {
    fn get(&self, index: usize) -> Option<Record> {
        match self {
            Records::Inline(pieces) => pieces.get(index).copied().map(Record::Piece),
            Records::Top(height, nodes) => {
                nodes.get(index).map(|node| Record::Node(*height, *node))
            }
            Records::List(list) => match &**list {
                List::Pieces(pieces) => pieces.get(index).copied().map(Record::Piece),
                List::Nodes { height, nodes } => {
                    nodes.get(index).map(|node| Record::Node(height - 1, *node))
                }
            },
        }
    }
}

/// Walks over the pieces of a description, and loads only the lists it passes through.
pub(crate) struct Pieces<'c, L> {
    lists: L,
    content: &'c Content,
    /// The open lists, outermost first, each with the index of its next record.
    stack: Vec<(Records<'c>, usize)>,
    at: u64,
}

impl<'c, L: Lists> Pieces<'c, L> {
    /// At the first piece of `content`.
    pub(crate) fn new(content: &'c Content, lists: L) -> Self {
        let mut pieces = Pieces { lists, content, stack: Vec::new(), at: 0 };
        pieces.rewind();
        pieces
    }

    fn rewind(&mut self) {
        self.at = 0;
        self.stack.clear();
        self.stack.push((
            match &self.content.layout {
                Layout::Inline(pieces) => Records::Inline(pieces),
                Layout::Tree { height, nodes } => Records::Top(*height, nodes),
            },
            0,
        ));
    }

    /// The offset of the next piece.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Goes to the piece that holds the byte at `offset`, or to the end.
    pub(crate) fn seek(&mut self, offset: u64) -> Result<(), ReadError> {
        if offset < self.at {
            self.rewind();
        }
        while let Some((records, index)) = self.stack.last_mut() {
            let span = match records.get(*index) {
                None => {
                    self.stack.pop();
                    continue;
                }
                Some(Record::Piece(piece)) => piece.len_bytes(),
                Some(Record::Node(_, node)) => node.span_bytes,
            };
            if self.at + span <= offset {
                self.at += span;
                *index += 1;
                continue;
            }
            let Some(Record::Node(height, node)) = records.get(*index) else {
                return Ok(());
            };
            let list = self.lists.list(&node, height)?;
            *index += 1;
            self.stack.push((Records::List(list), 0));
        }
        Ok(())
    }

    /// The next piece with its offset; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Piece)>, ReadError> {
        self.seek(self.at)?;
        let Some((records, index)) = self.stack.last_mut() else { return Ok(None) };
        let Some(Record::Piece(piece)) = records.get(*index) else { return Ok(None) };
        *index += 1;
        let at = self.at;
        self.at += piece.len_bytes();
        Ok(Some((at, piece)))
    }

    /// Passes the list that couldn't be loaded, and answers it. The next piece is the one after
    /// all that it describes.
    pub(crate) fn skip_list(&mut self) -> Option<NodeRef> {
        let (records, index) = self.stack.last_mut()?;
        let Some(Record::Node(_, node)) = records.get(*index) else { return None };
        self.at += node.span_bytes;
        *index += 1;
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kith_core::codec::decode_list;
    use std::collections::BTreeMap;

    struct Kept(BTreeMap<ChunkId, Vec<u8>>);

    impl Lists for Kept {
        fn list(&self, node: &NodeRef, height: u8) -> Result<Arc<List>, ReadError> {
            let bytes = self.0.get(&node.id).ok_or(ReadError::Absent(Vec::new()))?;
            assert_eq!(bytes.len(), node.len_bytes as usize);
            Ok(Arc::new(decode_list(bytes, height, node.span_bytes).unwrap()))
        }
    }

    fn piece(number: u64) -> Piece {
        match number % 7 {
            3 => Piece::Hole { len_bytes: 65_536 + number * 4096 },
            _ => Piece::Chunk {
                id: ChunkId::of(&number.to_le_bytes()),
                len_bytes: 1 + number as u32 % 1000,
            },
        }
    }

    fn build(pieces: impl Iterator<Item = Piece>) -> (Content, Kept) {
        let mut kept = BTreeMap::new();
        let mut keep = |(id, bytes): CutList| drop(kept.insert(id, bytes));
        let mut builder = ListBuilder::default();
        pieces.for_each(|piece| builder.push(piece, &mut keep));
        let content = builder.finish(&mut keep);
        (content, Kept(kept))
    }

    #[test]
    fn every_piece_is_found_again() {
        for count in [0, 1, 64, 65, 1000, 30_000] {
            let (content, kept) = build((0..count).map(piece));
            assert_eq!(matches!(content.layout, Layout::Inline(_)), count <= 64);
            let mut walk = Pieces::new(&content, &kept);
            let mut at = 0;
            for number in 0..count {
                assert_eq!(walk.next().unwrap(), Some((at, piece(number))));
                at += piece(number).len_bytes();
            }
            assert_eq!(walk.next().unwrap(), None);
            assert_eq!(content.size_bytes, at);
            if count > 100 {
                let offsets: Vec<u64> = (0..count)
                    .scan(0, |at, number| {
                        let before = *at;
                        *at += piece(number).len_bytes();
                        Some(before)
                    })
                    .collect();
                for number in [77, 3, 99, 98, 0] {
                    let (offset, len) = (offsets[number], piece(number as u64).len_bytes());
                    walk.seek(offset + len - 1).unwrap();
                    assert_eq!(walk.next().unwrap(), Some((offset, piece(number as u64))));
                }
                walk.seek(at).unwrap();
                assert_eq!(walk.next().unwrap(), None);
            }
        }
    }

    #[test]
    fn a_change_in_the_middle_leaves_most_lists_as_they_were() {
        let (_, before) = build((0..30_000).map(piece));
        let (content, after) = build((0..30_000).filter(|number| *number != 15_000).map(piece));
        let new = after.0.keys().filter(|id| !before.0.contains_key(*id)).count();
        assert!(after.0.len() > 60 && new <= 4, "{new} of {}", after.0.len());
        assert!(matches!(content.layout, Layout::Tree { height: 1, .. }), "{content:?}");
    }

    #[test]
    fn lists_of_equal_chunks_still_grow_together() {
        // The worst case: each record would end its list.
        let id = (0_u64..).map(|n| ChunkId::of(&n.to_le_bytes())).find(ends_list).unwrap();
        let (content, kept) =
            build(std::iter::repeat_n(Piece::Chunk { id, len_bytes: 9 }, 100_000));
        assert!(kept.0.len() < 10);
        assert!(matches!(content.layout, Layout::Tree { height: 1, .. }));
        let mut walk = Pieces::new(&content, &kept);
        let mut count = 0;
        while walk.next().unwrap().is_some() {
            count += 1;
        }
        assert_eq!(count, 100_000);
    }
}
