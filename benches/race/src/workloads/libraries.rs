//! Real libraries at real work.

use super::{Work, random, scaled};
use rand::Rng;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::PathBuf;

/// Rust sources of the crates that this race was built from, or its own sources.
fn sources(bytes: usize) -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let fetched = home.map(|home| home.join("registry/src")).filter(|dir| dir.is_dir());
    let dir = fetched.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let mut sum = 0;
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    let texts = files
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "rs"))
        .filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    texts
        .take_while(|text| {
            let more = sum < bytes;
            sum += text.len();
            more
        })
        .collect()
}

pub fn json(scale: f64) -> Work {
    let count = scaled(60, scale);
    let mut random = random(31);
    let mut object = |n: usize| {
        json!({
            "id": n, "name": format!("name {n}"), "tags": ["a", "bb", "ccc"],
            "position": { "x": random.random::<f64>(), "y": random.random::<f64>() },
            "notes": "x".repeat(n % 60), "flags": [true, false, null],
        })
    };
    let text = Value::from((0..10_000).map(&mut object).collect::<Vec<_>>()).to_string();
    Box::new(move || {
        (0..count)
            .map(|_| {
                let tree: Value = serde_json::from_str(&text).expect("what was printed");
                tree.to_string().len() as u64
            })
            .sum()
    })
}

pub fn parse_rust(scale: f64) -> Work {
    let files = sources(scaled(16 << 20, scale));
    Box::new(move || {
        files
            .chunks(32)
            .map(|batch| {
                batch.iter().filter_map(|text| syn::parse_file(text).ok()).collect::<Vec<_>>().len() as u64
            })
            .sum()
    })
}

pub fn html(scale: f64) -> Work {
    let count = scaled(120, scale);
    let mut random = random(33);
    let mut row = |n: usize| {
        let cells: String = (0..6)
            .map(|cell| {
                format!(
                    "<td class=\"c{cell}\"><a href=\"/{n}/{cell}\">{}</a> text &amp; more</td>",
                    random.random::<u32>()
                )
            })
            .collect();
        format!(
            "<tr id=\"r{n}\">{cells}</tr>\n<p>A paragraph with <b>bold</b> and <i>other</i> words, number {n}.</p>"
        )
    };
    let body: String = (0..1000).map(&mut row).collect();
    let page = format!(
        "<!DOCTYPE html><html><head><title>page</title></head><body><table>{body}</table></body></html>"
    );
    Box::new(move || {
        let links = scraper::Selector::parse("td > a").expect("a selector");
        (0..count).map(|_| scraper::Html::parse_document(&page).select(&links).count() as u64).sum()
    })
}

pub fn sql(scale: f64) -> Work {
    let count = scaled(40_000, scale);
    let statements = [
        "SELECT a.id, b.name, COUNT(*) AS n FROM a JOIN b ON a.id = b.a_id WHERE a.x > 10 AND b.y IN (1, 2, 3) GROUP BY a.id, b.name HAVING COUNT(*) > 5 ORDER BY n DESC LIMIT 10",
        "INSERT INTO t (id, name, created) VALUES (1, 'one', NOW()), (2, 'two', NOW()), (3, 'three', NULL)",
        "WITH recent AS (SELECT * FROM events WHERE at > '2026-01-01') SELECT kind, SUM(CASE WHEN ok THEN 1 ELSE 0 END) FROM recent GROUP BY kind",
        "UPDATE t SET name = UPPER(name), n = n + 1 WHERE id BETWEEN 5 AND 50 AND NOT deleted",
    ];
    Box::new(move || {
        let dialect = sqlparser::dialect::GenericDialect {};
        (0..count)
            .map(|n| {
                let parsed =
                    sqlparser::parser::Parser::parse_sql(&dialect, statements[n % 4]).expect("valid");
                parsed[0].to_string().len() as u64
            })
            .sum()
    })
}

pub fn script(scale: f64) -> Work {
    let count = scaled(12, scale);
    Box::new(move || {
        let engine = rhai::Engine::new();
        let program = engine
            .compile(
                "let all = []; let sum = 0;
                 for n in 0..20000 { let item = #{ id: n, name: `name ${n}` }; all.push(item); sum += item.name.len(); }
                 let words = \"\"; for item in all { if item.id % 7 == 0 { words += item.name; } }
                 sum + words.len()",
            )
            .expect("a program");
        (0..count).map(|_| engine.eval_ast::<i64>(&program).expect("a number") as u64).sum()
    })
}

pub fn persistent(scale: f64) -> Work {
    let count = scaled(700_000, scale);
    let mut random = random(36);
    Box::new(move || {
        let mut map: im::HashMap<u32, String> = im::HashMap::new();
        let mut versions = Vec::new();
        for n in 0..count {
            map.insert(random.random_range(0..50_000), n.to_string());
            if n % 20 == 0 {
                versions.push(map.clone());
            }
            if versions.len() > 100 {
                versions.drain(..50);
            }
        }
        map.len() as u64
    })
}

pub fn words(scale: f64) -> Work {
    let files = sources(scaled(12 << 20, scale));
    Box::new(move || {
        let word = regex::Regex::new(r"[A-Za-z_][A-Za-z0-9_]*").expect("a pattern");
        let mut counts: HashMap<String, u64> = HashMap::new();
        for text in &files {
            for found in word.find_iter(text) {
                *counts.entry(found.as_str().to_owned()).or_default() += 1;
            }
        }
        counts.len() as u64
    })
}

pub fn rayon_work(scale: f64) -> Work {
    let count = scaled(12, scale);
    Box::new(move || {
        (0..count)
            .map(|round| {
                let mut texts: Vec<String> = (0..300_000u64)
                    .into_par_iter()
                    .map(|n| (n.wrapping_mul(2_654_435_761) ^ round as u64).to_string())
                    .collect();
                texts.par_sort();
                let lengths: Vec<Vec<u8>> =
                    texts.par_iter().map(|text| text.bytes().rev().collect()).collect();
                lengths.len() as u64
            })
            .sum()
    })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_io().build().expect("a runtime")
}

pub fn tokio_tasks(scale: f64) -> Work {
    let count = scaled(60, scale);
    Box::new(move || {
        runtime().block_on(async {
            let mut sum = 0;
            for _ in 0..count {
                let tasks: Vec<_> = (0..10_000u64)
                    .map(|n| tokio::spawn(async move { black_box(vec![n; 8]).len() as u64 }))
                    .collect();
                for task in tasks {
                    sum += task.await.expect("no panic");
                }
            }
            sum
        })
    })
}

/// Loopback connections, each of which gets back what it sent.
pub fn tokio_echo(scale: f64) -> Work {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let count = scaled(2_000, scale);
    Box::new(move || {
        runtime().block_on(async {
            let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
            let address = listener.local_addr().expect("bound");
            let server = tokio::spawn(async move {
                for _ in 0..16 {
                    let (mut stream, _) = listener.accept().await.expect("a client");
                    tokio::spawn(async move {
                        loop {
                            let mut buffer = vec![0; 1024];
                            let count = stream.read(&mut buffer).await.unwrap_or(0);
                            if count == 0 || stream.write_all(&buffer[..count]).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            });
            let clients: Vec<_> = (0..16)
                .map(|_| {
                    tokio::spawn(async move {
                        let mut stream = tokio::net::TcpStream::connect(address).await.expect("the server");
                        for n in 0..count {
                            let message = format!("message {n} {}", "x".repeat(n % 500));
                            stream.write_all(message.as_bytes()).await.expect("the server");
                            let mut answer = vec![0; message.len()];
                            stream.read_exact(&mut answer).await.expect("the server");
                        }
                    })
                })
                .collect();
            for client in clients {
                client.await.expect("no panic");
            }
            server.await.expect("no panic");
            count as u64
        })
    })
}
