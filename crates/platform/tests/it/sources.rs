//! Sources: what is taken, what is refused, and that a refusal leaves nothing behind.

use std::io::Write;

use atelier_domain::Plan;
use atelier_platform::{ErrorKind, PlatformError, pack_folder};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::support::{World, archive};

fn raw_entry(path: &str, kind: tar::EntryType, content: &[u8]) -> Bytes {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    if kind == tar::EntryType::Symlink {
        header.set_link_name("/etc/passwd").unwrap();
    }
    header.set_cksum();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(header.as_bytes()).unwrap();
    encoder.write_all(content).unwrap();
    encoder.write_all(&vec![0; content.len().next_multiple_of(512) - content.len() + 1_024]).unwrap();
    Bytes::from(encoder.finish().unwrap())
}

fn check(result: Result<impl std::fmt::Debug, PlatformError>, words: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidRequest { param: None, code: Some("invalid_source") }, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upload_leaves_nothing() {
    let world = World::new(0).await;
    let caller = world.tenant("acme", Plan::Tuned).await;
    let file = tar::EntryType::Regular;
    let whole = archive(&[("a.py".to_owned(), "x = 1\n".repeat(500))]);
    let cases: [(Bytes, &str); 8] = [
        (raw_entry("../evil.py", file, b"x = 1\n"), "'..'"),
        (raw_entry("/evil.py", file, b"x = 1\n"), "absolute"),
        (raw_entry("link.py", tar::EntryType::Symlink, b""), "link"),
        (raw_entry("a.py", file, b"\0\x01\x02"), "no text"),
        (raw_entry("a.py", file, b"caf\xe9"), "not UTF-8"),
        (archive(&[]), "empty"),
        (whole.slice(..whole.len() / 2), "tar.gz"),
        (Bytes::from_static(b"not an archive"), "tar.gz"),
    ];
    for (upload, words) in cases {
        check(world.platform.create_source_from_archive(&caller, "bad", upload).await, words);
    }
    assert!(world.platform.list_sources(&caller).await.unwrap().is_empty());

    let source = world.platform.create_source_from_archive(&caller, " good ", whole).await.unwrap();
    assert_eq!(source.name, "good");
    assert_eq!(world.platform.list_sources(&caller).await.unwrap().len(), 1);
    let stranger = world.tenant("globex", Plan::Tuned).await;
    let hidden = world.platform.get_source(&stranger, source.id).await.unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::NotFound { code: "not_found" });
    world.platform.delete_source(&caller, source.id).await.unwrap();
    assert!(world.platform.get_source(&caller, source.id).await.is_err());
    world.platform.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_servers_folder_is_the_operators_to_name() {
    let world = World::new(0).await;
    let caller = world.tenant("acme", Plan::Tuned).await;
    let acting = world.platform.acting_for(&world.operator, "acme").await.unwrap();
    let allowed = world.folder.path().join("roots/app");
    let outside = world.folder.path().join("elsewhere");
    for folder in [&allowed, &outside] {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("a.py"), "a = 1\n").unwrap();
    }
    check(world.platform.create_source_from_path(&caller, "app", &allowed).await, "does not allow");
    check(world.platform.create_source_from_path(&acting, "app", &outside).await, "does not allow");
    check(
        world.platform.create_source_from_path(&acting, "app", &allowed.join("../../elsewhere")).await,
        "does not allow",
    );
    world.platform.create_source_from_path(&acting, "app", &allowed).await.unwrap();
    assert_eq!(world.platform.list_sources(&caller).await.unwrap().len(), 1);

    // What the command line packs, the server takes.
    let packed = Bytes::from(pack_folder(&outside).unwrap());
    world.platform.create_source_from_archive(&caller, "elsewhere", packed).await.unwrap();
    assert!(pack_folder(&outside.join("a.py")).is_ok());
    assert!(pack_folder(&outside.join("nothing")).is_err());
    world.platform.shutdown().await;
}
