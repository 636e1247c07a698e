//! One connection to the index, and how its statements are run.

use crate::StoreError;
use crate::index::key::Writers;
use crate::index::rare::Rare;
use rusqlite::{Connection, Params, Row};
use std::cell::RefCell;

/// How many prepared statements a connection keeps: more than there are.
const STATEMENTS: usize = 256;

/// A connection with its prepared statements, the writers it has met, and what it knows of rare
/// rows.
pub(crate) struct Handle {
    sql: Connection,
    pub(crate) writers: RefCell<Writers>,
    pub(crate) rare: RefCell<Rare>,
}

impl Handle {
    pub(crate) fn new(sql: Connection) -> Self {
        sql.set_prepared_statement_cache_capacity(STATEMENTS);
        Handle { sql, writers: RefCell::default(), rare: RefCell::default() }
    }

    /// The connection itself.
    pub(crate) fn sql(&self) -> &Connection {
        &self.sql
    }

    /// Runs a statement that returns nothing, and says how many rows it changed.
    pub(crate) fn run(&self, sql: &str, params: impl Params) -> Result<usize, StoreError> {
        Ok(self.sql.prepare_cached(sql)?.execute(params)?)
    }

    /// The first row of a query, if there is one.
    pub(crate) fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        rows.next()?.map(read).transpose()
    }

    /// All rows of a query.
    pub(crate) fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.sql.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(read(row)?);
        }
        Ok(all)
    }

    /// Begins a transaction that writes.
    pub(crate) fn begin(&self) -> Result<(), StoreError> {
        if !self.sql.is_autocommit() {
            // Only a panic inside of a transaction leaves one open.
            self.rollback();
        }
        self.run("BEGIN IMMEDIATE", [])?;
        Ok(())
    }

    /// Commits the open transaction.
    pub(crate) fn commit(&self) -> Result<(), StoreError> {
        self.run("COMMIT", [])?;
        self.rare.borrow_mut().commit();
        Ok(())
    }

    /// Undoes the open transaction, if there is one.
    pub(crate) fn rollback(&self) {
        // Writers met for the first time in this transaction are forgotten with it.
        self.writers.borrow_mut().clear();
        self.rare.borrow_mut().rollback();
        if self.sql.is_autocommit() {
            // SQLite undoes by itself what failed for want of room or memory.
            return;
        }
        if let Err(cause) = self.run("ROLLBACK", []) {
            tracing::error!(%cause, "a transaction of the index could not be rolled back");
        }
    }
}
