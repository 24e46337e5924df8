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
    world.cli(&["user", "remove", "--tenant", "acme", "Jo@Example.com"]).object();
    let gone = world.cli(&["user", "remove", "--tenant", "acme", "jo@example.com"]);
    assert!(gone.refusal().contains("There is no user `jo@example.com`. `atelier user list`"), "{gone:?}");
    let last = people["data"][1]["id"].as_str().unwrap();
    assert!(world.cli(&["user", "remove", "--tenant", "acme", last]).refusal().contains("last owner"));
    world.cli(&["project", "archive", "--tenant", "acme", web]).object();
    let projects = world.cli(&["project", "list", "--tenant", "acme"]).object();
    assert_eq!(fields(&projects, "status"), ["active", "archived"]);

    // By name, of those that can still be archived; by id where several are called so.
    let archive = |which: &str| world.cli(&["project", "archive", "--tenant", "acme", which]);
    assert!(archive("web").refusal().contains("There is no project `web`"));
    let ids = ["Site", "Site"].map(|name| {
        let made = world.cli(&["project", "create", "--tenant", "acme", name]).object();
        made["id"].as_str().unwrap().to_owned()
    });
    let several = archive("site");
    assert!(ids.iter().all(|id| several.refusal().contains(id.as_str())), "{several:?}");
    archive(&ids[0]).object();
    assert_eq!(archive("site").object()["id"], ids[1].as_str());
    assert!(archive("proj_/../../keys").refusal().contains("There is no project"), "it is no part of a path");
    world.cli(&["invite", "create", "--tenant", "acme", "al@example.com"]).object();
    assert_eq!(world.cli(&["invite", "delete", "--tenant", "acme", "al@example.com"]).object()["deleted"], json!(true));
}

#[test]
fn whoever_is_invited_is_told_where() {
    let world = World::start_with(&["--workers", "0"], &[]);
    world.tenant("acme", "shared");
    let data = world.data();
    let say = |arguments: &[&str]| {
        let arguments = [&["--data", data.to_str().unwrap()], arguments, &["--tenant", "acme"]].concat();
        let said = Command::run_with(&[], &arguments);
        assert!(said.succeeded, "{said:?}");
        said.stdout
    };
    assert!(say(&["invite", "list"]).contains("There is no invite yet. Next: atelier invite create"));
    let invited = say(&["invite", "create", "jo@example.com"]);
    let line = format!("ATELIER_URL={} ATELIER_KEY=SECRET atelier invite accept", world.url());
    assert!(invited.contains(&line), "{invited}");
    assert!(say(&["runs"]).contains("There are no runs yet"));
    assert!(say(&["versions"]).contains("the base alone is served"));
    assert!(say(&["usage"]).contains("Nothing was used"));
    let made = say(&["key", "create", "--days", "3"]);
    assert!(made.contains("Key (shown only now): atl_t_"), "{made}");
    let until = say(&["key", "list"]);
    assert!(until.contains("  until 20"), "{until}");
}
