//! `redis-server` under a library, driven by `redis-benchmark` over a Unix socket.

use crate::library::Library;
use std::error::Error;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests of one kind.
pub struct Load {
    /// Its name in tables.
    pub name: &'static str,
    arguments: &'static [&'static str],
    requests: u64,
}

/// Pipelined, so that the server works instead of waiting.
pub const ALL: &[Load] = &[
    Load {
        name: "redis: SET, 100 bytes",
        arguments: &["-t", "set", "-d", "100", "-r", "100000"],
        requests: 500_000,
    },
    Load { name: "redis: LPUSH and LPOP", arguments: &["-t", "lpush,lpop", "-d", "64"], requests: 400_000 },
    Load { name: "redis: HSET", arguments: &["-t", "hset", "-d", "200", "-r", "100000"], requests: 400_000 },
];

/// Whether Debian's package is installed; prints a line on stderr if not.
pub fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("redis is left out: apt-get install redis-server redis-tools");
    }
    found
}

/// The server, which is stopped when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Seconds for a load.
pub fn time(load: &Load, library: &Library, scale: f64) -> Result<f64, Box<dyn Error>> {
    let socket = std::env::temp_dir().join(format!("neap-redis-{}.sock", std::process::id()));
    let mut command = library.command("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
    let mut server = Server(command.stdout(Stdio::null()).spawn()?);
    let start = Instant::now();
    while !ping(&socket) {
        if server.0.try_wait()?.is_some() || start.elapsed() > Duration::from_secs(10) {
            return Err(format!("redis-server does not answer under {}", library.name).into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let requests = ((load.requests as f64 * scale) as u64).max(1000).to_string();
    let mut client = Command::new("redis-benchmark");
    client.arg("-s").arg(&socket).args(["-q", "-P", "32", "-n", &requests]).args(load.arguments);
    let start = Instant::now();
    let output = client.output()?;
    let seconds = start.elapsed().as_secs_f64();
    if !output.status.success() {
        return Err(format!("redis-benchmark under {}: {}", library.name, output.status).into());
    }
    Ok(seconds)
}

fn ping(socket: &std::path::Path) -> bool {
    let output = Command::new("redis-cli").arg("-s").arg(socket).arg("ping").output();
    output.is_ok_and(|output| output.stdout.starts_with(b"PONG"))
}
