-- The fourth migration: what other devices take away.

ALTER TABLE replica ADD COLUMN files INTEGER NOT NULL DEFAULT 0; -- names of the view that lead to files
UPDATE replica SET files = (SELECT coalesce(sum(names), 0) FROM inodes WHERE kind = 1)
    + (SELECT count(*) FROM shown WHERE inode IS NOT NULL);

-- The writers that have removed or overwritten files of this share.
CREATE TABLE watched (
    writer INTEGER PRIMARY KEY,
    meant INTEGER NOT NULL,     -- the hybrid time up to which a person meant all of it; else 0
    state BLOB NOT NULL         -- CBOR: what is counted, and the alarms that stand
);
