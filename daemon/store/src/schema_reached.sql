-- How far this device has come in the logs of others: up to a number, as the log was when it ended at
-- `head`. What was kept before had no heads: the logs are walked once more.
DROP TABLE cursors;
CREATE TABLE reached (
    device BLOB PRIMARY KEY,
    number INTEGER NOT NULL,
    writer INTEGER NOT NULL,
    head INTEGER NOT NULL,
    tag INTEGER NOT NULL
) WITHOUT ROWID;
