//! Databases that are lost, as an operator meets it: who is hit is told and named, nobody else notices, and nothing is
//! begun anew over what is left.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use crate::support::{Command, World};

fn databases(world: &World) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.data().join("tenants")).unwrap();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "db")).collect()
}

#[test]
fn who_lost_a_database_is_named_and_the_others_are_served() {
    let mut world = World::start();
    if world.is_on_postgres() {
        // There a tenant has no file; the store's tests remove schemas and databases.
        return;
    }
    let hit = world.tenant("hit", "tuned");
    let [lost] = databases(&world).try_into().unwrap();
    let spared = world.tenant("spared", "tuned");
    let id = world.operator().get("/v1/tenants/hit").ok()["id"].as_str().unwrap().to_owned();
    world.stop();
    let away = world.home().join("away.db");
    fs::rename(&lost, &away).unwrap();
    world.serve();
    let refused = hit.get("/v1/runs");
    assert_eq!((refused.status, refused.error()["code"].clone()), (503, json!("overloaded")), "{refused:?}");
    assert!(refused.error()["message"].as_str().unwrap().contains("backup"), "{refused:?}");
    let ask = json!({"model": "atelier", "prompt": "a", "max_tokens": 1});
    assert_eq!(spared.post("/v1/completions", &ask).status, 200);
    assert_eq!(spared.get("/v1/runs").status, 200);
    assert!(world.log().contains("a tenant is not served") && world.log().contains(&id), "{}", world.log());
    assert!(!lost.exists(), "nothing is made in its place");
    let doctor = world.cli(&["doctor"]);
    let said = doctor.any_object().to_string();
    let name = lost.file_name().unwrap().to_str().unwrap();
    assert!(!doctor.succeeded && said.contains(name) && said.contains("backup"), "{doctor:?}");
    // Put back, it is served, without a restart.
    fs::rename(&away, &lost).unwrap();
    assert_eq!(hit.get("/v1/runs").status, 200);
    world.stop();

    let control = world.data().join("control.db");
    fs::rename(&control, &away).unwrap();
    let data = world.data();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--threads", "1", "--data", data.to_str().unwrap()];
    let refused = Command::run(&arguments);
    let said = refused.refusal();
    assert!(said.contains("control.db") && said.contains("missing") && said.contains("backup"), "{said}");
    assert!(!control.exists(), "nothing is made in its place");
    fs::rename(&away, &control).unwrap();
    world.serve();
    assert_eq!(hit.post("/v1/completions", &ask).status, 200);
}
