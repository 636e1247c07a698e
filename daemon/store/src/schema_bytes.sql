-- The second migration: where the bytes are. The first, for the tree, is schema.sql.

-- Files of the data directory, each at one path for life. What one is, is its kind.
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind INTEGER NOT NULL,          -- 0: free, 1: staging, 2: the open pack, 3: pack, 4: whole file
    durable INTEGER NOT NULL        -- bytes from the start that an fdatasync has covered
);

-- Every chunk that is here, and where.
CREATE TABLE chunks (
    id BLOB PRIMARY KEY,
    segment INTEGER NOT NULL,
    start INTEGER NOT NULL,         -- the offset of its first byte
    len INTEGER NOT NULL
) WITHOUT ROWID;

-- Files that are being written, as far as a crash must not lose them.
CREATE TABLE overlays (
    id INTEGER PRIMARY KEY,
    synced INTEGER NOT NULL,        -- 1: as of an fsync, 0: only so that leftovers are known
    state BLOB NOT NULL             -- CBOR, see bytes/journal.rs
);
