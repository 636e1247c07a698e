-- The first migration: the replicated tree, its view, the nodes of the mount, and what is still
-- to be fetched. docs/disk.md describes it. The second migration is schema_bytes.sql.
--
-- Dots are keys of one integer: a row of `writers`, shifted left by 32 bits, and the lower half
-- of the dot's number. 64-bit values without sign are kept as the signed integer of their bits.

CREATE TABLE writers (
    row INTEGER PRIMARY KEY,
    writer INTEGER NOT NULL,
    high INTEGER NOT NULL,      -- the upper half of the numbers
    UNIQUE (writer, high)
);

-- What the replica remembers of itself, and counters kept up with it: one row.
CREATE TABLE replica (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    clean INTEGER NOT NULL,     -- the store was closed in order
    share BLOB,                 -- null until the index is founded
    device BLOB,
    author TEXT,
    writer INTEGER,
    number INTEGER,
    hlc INTEGER,
    knowledge BLOB,
    tags_from INTEGER NOT NULL, -- tags of numbers up to this one are no longer kept; else -1
    entries INTEGER NOT NULL,   -- names of the view
    bytes INTEGER NOT NULL,     -- the sizes of the files that they lead to
    conflicts INTEGER NOT NULL, -- names with a label
    absent INTEGER NOT NULL     -- bytes still to be fetched
);
INSERT INTO replica VALUES (1, 1, NULL, NULL, NULL, NULL, NULL, NULL, NULL, -1, 0, 0, 0, 0);

-- The tag of each transaction, by the last number that it gave out.
CREATE TABLE tags (last INTEGER PRIMARY KEY, tag INTEGER NOT NULL);

CREATE TABLE cursors (
    device BLOB PRIMARY KEY,
    writer INTEGER NOT NULL,
    number INTEGER NOT NULL,
    tag INTEGER NOT NULL
) WITHOUT ROWID;

-- This device's log: the present place of every register that others may see.
CREATE TABLE log (
    logged INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    entry INTEGER NOT NULL      -- 0: an inode, 1: an entry
);

CREATE TABLE inodes (
    id INTEGER PRIMARY KEY,
    logged INTEGER NOT NULL,
    kind INTEGER NOT NULL,      -- 0: directory, 1: file, 2: anything else
    size INTEGER NOT NULL,      -- of the latest version; 0 without one
    names INTEGER NOT NULL,     -- how many names of the view lead to it, copies apart
    ino INTEGER,                -- its node, once a name of the view has led to it
    whole INTEGER,              -- the version that is known to lack no chunk
    register BLOB NOT NULL      -- without the id
);

CREATE INDEX inodes_withheld ON inodes (id) WHERE logged = 0;

CREATE TABLE entries (
    id INTEGER PRIMARY KEY,
    logged INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    shown_parent INTEGER NOT NULL,
    seen INTEGER NOT NULL,      -- 0: not present, 1: present, 2: present and shown as it is
    name BLOB NOT NULL,
    parent INTEGER,             -- the place's parent, null if it is shown_parent
    register BLOB NOT NULL,     -- without what the columns hold
    withheld BLOB,              -- a removal that others don't see yet
    waits_for INTEGER           -- and the file that has to be published first
);
CREATE INDEX entries_inode ON entries (inode);
CREATE INDEX entries_place ON entries (shown_parent, seen, name);
CREATE INDEX entries_waiting ON entries (waits_for) WHERE waits_for IS NOT NULL;

CREATE TABLE history (
    inode INTEGER NOT NULL,
    dot INTEGER NOT NULL,
    retired INTEGER NOT NULL,   -- milliseconds since 1970
    why INTEGER NOT NULL,       -- 0: superseded
    version BLOB NOT NULL,
    PRIMARY KEY (inode, dot)
);

-- Directories that are shown as another one.
CREATE TABLE unions (directory INTEGER PRIMARY KEY, representative INTEGER NOT NULL);
CREATE INDEX unions_representative ON unions (representative);

-- The names of the view that are not simply an entry where it is: those are the entries with
-- seen = 2. No name is in both.
CREATE TABLE shown (
    parent INTEGER NOT NULL,
    name BLOB NOT NULL,
    key INTEGER NOT NULL,       -- the node's
    inode INTEGER,              -- of a copy, the file that it is a version of
    size INTEGER NOT NULL,      -- of a copy
    entry INTEGER NOT NULL,
    base BLOB,                  -- null if it is the name
    wanted BLOB,
    repaired INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) WITHOUT ROWID;
CREATE INDEX shown_key ON shown (key);
CREATE INDEX shown_base ON shown (parent, base) WHERE base IS NOT NULL;
CREATE INDEX shown_wanted ON shown (parent, wanted) WHERE wanted IS NOT NULL;

-- How many directories a directory shows.
CREATE TABLE directories (key INTEGER PRIMARY KEY, subdirectories INTEGER NOT NULL);

-- The nodes of the mount. The row with the greatest number is never deleted, so that no number is
-- used twice.
CREATE TABLE nodes (
    ino INTEGER PRIMARY KEY,
    key INTEGER NOT NULL,
    inode INTEGER,              -- of a copy, the file that it is a version of
    current INTEGER NOT NULL,
    changed INTEGER NOT NULL,   -- seconds, and nanoseconds, since 1970
    changed_ns INTEGER NOT NULL,
    modified INTEGER,           -- null if it is changed
    modified_ns INTEGER
);
CREATE INDEX nodes_superseded ON nodes (ino) WHERE current = 0;

-- The nodes of copies; those of inodes are in their own rows.
CREATE TABLE copies (
    key INTEGER PRIMARY KEY,
    ino INTEGER NOT NULL,
    whole INTEGER NOT NULL      -- 1: the version is known to lack no chunk
);

-- Versions that are shown and lack chunks.
CREATE TABLE incomplete (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    inode INTEGER NOT NULL,
    dot INTEGER NOT NULL,
    absent INTEGER NOT NULL,    -- bytes
    UNIQUE (inode, dot)
);
