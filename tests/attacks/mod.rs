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
mod scene;
mod traffic;

use crate::support::World;
use scene::Scene;

#[test]
fn case_01_02_03_04_every_operation_hides_what_is_anothers() {
    let scene = Scene::set(World::start());
    let on_postgres = scene.world.database().is_some();
    let walls = if on_postgres { "PostgreSQL, pooled" } else { "SQLite, a file for each tenant" };
    generated::run(&scene).report(&scene, walls);
}
