//! Pooled connections to a server on loopback: what reuse saves, what a tick
//! does to idle ones, and why a pool that may drop anything at any tick is the
//! wrong home for long-lived sockets.
//!
//! `cargo run --release --example connection_pool`

use neap::{Pool, Tier};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

const REQUESTS: usize = 2000;

/// Answers each byte with itself; counts the connections it accepted and has open.
struct Server {
    address: SocketAddr,
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Server {
    fn start() -> io::Result<Arc<Self>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let server = Arc::new(Self { address, accepted: AtomicUsize::new(0), open: AtomicUsize::new(0) });
        let accepting = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepting.accepted.fetch_add(1, SeqCst);
                accepting.open.fetch_add(1, SeqCst);
                let server = accepting.clone();
                std::thread::spawn(move || {
                    // Ends with the connection.
                    let _ = echo(stream);
                    server.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Ok(server)
    }
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// A connection may fail to open, so that is what the pool's `New` gives.
type Connection = io::Result<TcpStream>;

fn connect(address: SocketAddr) -> Connection {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn ask(connection: &mut Connection) -> io::Result<()> {
    let stream = connection.as_mut().map_err(|error| io::Error::new(error.kind(), error.to_string()))?;
    let mut answer = [0];
    stream.write_all(b"?")?;
    stream.read_exact(&mut answer)
}

fn main() -> io::Result<()> {
    let server = Server::start()?;
    let address = server.address;

    let start = Instant::now();
    for _ in 0..REQUESTS {
        ask(&mut connect(address))?;
    }
    let fresh = start.elapsed();
    println!(
        "{REQUESTS} requests, a connection each: {fresh:.1?}, {} accepted",
        server.accepted.swap(0, SeqCst)
    );

    let pool = Pool::new(move || connect(address));
    let start = Instant::now();
    for _ in 0..REQUESTS {
        ask(&mut pool.get())?;
    }
    let pooled = start.elapsed();
    println!(
        "{REQUESTS} requests, from the pool:    {pooled:.1?}, {} accepted",
        server.accepted.swap(0, SeqCst)
    );

    let mut eight: Vec<_> = (0..8).map(|_| pool.get()).collect();
    eight.iter_mut().try_for_each(|connection| ask(connection))?;
    drop(eight);
    println!("\neight connections, then idle; the server has open:");
    for tick in 0..=2 {
        if tick > 0 {
            pool.tick();
        }
        // The server's threads see the end of a connection a moment later.
        std::thread::sleep(Duration::from_millis(100));
        println!(
            "  after {tick} ticks: {} ({} local, {} victim)",
            server.open.load(SeqCst),
            pool.len(Tier::Local),
            pool.len(Tier::Victim)
        );
    }
    let accepted = server.accepted.swap(0, SeqCst);
    ask(&mut pool.get())?;
    println!("the next request had to connect anew: {} accepted\n", server.accepted.load(SeqCst));
    assert!(accepted >= 7);
    println!(
        "So a pool like this is for what is cheap to lose. A tick closes sockets whose\n\
         handshake, login or session was dear; nothing bounds how many are open, tells\n\
         which are dead, or waits for one to come free. For long-lived connections use a\n\
         pool that owns them: with a bound, a health check and an idle time of its own."
    );
    Ok(())
}
