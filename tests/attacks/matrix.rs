//! The access matrix against the real server: every request, by every role that the document names.

use std::collections::BTreeSet;

use super::document::{Operation, Place, operations};
use super::scene::{Meaning, Party, Scene, is_needed, meaning};
use crate::support::{User, World};

/// Things that only learning makes: one tenant learns, for all operations about them.
const LEARNED: [&str; 2] = ["model", "version"];

/// Somebody with a role towards a tenant. A stranger is some other tenant's admin who names this one.
fn people(scene: &Scene, party: &Party) -> Vec<(&'static str, User)> {
    let operator = scene.world.operator();
    let mut people = vec![
        ("nobody", scene.world.anon()),
        ("stranger", scene.attacker.admin.acting_for(&party.name)),
        ("invited", party.admin.with_key(&party.invite("secret"))),
        ("admin", party.admin.clone()),
        ("operator", operator.clone()),
        ("operator acting", operator.acting_for(&party.name)),
    ];
    people.extend(party.others());
    people
}

fn names(operation: &Operation) -> Vec<&'static str> {
    let kinds = operation.parameters.iter().filter(|parameter| is_needed(operation, parameter));
    let named = kinds.filter_map(|parameter| match meaning(operation, parameter) {
        Meaning::Names(kind) => Some(kind),
        Meaning::Plain(_) => None,
    });
    named.collect()
}

#[test]
fn case_05_every_role_gets_what_the_access_matrix_says_and_no_more() {
    let scene = Scene::set(World::start());
    let mut tried = 0;
    let mut wrong = Vec::new();
    let mut roles = BTreeSet::new();
    for operation in &operations() {
        let learned = names(operation).iter().any(|kind| LEARNED.contains(kind));
        for place in 0..people(&scene, &scene.victim).len() {
            // A tenant of its own for each request: many of them change or end what the next one would need.
            let fresh = (!learned).then(|| Party::new(&scene.world, &format!("party-{}", tried), None));
            let party = fresh.as_ref().unwrap_or(&scene.victim);
            let (role, user) = people(&scene, party).swap_remove(place);
            let request = scene.request_with(operation, |parameter, kind| {
                // What is to be made must not be there yet.
                let new = parameter.place == Place::Body && kind == "tenant";
                is_needed(operation, parameter).then(|| if new { format!("made-{tried}") } else { party.thing(kind) })
            });
            let answer = request.send_as(&user, operation);
            let allowed = operation.roles.iter().any(|known| known == role || known == "anyone");
            let as_said = match (allowed, role) {
                // Whoever signs in may be anybody, and needs more than that.
                (true, _) if operation.is_open() => answer.status < 500 && answer.status != 401,
                // A run without anything to learn may have ended before it is cancelled, which only who may is told.
                (true, _) => (200..300).contains(&answer.status) || answer.status == 409,
                (false, "nobody") => answer.status == 401,
                (false, "stranger" | "invited") => answer.status == 404,
                (false, "operator" | "operator acting") => [400, 403, 404].contains(&answer.status),
                // Whose own tenant it is hears what its key lacks, which is no secret.
                (false, _) => answer.status == 403 && answer.error()["code"] == "insufficient_role",
            };
            if !as_said {
                wrong.push(format!("{} by {role}, allowed: {allowed}: {} {answer:?}", operation.id, request.target));
            }
            roles.insert(role);
            tried += 1;
        }
    }
    eprintln!("access matrix: {tried} requests by {} roles, {} not as the matrix says", roles.len(), wrong.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
    for named in operations().iter().flat_map(|operation| &operation.roles).filter(|role| *role != "anyone") {
        assert!(roles.contains(named.as_str()), "the matrix names '{named}', and nobody here has such a key");
    }
}
