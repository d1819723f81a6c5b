//! The table: what each step cost, and where the connections are after it.

use crate::Times;
use crate::database::{Connection, Database};
use anyhow::Result;
use neap::{Pool, Tier};
use std::fmt;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Style};

/// Connections that a step opened and closed, and that are pooled after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Opened in this step.
    pub opened: usize,
    /// In the pool's local tier.
    pub local: usize,
    /// In its victim tier: rescued by use, closed by the next tick.
    pub victim: usize,
    /// Closed in this step.
    pub gone: usize,
}

/// A row for each step.
pub struct Report<'a, F> {
    database: &'a Database,
    pool: &'a Pool<Result<Connection>, F>,
    /// Opened and closed until the last row.
    before: (usize, usize),
    table: Builder,
}

impl<'a, F> Report<'a, F> {
    /// An empty table.
    pub fn new(database: &'a Database, pool: &'a Pool<Result<Connection>, F>) -> Self {
        let mut table = Builder::new();
        table.push_record(["", "first answer", "later ones", "opened", "local", "victim", "gone"]);
        Self { database, pool, before: (0, 0), table }
    }

    /// Adds a step. Its counts are the same in every run, so they are checked.
    pub fn row(&mut self, step: &str, times: Option<Times>, expected: Counts) {
        let opened = self.database.opened();
        let closed = opened - self.database.open();
        let counts = Counts {
            opened: opened - self.before.0,
            local: self.pool.len(Tier::Local),
            victim: self.pool.len(Tier::Victim),
            gone: closed - self.before.1,
        };
        self.before = (opened, closed);
        assert_eq!(counts, expected, "{step}");
        let (first, later) = match times {
            Some(times) => (format!("{:.1?}", times.first), format!("{:.1?}", times.later)),
            None => Default::default(),
        };
        let Counts { opened, local, victim, gone } = counts;
        let numbers = [opened, local, victim, gone].map(|count| count.to_string());
        self.table.push_record([step.to_owned(), first, later].into_iter().chain(numbers));
    }
}

impl<F> fmt::Display for Report<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = self.table.clone().build();
        table.with(Style::markdown()).modify(Columns::new(1..), Alignment::right());
        table.fmt(f)
    }
}
