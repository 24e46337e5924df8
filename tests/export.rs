//! All of a tenant as one archive: whole, loadable, and of nobody else.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;

use atelier_domain::Digest;
use atelier_model::{Adapter, AdapterFiles, Compute, LoadOptions, Model, Tier, WeightFormat};
use serde_json::{Value, json};

use crate::support::{Style, User, World, archive_of, archive_with, quick, shipped_base};

/// The files of a tar.gz.
fn files_of(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut files = BTreeMap::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        assert!(files.insert(path, content).is_none(), "each path once");
    }
    files
}

/// Every byte of an archive, archives inside unpacked.
fn all_bytes(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut all = Vec::new();
    for (path, content) in files {
        all.extend_from_slice(path.as_bytes());
        all.extend_from_slice(content);
        if path.ends_with(".tar.gz") {
            all.extend(all_bytes(&files_of(content)));
        }
    }
    all
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn rows(files: &BTreeMap<String, Vec<u8>>, folder: &str) -> Vec<Value> {
    let files = files.iter().filter(|(path, _)| path.starts_with(folder));
    let lines = files.flat_map(|(_, content)| std::str::from_utf8(content).unwrap().lines());
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Puts a marker wherever a tenant may put text.
fn plant(user: &User, marker: &str) {
    let (path, content) = (format!("{marker}.py"), format!("def {}():\n    pass\n", marker.replace('-', "_")));
    let archive = archive_with(Style::Gated, 1, &[(&path, content.as_bytes())]);
    user.upload(&format!("/v1/sources?name={marker}-source"), &archive).ok();
    user.post("/v1/keys", &json!({"name": format!("{marker}-key"), "role": "reader"})).ok();
    user.complete(&json!({"model": "atelier-base", "prompt": marker, "max_tokens": 1}));
}

#[test]
fn an_export_is_whole_and_its_adapter_loads_and_nothing_of_others_is_in_it() {
    let world = World::start();
    let (acme, other) = (world.tenant("acme", "tuned"), world.tenant("other", "tuned"));
    let run = world.learn(&acme, &archive_of(Style::Gated, 14), quick());
    assert_eq!(run["status"], "live", "{run:#}");
    plant(&acme, "mine-4d1c");
    plant(&other, "theirs-92ab");
    let out = world.home().join("acme.tar.gz");
    let exported = world.cli(&["tenant", "export", "acme", "--out", out.to_str().unwrap()]).object();
    let archive = std::fs::read(&out).unwrap();
    assert_eq!(exported["bytes"], archive.len());
    let again = world.cli(&["tenant", "export", "acme", "--out", out.to_str().unwrap()]);
    assert!(again.refusal().contains("there already"));

    let files = files_of(&archive);
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    let listed = manifest["files"].as_array().unwrap();
    assert_eq!(listed.len(), files.len() - 1, "every file but the list itself");
    for file in listed {
        let content = &files[file["path"].as_str().unwrap()];
        assert_eq!((&file["bytes"], &file["blake3"]), (&json!(content.len()), &json!(Digest::of(content).to_string())));
    }
    assert_eq!(manifest["missing"], json!([]));
    let counts = &manifest["counts"];
    assert_eq!((&counts["sources"], &counts["versions"], &counts["runs"]), (&json!(2), &json!(1), &json!(1)));
    for (folder, count) in
        [("runs/", "runs"), ("run_events/", "run_events"), ("usage/", "usage_rows"), ("audit/", "audit_events")]
    {
        let rows = rows(&files, folder);
        assert!(!rows.is_empty() && json!(rows.len()) == counts[count], "{folder}: {counts}");
    }
    check_trail(&acme, &manifest, &rows(&files, "audit/"));

    // The adapter is the one that is served, and a model takes it.
    let part = |name: &str| files[&format!("versions/1/{name}")].clone();
    let adapter = AdapterFiles { config: part("adapter_config.json"), weights: part("adapter_model.safetensors") };
    let load = LoadOptions { format: WeightFormat::Bf16, with_backward: false };
    let base = Model::load(Arc::new(Compute::new(Tier::detect(), 1)), &shipped_base(), load).unwrap();
    Adapter::from_peft(&adapter, base.config(), base.digest()).unwrap();
    let served = files_of(&acme.get("/v1/versions/1/adapter").body);
    assert!(served["adapter_model.safetensors"] == adapter.weights);

    let bytes = all_bytes(&files);
    for own in ["mine-4d1c", "mine-4d1c-source"] {
        assert!(holds(&bytes, own), "{own}");
    }
    let others_id = world.operator().get("/v1/tenants/other").ok()["id"].as_str().unwrap().to_owned();
    for strange in ["theirs-92ab", others_id.as_str()] {
        assert!(!holds(&bytes, strange), "{strange}");
    }
    // Whoever says another organization gets nothing.
    assert_eq!(other.acting_for("acme").get("/v1/organization/export").status, 404);
    let reader = acme.post("/v1/keys", &json!({"role": "reader"})).ok()["value"].as_str().unwrap().to_owned();
    assert_eq!(world.user(Some(&reader)).get("/v1/organization/export").status, 403);
    assert_eq!(world.anon().get("/v1/organization/export").status, 401);
}

/// The trail in the archive is the one that the server checked: each chain whole, each place once, with the hash that the
/// check came to.
fn check_trail(user: &User, manifest: &Value, events: &[Value]) {
    let whose = |event: &&Value, chain: &Value| event["chain"] == chain["chain"];
    for chain in manifest["audit_chains"].as_array().unwrap() {
        assert_eq!(chain["whole"], true);
        let mut places: Vec<u64> = events
            .iter()
            .filter(|event| whose(event, chain))
            .map(|event| event["sequence"].as_u64().unwrap())
            .collect();
        places.sort_unstable();
        let checked = chain["events"].as_u64().unwrap();
        assert_eq!(places, (1..=checked.max(places.len() as u64)).collect::<Vec<_>>(), "{chain}");
        let last = events.iter().filter(|event| whose(event, chain)).find(|event| event["sequence"] == checked);
        assert_eq!(last.unwrap()["hash"], chain["hash"], "{chain}");
    }
    assert!(events.iter().any(|event| event["action"] == "export_tenant"), "the export itself is on record");
    let now = user.get("/v1/organization/audit_logs/verification").ok();
    assert_eq!(now["whole"], true, "{now}");
}
