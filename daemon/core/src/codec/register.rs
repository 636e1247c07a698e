//! The encoding of inodes, entries and the values in them.

use super::content::{read_content, write_content};
use super::field::{Writer, read_array, read_fields, read_map, read_tuple};
use super::value::{
    read_author, read_dot, read_origin, read_stamp, read_time, read_vector, write_dot,
    write_origin, write_stamp, write_time, write_vector,
};
use super::{
    DecodeError, PARENTS_MAX, TARGET_MAX_BYTES, VERSIONS_MAX, XATTR_NAME_MAX_BYTES,
    XATTR_VALUE_MAX_BYTES, XATTRS_MAX_BYTES,
};
use crate::id::{EntryId, InodeId};
use crate::name::EntryName;
use crate::register::{
    Attributes, Entry, Inode, Kind, Mark, Owner, Parted, Place, Removal, Replaced, Version,
};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use minicbor::Decoder;

/// Fails with the field's name if it wasn't there.
fn need<T>(field: Option<T>, what: &'static str) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Missing(what))
}

/// 1 id, 2 kind, 3 attributes, 4 versions (in the dots' order), 5 what parted from it, as the
/// vectors of the changes and of the versions.
pub(crate) fn write_inode(writer: &mut Writer, inode: &Inode) {
    let versions = Some(&inode.versions).filter(|versions| !versions.is_empty());
    let parted = Some(&inode.parted).filter(|parted| **parted != Parted::default());
    let known = 3 + usize::from(versions.is_some()) + usize::from(parted.is_some());
    let mut fields = writer.fields(known, &inode.unread);
    fields.field(1, |writer| write_dot(writer, inode.id.0));
    fields.field(2, |writer| write_kind(writer, &inode.kind));
    fields.field(3, |writer| write_attributes(writer, &inode.attributes));
    fields.optional(4, versions, |writer, versions| {
        writer.array(versions.len());
        versions.values().for_each(|version| write_version(writer, version));
    });
    fields.optional(5, parted, |writer, parted| {
        writer.array(2);
        write_vector(writer, &parted.dots);
        write_vector(writer, &parted.versions);
    });
    fields.end();
}

pub(crate) fn read_inode(decoder: &mut Decoder<'_>) -> Result<Inode, DecodeError> {
    const VERSIONS: &str = "an inode's versions";
    let (mut id, mut kind, mut attributes) = (None, None, None);
    let (mut versions, mut parted) = (BTreeMap::new(), Parted::default());
    let unread = read_fields(decoder, "an inode", |number, decoder| {
        match number {
            1 => id = Some(InodeId(read_dot(decoder)?)),
            2 => kind = Some(read_kind(decoder)?),
            3 => attributes = Some(read_attributes(decoder)?),
            4 => {
                for _ in 0..read_array(decoder, VERSIONS, VERSIONS_MAX)? {
                    let version = read_version(decoder)?;
                    if versions.last_key_value().is_some_and(|(last, _)| *last >= version.dot) {
                        return Err(DecodeError::Order(VERSIONS));
                    }
                    versions.insert(version.dot, version);
                }
            }
            5 => {
                read_tuple(decoder, "what parted from an inode", 2)?;
                parted.dots = read_vector(decoder)?;
                parted.versions = read_vector(decoder)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Inode {
        id: need(id, "an inode's id")?,
        kind: need(kind, "an inode's kind")?,
        attributes: need(attributes, "an inode's attributes")?,
        versions,
        parted,
        unread,
    })
}

/// `[code]`, `[2, target]`, `[5 or 6, major, minor]`.
fn write_kind(writer: &mut Writer, kind: &Kind) {
    let (code, target, numbers) = match kind {
        Kind::Directory => (0, None, None),
        Kind::File => (1, None, None),
        Kind::Symlink(target) => (2, Some(target), None),
        Kind::Fifo => (3, None, None),
        Kind::Socket => (4, None, None),
        Kind::CharDevice(major, minor) => (5, None, Some((major, minor))),
        Kind::BlockDevice(major, minor) => (6, None, Some((major, minor))),
    };
    writer.array(1 + usize::from(target.is_some()) + 2 * usize::from(numbers.is_some()));
    writer.uint(code);
    if let Some(target) = target {
        writer.bytes(target);
    }
    if let Some((major, minor)) = numbers {
        writer.uint(u64::from(*major));
        writer.uint(u64::from(*minor));
    }
}

fn read_kind(decoder: &mut Decoder<'_>) -> Result<Kind, DecodeError> {
    const WHAT: &str = "kind of inode";
    let count = read_array(decoder, WHAT, 3)?;
    if count == 0 {
        return Err(DecodeError::Unknown(WHAT));
    }
    match (decoder.u64()?, count) {
        (0, 1) => Ok(Kind::Directory),
        (1, 1) => Ok(Kind::File),
        (2, 2) => {
            let target = decoder.bytes()?;
            if target.is_empty() || target.len() > TARGET_MAX_BYTES || target.contains(&0) {
                return Err(DecodeError::Bounds("a link's target"));
            }
            Ok(Kind::Symlink(target.into()))
        }
        (3, 1) => Ok(Kind::Fifo),
        (4, 1) => Ok(Kind::Socket),
        (5, 3) => Ok(Kind::CharDevice(decoder.u32()?, decoder.u32()?)),
        (6, 3) => Ok(Kind::BlockDevice(decoder.u32()?, decoder.u32()?)),
        _ => Err(DecodeError::Unknown(WHAT)),
    }
}

const fn number_of(owner: Owner) -> Option<u32> {
    match owner {
        Owner::Person => None,
        Owner::Number(number) => Some(number),
    }
}

/// 1 origin, 2 mode, 3 user, 4 group, 5 time of modification, 6 extended attributes (a map from
/// names to values). Without user or group it belongs to the share's person.
pub(super) fn write_attributes(writer: &mut Writer, attributes: &Attributes) {
    let (user, group) = (number_of(attributes.user), number_of(attributes.group));
    let xattrs = Some(&attributes.xattrs).filter(|xattrs| !xattrs.is_empty());
    let known = [user.is_some(), group.is_some(), attributes.mtime.is_some(), xattrs.is_some()];
    let known = 2 + known.into_iter().filter(|there| *there).count();
    let mut fields = writer.fields(known, &attributes.unread);
    fields.field(1, |writer| write_origin(writer, attributes.stamp, attributes.dot));
    fields.field(2, |writer| writer.uint(u64::from(attributes.mode)));
    fields.optional(3, user, |writer, user| writer.uint(u64::from(user)));
    fields.optional(4, group, |writer, group| writer.uint(u64::from(group)));
    fields.optional(5, attributes.mtime, write_time);
    fields.optional(6, xattrs, |writer, xattrs| {
        writer.map(xattrs.len());
        for (name, value) in xattrs {
            writer.bytes(name);
            writer.bytes(value);
        }
    });
    fields.end();
}

pub(super) fn read_attributes(decoder: &mut Decoder<'_>) -> Result<Attributes, DecodeError> {
    let (mut origin, mut mode, mut mtime) = (None, None, None);
    let (mut user, mut group) = (Owner::Person, Owner::Person);
    let mut xattrs = BTreeMap::new();
    let unread = read_fields(decoder, "attributes", |number, decoder| {
        match number {
            1 => origin = Some(read_origin(decoder)?),
            2 => mode = Some(decoder.u16()?),
            3 => user = Owner::Number(decoder.u32()?),
            4 => group = Owner::Number(decoder.u32()?),
            5 => mtime = Some(read_time(decoder)?),
            6 => xattrs = read_xattrs(decoder)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (stamp, dot) = need(origin, "the attributes' origin")?;
    let mode = need(mode, "a mode")?;
    if mode > 0o7777 {
        return Err(DecodeError::Bounds("a mode"));
    }
    Ok(Attributes { stamp, dot, mode, user, group, mtime, xattrs, unread })
}

type Xattrs = BTreeMap<Box<[u8]>, Box<[u8]>>;

fn read_xattrs(decoder: &mut Decoder<'_>) -> Result<Xattrs, DecodeError> {
    const WHAT: &str = "extended attributes";
    let mut xattrs = Xattrs::new();
    let mut total = 0;
    for _ in 0..read_map(decoder, WHAT, XATTRS_MAX_BYTES)? {
        let (name, value) = (decoder.bytes()?, decoder.bytes()?);
        total += name.len() + value.len();
        if name.is_empty()
            || name.contains(&0)
            || name.len() > XATTR_NAME_MAX_BYTES
            || value.len() > XATTR_VALUE_MAX_BYTES
            || total > XATTRS_MAX_BYTES
        {
            return Err(DecodeError::Bounds(WHAT));
        }
        if xattrs.last_key_value().is_some_and(|(last, _)| **last >= *name) {
            return Err(DecodeError::Order(WHAT));
        }
        xattrs.insert(name.into(), value.into());
    }
    Ok(xattrs)
}

/// 1 origin, 2 context, 3 parents, 4 author, 5 time of modification, 6 content, 7 mark.
pub(super) fn write_version(writer: &mut Writer, version: &Version) {
    let parents = Some(&version.parents).filter(|parents| !parents.is_empty());
    let mut fields = writer.fields(6 + usize::from(parents.is_some()), &version.unread);
    fields.field(1, |writer| write_origin(writer, version.stamp, version.dot));
    fields.field(2, |writer| write_vector(writer, &version.context));
    fields.optional(3, parents, |writer, parents| {
        writer.array(parents.len());
        parents.iter().for_each(|parent| write_dot(writer, *parent));
    });
    fields.field(4, |writer| writer.text(&version.author));
    fields.field(5, |writer| write_time(writer, version.mtime));
    fields.field(6, |writer| write_content(writer, &version.content));
    fields.field(7, |writer| {
        writer.uint(match version.mark {
            Mark::Closed => 0,
            Mark::Synced => 1,
            Mark::Idle => 2,
            Mark::Merged => 3,
            Mark::Gathered => 4,
        });
    });
    fields.end();
}

pub(super) fn read_version(decoder: &mut Decoder<'_>) -> Result<Version, DecodeError> {
    let (mut origin, mut context, mut author) = (None, None, None);
    let (mut mtime, mut content, mut mark) = (None, None, None);
    let mut parents = Vec::new();
    let unread = read_fields(decoder, "a version", |number, decoder| {
        match number {
            1 => origin = Some(read_origin(decoder)?),
            2 => context = Some(read_vector(decoder)?),
            3 => {
                for _ in 0..read_array(decoder, "a version's parents", PARENTS_MAX)? {
                    parents.push(read_dot(decoder)?);
                }
            }
            4 => author = Some(read_author(decoder)?),
            5 => mtime = Some(read_time(decoder)?),
            6 => content = Some(read_content(decoder)?),
            7 => {
                mark = Some(match decoder.u64()? {
                    0 => Mark::Closed,
                    1 => Mark::Synced,
                    2 => Mark::Idle,
                    3 => Mark::Merged,
                    4 => Mark::Gathered,
                    _ => return Err(DecodeError::Unknown("mark of a version")),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (stamp, dot) = need(origin, "a version's origin")?;
    let context = need(context, "a version's context")?;
    if dot.number == 0 {
        return Err(DecodeError::Bounds("a version's dot"));
    }
    if context.covers(dot) {
        return Err(DecodeError::Bounds("a version's context"));
    }
    Ok(Version {
        stamp,
        dot,
        context,
        parents,
        author: need(author, "a version's author")?,
        mtime: need(mtime, "a version's time of modification")?,
        content: need(content, "a version's content")?,
        mark: need(mark, "a version's mark")?,
        unread,
    })
}

/// 1 id, 2 inode, 3 place, 4 removal.
pub(crate) fn write_entry(writer: &mut Writer, entry: &Entry) {
    let mut fields = writer.fields(3 + usize::from(entry.removal.is_some()), &entry.unread);
    fields.field(1, |writer| write_dot(writer, entry.id.0));
    fields.field(2, |writer| write_dot(writer, entry.inode.0));
    fields.field(3, |writer| write_place(writer, &entry.place));
    fields.optional(4, entry.removal.as_ref(), write_removal);
    fields.end();
}

pub(crate) fn read_entry(decoder: &mut Decoder<'_>) -> Result<Entry, DecodeError> {
    let (mut id, mut inode, mut place, mut removal) = (None, None, None, None);
    let unread = read_fields(decoder, "an entry", |number, decoder| {
        match number {
            1 => id = Some(EntryId(read_dot(decoder)?)),
            2 => inode = Some(InodeId(read_dot(decoder)?)),
            3 => place = Some(read_place(decoder)?),
            4 => removal = Some(read_removal(decoder)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let inode = need(inode, "an entry's inode")?;
    if inode == InodeId::ROOT {
        return Err(DecodeError::Bounds("an entry's inode"));
    }
    Ok(Entry {
        id: need(id, "an entry's id")?,
        inode,
        place: need(place, "an entry's place")?,
        removal,
        unread,
    })
}

/// 1 origin, 2 parent, 3 name, 4 what it replaced (`[inode, dot, last inode, last dot]`), 5 author,
/// 6 the place that it was carried from.
pub(super) fn write_place(writer: &mut Writer, place: &Place) {
    let optional = usize::from(place.replaced.is_some()) + usize::from(place.carried.is_some());
    let mut fields = writer.fields(4 + optional, &place.unread);
    fields.field(1, |writer| write_origin(writer, place.stamp, place.dot));
    fields.field(2, |writer| write_dot(writer, place.parent.0));
    fields.field(3, |writer| writer.bytes(place.name.as_bytes()));
    fields.optional(4, place.replaced, |writer, replaced| {
        writer.array(4);
        write_dot(writer, replaced.inode.0);
        write_dot(writer, replaced.dot);
        write_dot(writer, replaced.last.0);
        write_dot(writer, replaced.last_dot);
    });
    fields.field(5, |writer| writer.text(&place.author));
    fields.optional(6, place.carried, write_dot);
    fields.end();
}

pub(super) fn read_place(decoder: &mut Decoder<'_>) -> Result<Place, DecodeError> {
    let (mut origin, mut parent, mut name) = (None, None, None);
    let (mut replaced, mut author, mut carried) = (None, None, None);
    let unread = read_fields(decoder, "a place", |number, decoder| {
        match number {
            1 => origin = Some(read_origin(decoder)?),
            2 => parent = Some(InodeId(read_dot(decoder)?)),
            3 => {
                let bytes = decoder.bytes()?;
                name = Some(EntryName::new(bytes).map_err(|_| DecodeError::Bounds("a name"))?);
            }
            4 => {
                read_tuple(decoder, "what a place replaced", 4)?;
                replaced = Some(Replaced {
                    inode: InodeId(read_dot(decoder)?),
                    dot: read_dot(decoder)?,
                    last: InodeId(read_dot(decoder)?),
                    last_dot: read_dot(decoder)?,
                });
            }
            5 => author = Some(read_author(decoder)?),
            6 => carried = Some(read_dot(decoder)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let (stamp, dot) = need(origin, "a place's origin")?;
    Ok(Place {
        stamp,
        dot,
        parent: need(parent, "a place's parent")?,
        name: need(name, "a place's name")?,
        replaced,
        carried,
        author: need(author, "a place's author")?,
        unread,
    })
}

/// 1 stamp, 2 dots, 3 the place's stamp that was seen, 4 the content that was seen, 5 whether it
/// was the last name, 6 author.
pub(super) fn write_removal(writer: &mut Writer, removal: &Removal) {
    let mut fields = writer.fields(5 + usize::from(removal.author.is_some()), &removal.unread);
    fields.field(1, |writer| write_stamp(writer, removal.stamp));
    fields.field(2, |writer| write_vector(writer, &removal.dots));
    fields.field(3, |writer| write_stamp(writer, removal.saw_place));
    fields.field(4, |writer| write_vector(writer, &removal.saw_content));
    fields.field(5, |writer| writer.bool(removal.last_link));
    fields.optional(6, removal.author.as_ref(), |writer, author| writer.text(author));
    fields.end();
}

pub(super) fn read_removal(decoder: &mut Decoder<'_>) -> Result<Removal, DecodeError> {
    let (mut stamp, mut dots, mut saw_place) = (None, None, None);
    let (mut saw_content, mut last_link, mut author) = (None, None, None);
    let unread = read_fields(decoder, "a removal", |number, decoder| {
        match number {
            1 => stamp = Some(read_stamp(decoder)?),
            2 => dots = Some(read_vector(decoder)?),
            3 => saw_place = Some(read_stamp(decoder)?),
            4 => saw_content = Some(read_vector(decoder)?),
            5 => last_link = Some(decoder.bool()?),
            6 => author = Some(read_author(decoder)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Removal {
        stamp: need(stamp, "a removal's stamp")?,
        dots: need(dots, "a removal's dots")?,
        saw_place: need(saw_place, "the place that a removal saw")?,
        saw_content: need(saw_content, "the content that a removal saw")?,
        last_link: need(last_link, "whether a removal was of the last name")?,
        author,
        unread,
    })
}
