-- What is forgotten: of removed objects that every device knew of, only the ids stay. And what the
-- other devices have said that they know, by which that is known.

CREATE TABLE forgotten (
    kind INTEGER NOT NULL,      -- 0: inodes, 1: entries
    writer INTEGER NOT NULL,
    page INTEGER NOT NULL,      -- 4,096 numbers of the writer's each
    logged INTEGER NOT NULL,    -- its place in this device's log
    ids BLOB NOT NULL,          -- as in messages, see docs/wire.md
    PRIMARY KEY (kind, writer, page)
) WITHOUT ROWID;
CREATE INDEX forgotten_logged ON forgotten (logged);

CREATE TABLE stated (device BLOB PRIMARY KEY, knowledge BLOB NOT NULL) WITHOUT ROWID;

CREATE INDEX entries_removed ON entries (id) WHERE seen = 0;
