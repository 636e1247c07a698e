-- The writers that the index had, what others say of them, and the proof that a start goes on where
-- the last stop was. docs/sync.md says what they are for.

-- What the last orderly stop also left outside of the index; null while it is in use.
ALTER TABLE replica ADD COLUMN continuity INTEGER;
-- When there were signs that another machine has this device's identity, in milliseconds since 1970.
ALTER TABLE replica ADD COLUMN clone_first INTEGER;
ALTER TABLE replica ADD COLUMN clone_last INTEGER;

-- The writers before the present one. Times are in milliseconds since 1970.
CREATE TABLE former_writers (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    writer INTEGER NOT NULL,
    last INTEGER NOT NULL,      -- the last number that was given out under it
    ended INTEGER NOT NULL,     -- the latest hybrid time under it
    succeeded INTEGER NOT NULL  -- when the next one took its place
);

-- Writers that others take for this device's, and that aren't in its history.
CREATE TABLE strangers (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    writer INTEGER NOT NULL,
    noticed INTEGER NOT NULL
);

-- What each device last said of its place in this one's log, and the writer of this one then.
CREATE TABLE named (
    device BLOB PRIMARY KEY,
    writer INTEGER NOT NULL,
    number INTEGER NOT NULL,
    tag INTEGER NOT NULL,
    under INTEGER NOT NULL
) WITHOUT ROWID;
