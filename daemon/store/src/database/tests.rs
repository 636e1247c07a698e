//! What is refused, what is migrated, and what a stop leaves.

use super::*;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// A closed index that was founded properly.
fn make(directory: &Path) {
    let database = Database::open(directory).unwrap().database;
    database.write(|handle| fill(handle.sql()).map_err(StoreError::from)).unwrap();
    database.close(None).unwrap();
}

/// Rows enough for several pages.
fn fill(sql: &Connection) -> Result<(), rusqlite::Error> {
    for id in 1..500 {
        let register = vec![7_u8; 100];
        sql.execute("INSERT INTO inodes VALUES (?, 0, 1, 0, 0, NULL, NULL, ?)", (id, register))?;
    }
    Ok(())
}

fn raw(directory: &Path) -> Connection {
    let sql = Connection::open(directory.join("index.db")).unwrap();
    sql.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    sql
}

/// What is in a directory. Readers' shared memory and a log without pages hold no data.
fn contents(directory: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = files.filter(|file| !file.file_name().to_string_lossy().ends_with("-shm"));
    let files = files.map(|file| (file.file_name(), std::fs::read(file.path()).unwrap()));
    files.filter(|(name, bytes)| name != "index.db-wal" || !bytes.is_empty()).collect()
}

#[test]
fn what_can_not_be_trusted_is_refused_and_stays_as_it_is() {
    type Spoil = fn(&Path);
    let cases: [(&str, Spoil, &str); 8] = [
        (
            "text",
            |at| std::fs::write(at.join("index.db"), "a".repeat(5000)).unwrap(),
            "not a readable index",
        ),
        (
            "a few bytes",
            |at| std::fs::write(at.join("index.db"), "SQLite format 3\0").unwrap(),
            "not a readable index",
        ),
        (
            "another program's database",
            |at| {
                std::fs::remove_file(at.join("index.db")).unwrap();
                raw(at).execute_batch("CREATE TABLE other (id); PRAGMA user_version = 1").unwrap();
            },
            "not a readable index",
        ),
        (
            "another program's database without a version",
            |at| {
                std::fs::remove_file(at.join("index.db")).unwrap();
                raw(at).execute_batch("CREATE TABLE other (id)").unwrap();
            },
            "not a readable index",
        ),
        (
            "a newer version",
            |at| {
                let sql = raw(at);
                sql.pragma_update(None, "user_version", MIGRATIONS.len() as i64 + 1).unwrap();
                sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            },
            "newer version of Kith",
        ),
        (
            "a newer version that is only in the log",
            |at| {
                let next = MIGRATIONS.len() as i64 + 1;
                raw(at).pragma_update(None, "user_version", next).unwrap();
            },
            "newer version of Kith",
        ),
        (
            "damage after an unclean stop",
            |at| {
                drop(Database::open(at).unwrap());
                let mut bytes = std::fs::read(at.join("index.db")).unwrap();
                let middle = bytes.len() - 3 * 4096;
                bytes[middle..middle + 4096].fill(0x5a);
                std::fs::write(at.join("index.db"), bytes).unwrap();
            },
            "not a readable index",
        ),
        (
            "a link to itself",
            |at| {
                std::fs::remove_file(at.join("index.db")).unwrap();
                std::os::unix::fs::symlink("index.db", at.join("index.db")).unwrap();
            },
            "can't be opened",
        ),
    ];
    for (what, spoil, refusal) in cases {
        let directory = tempfile::tempdir().unwrap();
        make(directory.path());
        spoil(directory.path());
        let look = what != "a link to itself";
        let before = if look { contents(directory.path()) } else { BTreeMap::new() };
        let refused = Database::open(directory.path()).err().unwrap_or_else(|| panic!("{what}"));
        assert!(refused.to_string().contains(refusal), "{what}: {refused}");
        if look {
            assert!(contents(directory.path()) == before, "{what} was changed");
        }
    }
}

#[test]
fn a_store_in_use_is_refused_until_it_is_free() {
    let directory = tempfile::tempdir().unwrap();
    let first = Database::open(directory.path()).unwrap();
    let refused = Database::open(directory.path()).err().unwrap();
    assert!(matches!(refused, OpenError::InUse { .. }), "{refused}");
    drop(first);
    Database::open(directory.path()).unwrap();
}

#[test]
fn only_a_closed_store_was_stopped_in_order() {
    let directory = tempfile::tempdir().unwrap();
    assert!(!Database::open(directory.path()).unwrap().unclean);
    let opened = Database::open(directory.path()).unwrap();
    assert!(opened.unclean);
    opened.database.close(None).unwrap();
    assert!(matches!(opened.database.write(|_| Ok(())), Err(StoreError::Closed)));
    assert!(matches!(opened.database.reader().map(drop), Err(StoreError::Closed)));
    drop(opened);
    assert!(!Database::open(directory.path()).unwrap().unclean);
}

#[test]
fn every_migration_applies_after_the_ones_before() {
    Migrations::from_slice(MIGRATIONS).validate().unwrap();
}

#[test]
fn an_older_index_is_copied_before_it_is_migrated() {
    let directory = tempfile::tempdir().unwrap();
    let mut sql = raw(directory.path());
    sql.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    Migrations::from_slice(MIGRATIONS).to_version(&mut sql, 1).unwrap();
    fill(&sql).unwrap();
    drop(sql);
    let database = Database::open(directory.path()).unwrap().database;
    let rows = "SELECT count(*) FROM inodes";
    let handle = database.writer().unwrap();
    assert_eq!(handle.first(rows, [], |row| Ok(row.get::<_, i64>(0)?)).unwrap(), Some(499));
    let version = pragma(handle.sql(), "user_version").unwrap();
    assert_eq!(usize::try_from(version).unwrap(), MIGRATIONS.len());
    let copy = directory.path().join(format!("index-before-{}.db", MIGRATIONS.len()));
    let copy = Connection::open(copy).unwrap();
    assert_eq!(pragma(&copy, "user_version").unwrap(), 1);
    assert_eq!(copy.query_row(rows, [], |row| row.get::<_, i64>(0)).unwrap(), 499);
}

#[test]
fn an_empty_file_is_a_new_index() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("index.db"), "").unwrap();
    assert!(!Database::open(directory.path()).unwrap().unclean);
}

#[test]
fn every_connection_has_a_page_cache_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let sql = raw(directory.path());
    let shared = "SELECT sqlite_compileoption_used('ENABLE_MEMORY_MANAGEMENT')";
    let shared: bool = sql.query_row(shared, [], |row| row.get(0)).unwrap();
    assert!(!shared, ".cargo/config.toml was not read: build inside of the repository");
}
