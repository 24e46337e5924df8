//! Projects, people and invites by the command line.

use serde_json::{Value, json};

use crate::support::{Command, World};

fn fields<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list["data"].as_array().unwrap().iter().map(|item| item[field].as_str().unwrap()).collect()
}

#[test]
fn commands_invite_people_and_keep_projects() {
    let world = World::start_with(&["--workers", "0"], &[]);
    world.tenant("acme", "shared");
    let made = world.cli(&["project", "create", "--tenant", "acme", "web"]).object();
    let web = made["id"].as_str().unwrap();
    let invite = world.cli(&["invite", "create", "--tenant", "acme", "jo@example.com", "--project", web]).object();
    let secret = invite["secret"].as_str().unwrap();
    assert_eq!((&invite["role"], &invite["projects"][0]["id"]), (&json!("reader"), &json!(web)));
    assert_eq!(fields(&world.cli(&["invite", "list", "--tenant", "acme"]).object(), "status"), ["pending"]);
    let boss = world.cli(&["invite", "create", "--tenant", "acme", "boss@example.com", "--role", "owner"]).object();

    // Whoever is invited needs to say nothing but the secret.
    let url = world.url();
    let accept = |secret: &str, name: &str| {
        Command::run_with(
            &[("ATELIER_URL", url.as_str()), ("ATELIER_KEY", secret)],
            &["--json", "invite", "accept", name],
        )
    };
    let joined = accept(secret, "Jo Smith").object();
    assert_eq!(world.user(joined["key"]["value"].as_str()).get("/v1/models").status, 200);
    assert!(accept(secret, "Jo Smith").refusal().contains("key"), "once");
    accept(boss["secret"].as_str().unwrap(), "Boss").object();
    let people = world.cli(&["user", "list", "--tenant", "acme"]).object();
    assert_eq!(fields(&people, "email"), ["jo@example.com", "boss@example.com"]);
    let jo = people["data"][0]["id"].as_str().unwrap();
    assert_eq!(world.cli(&["user", "role", "--tenant", "acme", jo, "owner"]).object()["role"], "owner");
    world.cli(&["user", "remove", "--tenant", "acme", jo]).object();
    let last = people["data"][1]["id"].as_str().unwrap();
    assert!(world.cli(&["user", "remove", "--tenant", "acme", last]).refusal().contains("last owner"));
    world.cli(&["project", "archive", "--tenant", "acme", web]).object();
    let projects = world.cli(&["project", "list", "--tenant", "acme"]).object();
    assert_eq!(fields(&projects, "status"), ["active", "archived"]);
}
