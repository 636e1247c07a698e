-- Of what is forgotten: ids that were heard of from devices that knew more than this one does yet.
CREATE TABLE hearsay (number INTEGER PRIMARY KEY, known BLOB NOT NULL);
CREATE TABLE hearsay_ids (
    number INTEGER NOT NULL,    -- of the hearsay
    kind INTEGER NOT NULL,      -- this and the rest as in `forgotten`
    writer INTEGER NOT NULL,
    page INTEGER NOT NULL,
    ids BLOB NOT NULL,
    PRIMARY KEY (number, kind, writer, page)
) WITHOUT ROWID;
