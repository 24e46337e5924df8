//! The root key as whoever runs the server meets it, and data that somebody changed as tenants meet it.

use std::fs;

use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

use crate::support::{Archive, Command, User, World, runtime};

/// 32 bytes in hexadecimal.
const OWN_KEY: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const CODE: &[u8] = b"def secret_of_acme(x):\n    return x + 1\n";

fn give(user: &User) -> Value {
    user.upload("/v1/sources?name=secret-name", &Archive::new().file("a.py", CODE).gzip()).ok()
}

/// Tries to start a server on a folder where none runs, with these further arguments.
fn serve(world: &World, variables: &[(&str, &str)], arguments: &[&str]) -> Command {
    let all = [&["serve", "--listen", "127.0.0.1:0", "--threads", "1"], arguments].concat();
    world.cli_with(variables, &all)
}

#[track_caller]
fn check_root_key(world: &World, arguments: &[&str], ok: bool, words: &str) {
    let doctor = world.cli(&[&["doctor"], arguments].concat()).any_object();
    let checks = doctor["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["check"] == "root key").unwrap();
    assert_eq!(check["ok"], ok, "{check}");
    assert!(check["says"].as_str().unwrap().contains(words), "{check}");
}

#[test]
fn a_root_key_is_made_asked_for_and_changed() {
    let mut world = World::start();
    let acme = world.tenant("acme", "tuned");
    let source = give(&acme);
    let file = world.data().join("root-key");
    check_root_key(&world, &[], true, "keep a copy");
    // Not under a server that runs.
    assert!(world.cli(&["root-key", "rotate"]).refusal().contains("in use by another server"));
    world.stop();

    // Away, another, none: each is said, and no new one is made.
    let first = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    assert!(serve(&world, &[], &[]).refusal().contains("without it the data cannot be read"));
    check_root_key(&world, &[], false, "root key that is not there");
    assert!(!file.exists());
    fs::write(&file, OWN_KEY).unwrap();
    assert!(serve(&world, &[], &[]).refusal().contains("is not the one"));
    check_root_key(&world, &[], false, "is not the one");
    assert!(world.cli(&["root-key", "rotate"]).refusal().contains("is not the one"));
    fs::write(&file, "nonsense").unwrap();
    assert!(serve(&world, &[], &[]).refusal().contains("32 bytes in base64 or hexadecimal"));
    assert!(serve(&world, &[("ATELIER_ROOT_KEY", "nonsense")], &[]).refusal().contains("ATELIER_ROOT_KEY"));
    let both = serve(&world, &[("ATELIER_ROOT_KEY", OWN_KEY)], &["--root-key", file.to_str().unwrap()]);
    assert!(both.refusal().contains("say one of them"));
    fs::write(&file, &first).unwrap();

    // Changed in its place.
    let rotated = world.cli(&["root-key", "rotate"]).object();
    assert_eq!(rotated["root_key"], file.to_str().unwrap());
    assert_ne!(fs::read(&file).unwrap(), first);
    world.serve();
    assert_eq!(acme.get("/v1/sources").ok()["data"], json!([source]));
    world.stop();

    // Changed to one that the operator keeps elsewhere, with all data sealed anew.
    let next = world.home().join("next-key");
    fs::write(&next, OWN_KEY).unwrap();
    let next = next.to_str().unwrap().to_owned();
    world.cli(&["root-key", "rotate", "--next", &next, "--data-keys"]).object();
    assert!(serve(&world, &[], &[]).refusal().contains("is not the one"));
    let nowhere = world.cli_with(&[("ATELIER_ROOT_KEY", OWN_KEY)], &["root-key", "rotate"]);
    assert!(nowhere.refusal().contains("--next"), "{nowhere:?}");
    fs::remove_file(&file).unwrap();
    world.set_arguments(&["--root-key", &next]);
    world.serve();
    assert_eq!(acme.get("/v1/sources").ok()["data"], json!([source]));
    check_root_key(&world, &["--root-key", &next], false, "chmod 600");
}

#[test]
fn data_that_somebody_changed_is_an_error_that_says_nothing() {
    let world = World::start();
    if world.is_on_postgres() {
        return;
    }
    let acme = world.tenant("acme", "tuned");
    let source = give(&acme);
    let path = format!("/v1/sources/{}", source["id"].as_str().unwrap());
    assert_eq!(acme.get("/v1/sources").status, 200);
    let file = fs::read_dir(world.data().join("tenants")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|ending| ending == "db")).unwrap();
    runtime().block_on(async {
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        sqlx::raw_sql("UPDATE sources SET name = 'planted'").execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
    for path in ["/v1/sources", path.as_str()] {
        let answer = acme.get(path);
        assert_eq!((answer.status, answer.error()["code"].clone()), (500, json!("internal_error")), "{answer:?}");
        for inside in ["planted", "sources.name", "does not open", "seal"] {
            assert!(!format!("{answer:?}").contains(inside), "{answer:?}");
        }
    }
    assert!(world.log().contains("does not open"), "the operator can find out: {}", world.log());
    assert_eq!(world.anon().get("/healthz").status, 200);
}
