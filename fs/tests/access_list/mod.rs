//! Access control lists as the kernel takes them, made for tests.

/// The number in an entry that names nobody.
pub const NOBODY: u32 = u32::MAX;

/// A list of tags, rights and numbers, after its version.
pub fn encoded(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        list.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        list.extend(id.to_le_bytes());
    }
    list
}
