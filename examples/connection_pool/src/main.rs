//! Database connections in a [`Pool`]: what reuse saves, what a tick does to
//! idle connections, and why long-lived sockets want another kind of pool.
//!
//! ```text
//! cargo run --release -p connection_pool                            SQLite, built in
//! cargo run --release -p connection_pool -- --url postgres://…      PostgreSQL
//! ```
//!
//! Threads ask for accounts, first on a new connection for each query, then on
//! pooled ones. In between they pause, and the pool is ticked by hand, so that
//! every run counts the same; in a program whose allocator is Neap, ticks come
//! by themselves. After one tick the idle connections are victims: the next
//! load rescues them and opens none. After two they are closed, and the next
//! load pays for new ones. A server that closes its connections is part of the
//! show: the pool learns it when a query fails, drops the connection instead of
//! putting it back, and asks on another.
//!
//! # When to use another pool
//!
//! `Pool<T>`, like Go's `sync.Pool`, is for what is cheap to lose. For sockets
//! that live long, use a pool that owns them, as `r2d2` or `deadpool` do. It has
//!
//! - a health check before use, where this one finds a dead connection only
//!   when a query fails (which is safe here because the query only reads);
//! - a minimum of idle connections, where a quiet second closes all of these;
//! - a maximum, where every thread that finds this pool empty opens one more,
//!   until the server refuses;
//! - fairness: who waits longest is served first. Here nobody waits, and a
//!   connection put back by one thread may be taken by any other.

mod database;
mod report;

use anyhow::Result;
use clap::Parser;
use database::{ACCOUNTS, Connection, Database};
use neap::{Pool, PoolGuard};
use report::{Counts, Report};
use std::process::ExitCode;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Database connections in a neap::Pool, before and after a tick.
#[derive(Parser)]
struct Options {
    /// A PostgreSQL server, postgres://user:password@host/database; SQLite if
    /// not given. Without TLS. A table neap_accounts is made there, and dropped
    /// at the end.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    url: Option<String>,
    /// Threads that ask at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Queries of each thread, in each load.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..))]
    queries: u32,
    /// Milliseconds for which the connections are idle before a tick.
    #[arg(long, default_value_t = 100)]
    pause: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("connection_pool: {}", format!("{error:#}").replace('\n', "; "));
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let (name, database) = match &options.url {
        Some(url) => ("PostgreSQL", Database::postgres(url)?),
        None => ("SQLite", Database::sqlite()?),
    };
    // Opening may fail, so New gives a result.
    let pool = Pool::new(|| database.connect());
    let none = Counts::default();
    let all = options.threads as usize;
    let mut report = Report::new(&database, &pool);

    let anew = load(options, |account| {
        let mut connection = database.connect()?;
        connection.balance(account)?;
        Ok(connection)
    })?;
    let queries = all * options.queries as usize;
    report.row("a new connection per query", Some(anew), Counts { opened: queries, gone: queries, ..none });

    let pooled = |account| ask(&pool, account);
    let filled = Counts { opened: all, local: all, ..none };
    report.row("pool: first load", Some(load(options, pooled)?), filled);

    let idle_tick = || {
        thread::sleep(Duration::from_millis(options.pause));
        pool.tick();
    };
    idle_tick();
    report.row("idle for a tick", None, Counts { victim: all, ..none });
    report.row("pool: victims rescued", Some(load(options, pooled)?), Counts { local: all, ..none });

    idle_tick();
    idle_tick();
    report.row("idle for two ticks", None, Counts { gone: all, ..none });
    report.row("pool: opened anew", Some(load(options, pooled)?), filled);

    if database.end_all()? {
        report.row("the server ends them", None, Counts { local: all, ..none });
        let replaced = Counts { gone: all, ..filled };
        report.row("pool: dead ones replaced", Some(load(options, pooled)?), replaced);
    }

    println!("{name}, {all} threads, {} queries each in a load\n{report}", options.queries);
    println!(
        "Idle connections are gone after two ticks: a pool like this is for what is cheap\n\
         to lose. For long-lived sockets use one with health checks, a minimum of idle\n\
         connections, a maximum and a fair queue, such as r2d2 or deadpool."
    );
    Ok(())
}

/// What a thread holds while it asks, and puts back by dropping it.
type Lease<'a, F> = PoolGuard<'a, Result<Connection>, F>;

/// Asks on a connection of the pool, or a new one.
fn ask<F: Fn() -> Result<Connection>>(
    pool: &Pool<Result<Connection>, F>,
    account: i64,
) -> Result<Lease<'_, F>> {
    loop {
        let mut lease = pool.get();
        let answer = lease.as_mut().map(|connection| connection.balance(account));
        // What failed does not go back. If it was a pooled connection that the
        // server has closed since, the next one may do.
        match answer {
            Ok(Ok(_)) => return Ok(lease),
            Ok(Err(error)) => {
                if !lease.into_inner()?.was_lost(&error) {
                    return Err(error);
                }
            }
            Err(_) => drop(lease.into_inner()?),
        }
    }
}

/// Mean times, as the threads saw them.
struct Times {
    first: Duration,
    later: Duration,
}

/// All threads ask at once. `ask` gives what is to be held while asking.
fn load<H>(options: &Options, ask: impl Fn(i64) -> Result<H> + Sync) -> Result<Times> {
    let barrier = Barrier::new(options.threads as usize);
    let work = || -> Result<Times> {
        barrier.wait();
        let start = Instant::now();
        let held = ask(0);
        let first = start.elapsed();
        // Every thread holds a connection here, so there are as many of them.
        barrier.wait();
        drop(held?);
        let start = Instant::now();
        for query in 1..options.queries {
            ask(i64::from(query) % ACCOUNTS)?;
        }
        Ok(Times { first, later: start.elapsed() / (options.queries - 1) })
    };
    let times: Vec<Times> = thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Result<_>>()
    })?;
    let mean = |of: fn(&Times) -> Duration| times.iter().map(of).sum::<Duration>() / options.threads;
    Ok(Times { first: mean(|times| times.first), later: mean(|times| times.later) })
}
