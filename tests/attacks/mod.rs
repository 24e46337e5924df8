//! The attack suite: what `docs/attack-suite.md` promises, case by case, against the real server.
//!
//! [`canary`] finds what is the victim's in any bytes; [`document`] reads the OpenAPI document; [`scene`] sets attacker
//! and victim on one server; [`generated`] attacks every operation. The others are the named cases.

mod canary;
mod document;
mod generated;
mod identity;
mod keys;
mod life;
mod matrix;
mod organization;
mod scene;
mod traffic;

use crate::support::World;
use scene::Scene;

#[test]
fn case_01_02_03_04_every_operation_hides_what_is_anothers() {
    let scene = Scene::set(World::start());
    let walls = match (scene.world.database(), scene.world.separation()) {
        (None, _) => "SQLite, a file for each tenant".to_owned(),
        (Some(_), separation) => format!("PostgreSQL, {}", separation.unwrap_or("pooled")),
    };
    generated::run(&scene).report(&scene, &walls);
}
