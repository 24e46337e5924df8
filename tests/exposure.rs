//! Whoever can reach the socket, with or without a key: how much they may send, how slowly, and how many they may be.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use crate::support::{Answer, World};

/// `CONNECTIONS_MAX` of domain.
const CONNECTIONS_MAX: usize = 1_024;
/// `REQUEST_HEADERS_MAX` of domain.
const REQUEST_HEADERS_MAX: usize = 64;
/// `REQUEST_HEAD_BYTES_MAX` of domain.
const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// A server that does not close a connection within this never does.
const CUT_PATIENCE: Duration = Duration::from_secs(150);
/// As many connections as an attacker holds who sends half a head on each.
const HALF_HEADS: usize = 1_100;
/// How long a probe waits before it calls a server dead: a third of the time that a head may take.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// `CONNECTION_WAIT_MIN` of domain.
const WAIT_MIN: Duration = Duration::from_secs(1);

const GET_HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

fn connect(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(CUT_PATIENCE)).unwrap();
    socket
}

fn address(world: &World) -> String {
    world.url().trim_start_matches("http://").to_owned()
}

/// What comes back until the server closes.
fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        // Closed with something of ours unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server does not close: {error}"),
    }
    answer
}

fn exchange(address: &str, request: &[u8]) -> Option<Answer> {
    let mut socket = connect(address);
    // A server that refuses may close before it has read all.
    let _ = socket.write_all(request);
    Answer::read(&rest(&mut socket))
}

#[test]
fn heads_are_short() {
    let world = World::start();
    let address = address(&world);
    let head = |headers: &str| format!("GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n");
    let many = |count: usize| (0..count).map(|index| format!("x-{index}: a\r\n")).collect::<String>();
    let long = |bytes: usize| format!("x-long: {}\r\n", "a".repeat(bytes));
    for (what, headers, expected) in [
        ("as many headers as may be", many(REQUEST_HEADERS_MAX - 2), 200),
        ("one more", many(REQUEST_HEADERS_MAX - 1), 431),
        ("thousands", many(3_000), 431),
        ("a long header", long(REQUEST_HEAD_BYTES_MAX - 100), 200),
        ("a longer one", long(REQUEST_HEAD_BYTES_MAX), 431),
    ] {
        assert_eq!(exchange(&address, head(&headers).as_bytes()).unwrap().status, expected, "{what}");
    }
    // A head that never ends is not waited for: the answer comes although the head is not whole.
    let endless = format!("GET /healthz HTTP/1.1\r\nx-endless: {}", "a".repeat(1 << 20));
    assert!(exchange(&address, endless.as_bytes()).is_none_or(|answer| answer.status == 431));
    let target =
        format!("GET /{} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", "a".repeat(REQUEST_HEAD_BYTES_MAX));
    assert_eq!(exchange(&address, target.as_bytes()).unwrap().status, 431);
    assert_eq!(exchange(&address, GET_HEALTH).unwrap().status, 200);
}

#[test]
fn the_slow_are_cut() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let address = address(&world);
    let (address, key) = (address.as_str(), acme.key());
    let slow_head = move || {
        let mut socket = connect(address);
        socket.write_all(b"GET /healthz HTTP/1.1\r\nx-slow: ").unwrap();
        let mut dripping = socket.try_clone().unwrap();
        // A byte a second, for as long as somebody takes it.
        let drip = thread::spawn(move || {
            while dripping.write_all(b"a").is_ok() {
                thread::sleep(Duration::from_secs(1));
            }
        });
        let answer = rest(&mut socket);
        drip.join().unwrap();
        assert!(answer.is_empty(), "{:?}", String::from_utf8_lossy(&answer));
    };
    let silent = move || assert!(rest(&mut connect(address)).is_empty());
    let idle = move || {
        let mut socket = connect(address);
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&rest(&mut socket)).unwrap().status, 200, "and no more after it");
    };
    let slow_body = move || {
        let head = format!(
            "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-length: 1000\r\n\r\n{{"
        );
        let answer = exchange(address, head.as_bytes()).unwrap();
        assert_eq!((answer.status, answer.error()["code"].clone()), (408, json!("request_timeout")), "{answer:?}");
    };
    // Somebody without a key is told so before anything of a body is awaited.
    let nobody = b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n{";
    assert_eq!(exchange(address, nobody).unwrap().status, 401);
    thread::scope(|scope| {
        scope.spawn(slow_head);
        scope.spawn(silent);
        scope.spawn(idle);
        scope.spawn(slow_body);
    });
    assert_eq!(exchange(address, GET_HEALTH).unwrap().status, 200);
}

/// Both ends of every connection are files, ours here.
fn hold_many_files() {
    let handles = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: handles.maximum, ..handles }).unwrap();
}

#[test]
fn who_only_holds_a_place_keeps_nobody_out() {
    hold_many_files();
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let address = address(&world);
    let begin = || {
        let mut socket = connect(&address);
        socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-half: ").unwrap();
        socket
    };
    let mut held: Vec<TcpStream> = (0..HALF_HEADS).map(|_| begin()).collect();
    for _ in 0..3 {
        let mut asking = connect(&address);
        asking.write_all(GET_HEALTH).unwrap();
        // Long before any of those heads is given up.
        asking.set_read_timeout(Some(PROBE_PATIENCE)).unwrap();
        assert_eq!(Answer::read(&rest(&mut asking)).unwrap().status, 200);
    }
    thread::sleep(WAIT_MIN);
    for _ in 0..10 {
        assert_eq!(acme.get("/v1/models").status, 200, "and so is who has work to do");
    }
    // Those who came last still have their places.
    let last = held.last_mut().unwrap();
    last.write_all(b"a\r\nconnection: close\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&rest(last)).unwrap().status, 200);
}

#[test]
fn a_server_whose_places_are_all_at_work_says_so() {
    hold_many_files();
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let address = address(&world);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: 100\r\n\r\n{{",
        acme.key()
    );
    // At work as long as their bodies are awaited.
    let held: Vec<TcpStream> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let mut socket = connect(&address);
            socket.write_all(head.as_bytes()).unwrap();
            socket
        })
        .collect();
    thread::sleep(WAIT_MIN);
    for _ in 0..3 {
        assert_eq!(exchange(&address, GET_HEALTH).unwrap().status, 200, "the server's health can be asked for");
        let full = exchange(&address, b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        assert_eq!((full.status, full.error()["code"].clone()), (503, json!("overloaded")), "{full:?}");
        assert!(full.header("retry-after").is_some(), "{full:?}");
    }
    drop(held);
    let started = Instant::now();
    while acme.get("/v1/models").status != 200 {
        assert!(started.elapsed() < CUT_PATIENCE, "there is room again");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn no_cache_keeps_an_answer_and_no_browser_makes_a_page_of_it() {
    let world = World::start();
    let acme = world.tenant("acme", "shared");
    let ask = json!({"model": "atelier", "prompt": "a", "max_tokens": 1, "stream": true});
    let answers = [
        (200, world.anon().get("/healthz")),
        (200, world.anon().get("/metrics")),
        (200, world.anon().get("/v1/openapi.json")),
        (200, acme.get("/v1/models")),
        (200, acme.post("/v1/completions", &ask)),
        (400, acme.post("/v1/completions", &json!({}))),
        (401, world.anon().get("/v1/models")),
        (404, acme.get("/nowhere")),
        (405, acme.delete("/v1/models")),
    ];
    for (status, answer) in answers {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
    }
}
