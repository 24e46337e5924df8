//! A whole tenant as one archive: what it gave, what was made from it, what it used and what was done.
//!
//! The archive is written while it is read, so that memory holds one blob at a time. Its last entry is the manifest,
//! which names every file with its digest: an archive without one was cut short. Whoever may see each of the parts may
//! have them all at once; while the archive is on its way its key is looked at again and again.

mod turns;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use atelier_access::{Caller, Granted, right};
use atelier_domain::limits::{
    AUDIT_PAGE_ROWS_MAX, EXPORT_CHUNK_BYTES, EXPORT_CHUNK_TIME_MAX, EXPORT_CHUNKS_MAX, EXPORT_ROWS_PER_FILE,
    PAGE_ROWS_MAX, STREAM_RECHECK_INTERVAL,
};
use atelier_domain::{Digest, TenantId};
use atelier_store::{AuditQuery, AuditRecord, ChainKind, RunEvent, RunPage, RunRecord, StoreError, VersionRecord};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;

pub(crate) use turns::Exports;

/// The layout of the archive, for whoever reads one later.
const FORMAT: &str = "atelier-export-1";
const MANIFEST: &str = "manifest.json";

/// An archive on its way: tar, gzipped.
#[derive(Debug)]
pub struct Export {
    chunks: mpsc::Receiver<Result<Bytes, PlatformError>>,
}

impl Export {
    /// The next bytes of it; none after the last. After an error there is no more, and what came is no archive.
    pub async fn next(&mut self) -> Option<Result<Bytes, PlatformError>> {
        self.chunks.recv().await
    }
}

impl Platform {
    /// All that the caller's tenant has, as one archive.
    ///
    /// # Errors
    /// When the caller may not see each of its parts; when as many exports are on their way as may be.
    pub async fn export_tenant(&self, caller: &Caller) -> Result<Export, PlatformError> {
        self.check_open()?;
        let tenant = tenant_of(caller)?;
        let rights = Rights::of(caller, tenant)?;
        let turn = self.exports().begin(tenant)?;
        self.store().record_tenant_export(&rights.audit).await?;
        let (sender, chunks) = mpsc::channel(EXPORT_CHUNKS_MAX);
        let line = Line { platform: self.clone(), caller: caller.clone(), tenant, sender, runtime: Handle::current() };
        self.tasks().spawn_blocking(move || {
            let _turn = turn;
            let (failed, runtime) = (line.sender.clone(), line.runtime.clone());
            if let Err(error) = write_archive(line, &rights) {
                // Whoever is still there is told; who has gone has no need of it, and nobody waits for the slow.
                runtime.spawn(async move { failed.send(Err(error)).await });
            }
        });
        Ok(Export { chunks })
    }
}

/// The proofs that the caller may see each part.
struct Rights {
    tenant: Granted<right::ReadTenant>,
    sources: Granted<right::ReadSources>,
    runs: Granted<right::ReadRuns>,
    versions: Granted<right::ReadVersions>,
    usage: Granted<right::ReadUsage>,
    audit: Granted<right::ReadAudit>,
}

impl Rights {
    fn of(caller: &Caller, tenant: TenantId) -> Result<Self, PlatformError> {
        Ok(Self {
            sources: caller.grant(right::ReadSources { tenant })?,
            tenant: caller.grant(right::ReadTenant { tenant })?,
            runs: caller.grant(right::ReadRuns { tenant })?,
            versions: caller.grant(right::ReadVersions { tenant })?,
            usage: caller.grant(right::ReadUsage { tenant })?,
            audit: caller.grant(right::ReadAudit { tenant })?,
        })
    }
}

/// Where bytes go on their way out, and who may still have them.
struct Line {
    platform: Platform,
    caller: Caller,
    tenant: TenantId,
    sender: mpsc::Sender<Result<Bytes, PlatformError>>,
    runtime: Handle,
}

impl Line {
    fn wait<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, PlatformError> {
        Ok(self.runtime.block_on(work)?)
    }

    /// Sends a chunk when there is room; meanwhile, and before, looks whether the caller may still have it.
    fn send(&self, chunk: Bytes) -> Result<(), PlatformError> {
        self.runtime.block_on(async {
            room(&self.sender, EXPORT_CHUNK_TIME_MAX, async || self.look().await).await?.send(Ok(chunk));
            Ok(())
        })
    }

    async fn look(&self) -> Result<(), PlatformError> {
        self.platform.check_open()?;
        let caller = self.platform.renew(&self.caller).await.map_err(|_| PlatformError::KeyEnded)?;
        Rights::of(&caller, self.tenant).map(|_| ()).map_err(|_| PlatformError::KeyEnded)
    }
}

/// Waits until the client has taken enough; not for ever.
async fn room<T>(
    sender: &mpsc::Sender<T>,
    within: Duration,
    look: impl AsyncFn() -> Result<(), PlatformError>,
) -> Result<mpsc::Permit<'_, T>, PlatformError> {
    let taken = async {
        loop {
            tokio::select! {
                permit = sender.reserve() => return permit.map_err(|_| PlatformError::closing()),
                () = tokio::time::sleep(STREAM_RECHECK_INTERVAL) => look().await?,
            }
        }
    };
    tokio::time::timeout(within, taken).await.unwrap_or_else(|_| Err(too_slow()))
}

fn too_slow() -> PlatformError {
    PlatformError::Overloaded {
        message: "The export was taken too slowly, so that others could not have theirs. Try again on a faster line.",
        retry_after_ms: 0,
    }
}

/// What the archive is written into.
struct Chunks {
    line: Arc<Line>,
    held: Vec<u8>,
    has_ended: bool,
    looked: tokio::time::Instant,
    /// Why it ended, which no [`std::io::Error`] could carry.
    failed: Arc<parking_lot::Mutex<Option<PlatformError>>>,
}

impl Chunks {
    fn pass_on(&mut self) -> std::io::Result<()> {
        // Whoever writes the archive closes it when it is dropped: nothing goes out any more.
        if self.has_ended {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let line = Arc::clone(&self.line);
        let looked = if self.looked.elapsed() < STREAM_RECHECK_INTERVAL {
            Ok(())
        } else {
            self.looked = tokio::time::Instant::now();
            line.runtime.block_on(line.look())
        };
        let chunk = Bytes::from(std::mem::replace(&mut self.held, Vec::with_capacity(EXPORT_CHUNK_BYTES)));
        looked.and_then(|()| line.send(chunk)).map_err(|error| {
            self.has_ended = true;
            self.failed.lock().get_or_insert(error);
            std::io::ErrorKind::BrokenPipe.into()
        })
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(EXPORT_CHUNK_BYTES - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        if self.held.len() == EXPORT_CHUNK_BYTES {
            self.pass_on()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The archive as far as it is written.
struct Archive {
    line: Arc<Line>,
    tar: tar::Builder<GzEncoder<Chunks>>,
    failed: Arc<parking_lot::Mutex<Option<PlatformError>>>,
    files: Vec<Value>,
    /// What should be there and cannot be read.
    missing: Vec<Value>,
}

impl Archive {
    fn begin(line: Line) -> Self {
        let line = Arc::new(line);
        let failed = Arc::default();
        let chunks = Chunks {
            line: Arc::clone(&line),
            held: Vec::with_capacity(EXPORT_CHUNK_BYTES),
            has_ended: false,
            looked: tokio::time::Instant::now(),
            failed: Arc::clone(&failed),
        };
        let tar = tar::Builder::new(GzEncoder::new(chunks, Compression::fast()));
        Self { line, tar, failed, files: Vec::new(), missing: Vec::new() }
    }

    fn add(&mut self, path: &str, content: &[u8]) -> Result<(), PlatformError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        let added = self.tar.append_data(&mut header, path, content);
        self.written(added)?;
        let digest = Digest::of(content);
        self.files.push(json!({"path": path, "bytes": content.len(), "blake3": digest.to_string()}));
        Ok(())
    }

    fn add_json(&mut self, path: &str, content: &Value) -> Result<(), PlatformError> {
        self.add(path, format!("{content:#}\n").as_bytes())
    }

    /// A blob, unless it is gone or damaged: the rest is worth having without it.
    fn add_blob<T>(
        &mut self,
        path: &str,
        read: Result<T, PlatformError>,
        add: impl FnOnce(&mut Self, T) -> Result<(), PlatformError>,
    ) -> Result<(), PlatformError> {
        let why = match read {
            Ok(blob) => return add(self, blob),
            Err(PlatformError::NotFound { .. }) => "it is not there",
            Err(PlatformError::Store(StoreError::DoesNotOpen { .. } | StoreError::Corrupt { .. })) => "it is damaged",
            Err(error) => return Err(error),
        };
        self.missing.push(json!({"path": path, "why": why}));
        Ok(())
    }

    /// What ended the writing, in the words of whoever ended it.
    fn written<T>(&self, done: std::io::Result<T>) -> Result<T, PlatformError> {
        done.map_err(|source| {
            let known = self.failed.lock().take();
            known.unwrap_or(PlatformError::Stored { what: "archive", source: source.into() })
        })
    }

    fn end(mut self, manifest: Value) -> Result<(), PlatformError> {
        self.add_json(MANIFEST, &manifest)?;
        let gzip = self.tar.into_inner();
        let failed = Arc::clone(&self.failed);
        let ended = gzip.and_then(GzEncoder::finish).and_then(|mut chunks| chunks.pass_on());
        ended.map_err(|source| {
            let known = failed.lock().take();
            known.unwrap_or(PlatformError::Stored { what: "archive", source: source.into() })
        })
    }
}

/// Lines of JSON, in files of so many rows.
struct Lines<'a> {
    folder: &'a str,
    text: String,
    rows: usize,
    files: usize,
    rows_in_all: usize,
}

impl<'a> Lines<'a> {
    fn new(folder: &'a str) -> Self {
        Self { folder, text: String::new(), rows: 0, files: 0, rows_in_all: 0 }
    }

    fn add(&mut self, archive: &mut Archive, row: &Value) -> Result<(), PlatformError> {
        self.text.push_str(&row.to_string());
        self.text.push('\n');
        self.rows += 1;
        self.rows_in_all += 1;
        if self.rows < EXPORT_ROWS_PER_FILE { Ok(()) } else { self.close_file(archive) }
    }

    fn close_file(&mut self, archive: &mut Archive) -> Result<(), PlatformError> {
        if self.rows == 0 {
            return Ok(());
        }
        self.files += 1;
        self.rows = 0;
        let text = std::mem::take(&mut self.text);
        archive.add(&format!("{}/{:06}.jsonl", self.folder, self.files), text.as_bytes())
    }

    /// How many rows there were.
    fn end(mut self, archive: &mut Archive) -> Result<usize, PlatformError> {
        self.close_file(archive)?;
        Ok(self.rows_in_all)
    }
}

fn write_archive(line: Line, rights: &Rights) -> Result<(), PlatformError> {
    let mut archive = Archive::begin(line);
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let tenant = line.wait(store.tenant(&rights.tenant))?;
    archive.add_json(
        "organization.json",
        &json!({
            "id": tenant.id.to_string(),
            "name": tenant.name.to_string(),
            "plan": tenant.plan.to_string(),
            "created_at": tenant.created_at.seconds(),
        }),
    )?;
    let sources = write_sources(&mut archive, rights)?;
    let (runs, events) = write_runs(&mut archive, rights)?;
    let versions = write_versions(&mut archive, rights)?;
    let usage = write_usage(&mut archive, rights)?;
    // Checked first: all that the check saw is then read, and what is done meanwhile besides.
    let chains = line.wait(store.verify_audit(&rights.audit))?;
    let audit = write_audit(&mut archive, rights)?;
    let chains: Vec<Value> = chains
        .iter()
        .map(|chain| {
            let (name, whole) = (chain_name(chain.kind), chain.broken.is_none());
            json!({"chain": name, "events": chain.events, "hash": chain.hash.to_string(), "whole": whole})
        })
        .collect();
    let manifest = json!({
        "format": FORMAT,
        "made_by": concat!("atelier ", env!("CARGO_PKG_VERSION")),
        "made_at": store.now().seconds(),
        "organization": tenant.id.to_string(),
        "counts": {
            "sources": sources, "runs": runs, "run_events": events, "versions": versions, "usage_rows": usage,
            "audit_events": audit,
        },
        "audit_chains": chains,
        "missing": archive.missing,
        "files": archive.files,
    });
    archive.end(manifest)
}

fn write_sources(archive: &mut Archive, rights: &Rights) -> Result<usize, PlatformError> {
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let sources = line.wait(store.sources(&rights.sources))?;
    for source in &sources {
        let folder = format!("sources/{}", source.id);
        let about = json!({
            "id": source.id.to_string(),
            "name": source.name,
            "origin": source.origin.as_str(),
            "bytes": source.bytes,
            "blake3": source.digest.to_string(),
            "created_by": source.created_by,
            "created_at": source.created_at.seconds(),
        });
        archive.add_json(&format!("{folder}/source.json"), &about)?;
        let path = format!("{folder}/archive.tar.gz");
        let read = line.wait(store.source_archive(&rights.sources, source.id));
        archive.add_blob(&path, read, |archive, content: Bytes| archive.add(&path, &content))?;
    }
    Ok(sources.len())
}

/// How many runs, and how many events of theirs.
fn write_runs(archive: &mut Archive, rights: &Rights) -> Result<(usize, usize), PlatformError> {
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let (mut runs, mut events) = (Lines::new("runs"), Lines::new("run_events"));
    let mut page = RunPage { limit: PAGE_ROWS_MAX, after: None };
    loop {
        let found = line.wait(store.runs(&rights.runs, page))?;
        for run in &found {
            runs.add(archive, &run_row(run))?;
            let mut after = 0;
            loop {
                let told = line.wait(store.run_events(&rights.runs, run.id, after, PAGE_ROWS_MAX))?;
                for event in &told {
                    events.add(archive, &event_row(run, event))?;
                    after = event.sequence;
                }
                if told.len() < PAGE_ROWS_MAX {
                    break;
                }
            }
        }
        page.after = found.last().map(|run| run.id);
        if found.len() < PAGE_ROWS_MAX {
            return Ok((runs.end(archive)?, events.end(archive)?));
        }
    }
}

fn write_versions(archive: &mut Archive, rights: &Rights) -> Result<usize, PlatformError> {
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let versions = line.wait(store.versions(&rights.versions))?;
    let aliases = line.wait(store.aliases(&rights.versions))?;
    let number = |alias: Option<atelier_domain::VersionNumber>| alias.map(|version| version.get());
    let pointers = json!({"live": number(aliases.live), "previous": number(aliases.previous)});
    archive.add_json("versions/aliases.json", &pointers)?;
    for version in &versions {
        let folder = format!("versions/{}", version.number.get());
        archive.add_json(&format!("{folder}/version.json"), &version_row(version))?;
        let read = line.runtime.block_on(line.platform.adapters().files(line.tenant, version.digest));
        archive.add_blob(&format!("{folder}/adapter_model.safetensors"), read, |archive, files| {
            archive.add(&format!("{folder}/adapter_config.json"), &files.config)?;
            archive.add(&format!("{folder}/adapter_model.safetensors"), &files.weights)
        })?;
    }
    Ok(versions.len())
}

fn write_usage(archive: &mut Archive, rights: &Rights) -> Result<usize, PlatformError> {
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let mut lines = Lines::new("usage");
    let mut after = 0;
    loop {
        let found = line.wait(store.ledger_rows(&rights.usage, after))?;
        let Some(last) = found.last() else { return lines.end(archive) };
        after = last.sequence;
        for row in &found {
            lines.add(archive, &row.content)?;
        }
    }
}

/// Newest first.
fn write_audit(archive: &mut Archive, rights: &Rights) -> Result<usize, PlatformError> {
    let line = Arc::clone(&archive.line);
    let store = line.platform.store();
    let mut lines = Lines::new("audit");
    let mut query = AuditQuery { limit: AUDIT_PAGE_ROWS_MAX, ..AuditQuery::default() };
    loop {
        let page = line.wait(store.audit(&rights.audit, &query))?;
        for record in &page.records {
            lines.add(archive, &audit_row(record))?;
        }
        query.after = page.records.last().map(|record| record.id);
        if !page.has_more || query.after.is_none() {
            return lines.end(archive);
        }
    }
}

fn run_row(run: &RunRecord) -> Value {
    json!({
        "id": run.id.to_string(),
        "source": run.source.to_string(),
        "suffix": run.suffix.as_str(),
        "state": run.state.as_str(),
        "options": run.options,
        "version": run.version.map(|version| version.get()),
        "result": run.result,
        "error": run.error.as_ref().map(|error| json!({"code": error.code, "message": error.message})),
        "created_by": run.created_by,
        "created_at": run.created_at.seconds(),
        "started_at": run.started_at.map(|at| at.seconds()),
        "finished_at": run.finished_at.map(|at| at.seconds()),
    })
}

fn event_row(run: &RunRecord, event: &RunEvent) -> Value {
    let (run, at) = (run.id.to_string(), event.at.seconds());
    json!({"run": run, "sequence": event.sequence, "kind": event.kind, "body": event.body, "at": at})
}

fn version_row(version: &VersionRecord) -> Value {
    json!({
        "number": version.number.get(),
        "suffix": version.suffix.as_str(),
        "adapter": version.digest.to_string(),
        "base": version.base_digest.to_string(),
        "parent": version.parent.map(|parent| parent.get()),
        "run": version.run.to_string(),
        "source": version.source.to_string(),
        "manifest": version.manifest,
        "eval": version.eval,
        "created_at": version.created_at.seconds(),
    })
}

/// With all that the event's hash is over.
fn audit_row(record: &AuditRecord) -> Value {
    json!({
        "id": record.id.to_string(),
        "chain": chain_name(record.chain),
        "sequence": record.sequence,
        "at_micros": record.at.micros(),
        "actor": record.actor.text,
        "actor_key": record.actor.key.map(|key| key.to_string()),
        "project": record.project.map(|project| project.to_string()),
        "action": record.action,
        "subject": record.subject,
        "detail": record.detail,
        "hash": record.hash.map(|hash| hash.to_string()),
    })
}

fn chain_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Operator => "operator",
        ChainKind::Administration => "administration",
        ChainKind::Work => "work",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_takes_too_slowly_gives_the_place_back() {
        let (sender, mut chunks) = mpsc::channel(1);
        sender.send(0).await.unwrap();
        let error = room(&sender, Duration::from_millis(1), async || Ok(())).await.unwrap_err();
        assert!(matches!(error, PlatformError::Overloaded { .. }), "{error}");
        let error = room(&sender, Duration::MAX, async || Err(PlatformError::KeyEnded)).await.unwrap_err();
        assert!(matches!(error, PlatformError::KeyEnded), "whose key has ended waits no longer: {error}");

        let taken = tokio::spawn(async move { (chunks.recv().await, chunks.recv().await) });
        room(&sender, Duration::MAX, async || Ok(())).await.unwrap().send(1);
        assert_eq!(taken.await.unwrap(), (Some(0), Some(1)));
    }
}
