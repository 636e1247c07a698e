PRAGMA integrity_check;
SELECT count(DISTINCT number), count(*) FROM t GROUP BY writer;
PRAGMA wal_checkpoint(TRUNCATE);
VACUUM;
PRAGMA integrity_check;
