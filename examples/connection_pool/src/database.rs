//! The database: SQLite in a temporary file, or a PostgreSQL server.

use anyhow::{Context, Error, Result, bail, ensure};
use postgres::NoTls;
use postgres::error::Severity;
use rusqlite::OpenFlags;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tempfile::NamedTempFile;

/// Accounts in the table; the balance of account n is 7n.
pub const ACCOUNTS: i64 = 1000;

const TABLE: &str = "CREATE TABLE neap_accounts (id BIGINT PRIMARY KEY, balance BIGINT NOT NULL)";
const FILL: &str = "INSERT INTO neap_accounts
    WITH RECURSIVE account(id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM account WHERE id < 999)
    SELECT id, 7 * id FROM account";
const QUERY: &str = "SELECT balance FROM neap_accounts WHERE id = $1";
const DROP: &str = "DROP TABLE IF EXISTS neap_accounts";
/// By this name the server knows our connections.
const NAME: &str = "neap_connection_pool";

/// A database with a table of accounts, which counts its connections.
pub struct Database {
    kind: Kind,
    opened: AtomicUsize,
    /// Each open connection has a clone.
    open: Arc<()>,
}

enum Kind {
    Sqlite(NamedTempFile),
    Postgres(Box<postgres::Config>),
}

impl Database {
    /// Makes the table in a temporary file.
    pub fn sqlite() -> Result<Self> {
        let file = NamedTempFile::new().context("no temporary file")?;
        let setup = rusqlite::Connection::open(file.path()).context("cannot open SQLite")?;
        setup.execute_batch(&format!("{TABLE}; {FILL}")).context("cannot make the table")?;
        Ok(Self::new(Kind::Sqlite(file)))
    }

    /// Makes the table on the server. It is dropped with the `Database`.
    pub fn postgres(url: &str) -> Result<Self> {
        // The URL may hold a password, so no message shows it.
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            bail!("the URL must begin with postgres://");
        }
        let mut config: postgres::Config = url.parse().context("bad URL")?;
        config.application_name(NAME).connect_timeout(Duration::from_secs(5));
        let mut setup = config.connect(NoTls).context("cannot connect to PostgreSQL")?;
        setup.batch_execute(&format!("{DROP}; {TABLE}; {FILL}")).context("cannot make the table")?;
        Ok(Self::new(Kind::Postgres(Box::new(config))))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, opened: AtomicUsize::new(0), open: Arc::new(()) }
    }

    /// Opens a connection and prepares the query on it.
    pub fn connect(&self) -> Result<Connection> {
        let session = match &self.kind {
            Kind::Sqlite(file) => {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let client = rusqlite::Connection::open_with_flags(file.path(), flags);
                Session::Sqlite(client.context("cannot open SQLite")?)
            }
            Kind::Postgres(config) => {
                let mut client = config.connect(NoTls).context("cannot connect to PostgreSQL")?;
                let query = client.prepare(QUERY).context("cannot prepare the query")?;
                Session::Postgres(client, query)
            }
        };
        self.opened.fetch_add(1, Relaxed);
        Ok(Connection { session, used: false, _open: self.open.clone() })
    }

    /// Connections opened so far.
    pub fn opened(&self) -> usize {
        self.opened.load(Relaxed)
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    /// Has the server end every connection, as it would when it restarts.
    /// False if there is no server.
    pub fn end_all(&self) -> Result<bool> {
        let Kind::Postgres(config) = &self.kind else { return Ok(false) };
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = $1 AND pid <> pg_backend_pid()";
        config.connect(NoTls)?.execute(end, &[&NAME]).context("cannot end the connections")?;
        Ok(true)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Kind::Postgres(config) = &self.kind
            && let Err(error) = config.connect(NoTls).and_then(|mut client| client.batch_execute(DROP))
        {
            eprintln!("connection_pool: table neap_accounts is left behind: {error}");
        }
    }
}

/// An open connection with its prepared query: both are what a pool saves.
pub struct Connection {
    session: Session,
    used: bool,
    _open: Arc<()>,
}

enum Session {
    Sqlite(rusqlite::Connection),
    Postgres(postgres::Client, postgres::Statement),
}

impl Connection {
    /// Asks for an account's balance, and checks it.
    pub fn balance(&mut self, account: i64) -> Result<i64> {
        let balance: i64 = match &mut self.session {
            Session::Sqlite(client) => {
                client.prepare_cached(QUERY)?.query_row([account], |row| row.get(0))?
            }
            Session::Postgres(client, query) => client.query_one(query, &[&account])?.try_get(0)?,
        };
        ensure!(balance == 7 * account, "account {account} has a balance of {balance}");
        self.used = true;
        Ok(balance)
    }

    /// True if it answered before and its session has ended since, by the error
    /// that it gave: a new connection may do what this one could not.
    pub fn was_lost(&self, error: &Error) -> bool {
        let Some(error) = error.downcast_ref::<postgres::Error>() else { return false };
        // The server's ERROR ends a query. Its FATAL ends the session, and what
        // does not come from the server is a broken socket.
        let query_only =
            error.as_db_error().and_then(|error| error.parsed_severity()) == Some(Severity::Error);
        self.used && !query_only
    }
}
