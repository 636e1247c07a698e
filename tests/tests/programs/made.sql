PRAGMA journal_mode = WAL; CREATE TABLE t (writer, number, bytes);
