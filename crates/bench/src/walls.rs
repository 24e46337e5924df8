//! `atelier-bench walls`: what the walls between tenants cost the gateway, without the model.
//!
//! One server for each wall, all started before anything is measured; then rounds in which each is loaded for the same
//! span, one after another and each round beginning with another, so that what the machine does meanwhile hits all
//! alike. Ratios are of one round, and their median is taken. A server from before the walls, `--before`, is asked the
//! same through the same public API.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::figures::{Figures, RecordArgs};
use crate::host::{HostArgs, Machine};
use crate::random_base::TINY;
use crate::server::{Server, Setup};
use crate::speed::gateway::{CONNECTIONS, flood, on_all_connections};
use crate::speed::{median, percentile};

/// Rounds of all walls, warm and cold.
const ROUNDS: usize = 9;
/// How long each is loaded in a round.
const SPAN: Duration = Duration::from_secs(3);
/// Tenants whose first request after a start is timed, each round anew.
const COLD_TENANTS: usize = 64;
/// What every request asks: one token of the tenant's own model, so that the tenant's place is looked at.
const PROMPT: &str = "def total(items):\n    return";

/// Arguments of `walls`.
#[derive(Args)]
pub struct WallsArgs {
    #[command(flatten)]
    host: HostArgs,
    /// Two short rounds and few tenants: to see that it works
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    record: RecordArgs,
    /// Folder for the model of next to no cost
    #[arg(long, default_value = "target/bench-models")]
    scratch: PathBuf,
    /// The server whose walls are measured; `atelier` beside this binary unless told
    #[arg(long)]
    server: Option<PathBuf>,
    /// Another server, such as one from before the walls: measured the same way, on SQLite, and what ratios compare with
    #[arg(long, value_name = "PATH")]
    before: Option<PathBuf>,
    /// Folder with the socket of a PostgreSQL server, as scripts/test-postgres.sh says; only SQLite without it
    #[arg(long, value_name = "DIR", requires = "postgres_programs")]
    postgres: Option<PathBuf>,
    /// Folder of its programs
    #[arg(long, value_name = "DIR")]
    postgres_programs: Option<PathBuf>,
}

/// One wall under measurement.
struct Arm {
    name: &'static str,
    server: Server,
    /// The request of the one tenant that is known.
    warm: Vec<u8>,
    /// Requests of tenants that are asked once after each start.
    cold: Vec<Vec<u8>>,
    warm_rounds: Vec<Round>,
    cold_rounds: Vec<Round>,
}

/// What one round gave.
struct Round {
    requests_per_second: f64,
    seconds: Vec<f64>,
}

/// Measures, prints a table, appends to the record.
pub fn run(args: &WallsArgs) -> Result<()> {
    let compute = args.host.compute()?;
    let mut figures = Figures::new(Machine::of(&compute));
    let base = TINY.write(&args.scratch, &args.host.base)?;
    let (rounds, span, tenants) =
        if args.quick { (2, SPAN / 10, COLD_TENANTS / 8) } else { (ROUNDS, SPAN, COLD_TENANTS) };
    let mut arms = start(args, &base, compute.threads(), tenants)?;
    for arm in &arms {
        flood(&arm.server.url, &arm.warm, span)?;
    }
    for round in 0..rounds {
        for turn in 0..arms.len() {
            let at = (round + turn) % arms.len();
            let measured = arms[at].load(span)?;
            arms[at].warm_rounds.push(measured);
        }
    }
    for round in 0..rounds {
        for turn in 0..arms.len() {
            let at = (round + turn) % arms.len();
            let measured = arms[at].load_cold()?;
            arms[at].cold_rounds.push(measured);
        }
    }
    report(&arms, span, &mut figures);
    figures.record(&args.record)?;
    writeln!(std::io::stdout(), "{}", figures.table().trim_end())?;
    Ok(())
}

/// Starts a server for each wall; the first is what the others are compared with.
fn start(args: &WallsArgs, base: &Path, threads: usize, tenants: usize) -> Result<Vec<Arm>> {
    let setup =
        |binary: PathBuf, database, separation| Setup { binary, base: base.to_owned(), threads, database, separation };
    let binary = Setup::binary(args.server.as_deref())?;
    let mut arms = Vec::new();
    if let Some(before) = &args.before {
        arms.push(Arm::start("before", setup(Setup::binary(Some(before.as_path()))?, None, None), tenants)?);
    }
    arms.push(Arm::start("sqlite", setup(binary.clone(), None, None), tenants)?);
    if let (Some(socket), Some(programs)) = (&args.postgres, &args.postgres_programs) {
        for separation in ["pooled", "schema", "database"] {
            let database = create_database(socket, programs, separation)?;
            arms.push(Arm::start(separation, setup(binary.clone(), Some(database), Some(separation)), tenants)?);
        }
    }
    Ok(arms)
}

/// A database of this run's own; its addresses for the application and the owner.
fn create_database(socket: &Path, programs: &Path, separation: &str) -> Result<[String; 2]> {
    let name = format!("walls_{separation}_{}", std::process::id());
    let made = Command::new(programs.join("createdb"))
        .arg("-h")
        .arg(socket)
        .args(["-U", "postgres", "-O", "atelier_owner", &name])
        .status()
        .with_context(|| format!("{} has no createdb", programs.display()))?;
    ensure!(made.success(), "createdb failed");
    Ok(["atelier_app", "atelier_owner"].map(|role| format!("postgres:///{name}?host={}&user={role}", socket.display())))
}

impl Arm {
    fn start(name: &'static str, setup: Setup, tenants: usize) -> Result<Self> {
        let server = setup.start().with_context(|| format!("the server of `{name}`"))?;
        let body = json!({"model": "atelier", "prompt": PROMPT, "max_tokens": 1, "temperature": 0}).to_string();
        let client = crate::speed::client::Client::connect(&server.url)?;
        let request = |tenant: String| -> Result<Vec<u8>> {
            let key = server.new_tenant_key(&tenant, "tuned")?;
            Ok(client.request("POST", "/v1/completions", Some(&key), &body))
        };
        let warm = request("warm".to_owned())?;
        let cold = (0..tenants).map(|number| request(format!("cold-{number}"))).collect::<Result<_>>()?;
        Ok(Self { name, warm, cold, server, warm_rounds: Vec::new(), cold_rounds: Vec::new() })
    }

    /// One tenant's requests over all connections, as fast as they are answered.
    fn load(&self, span: Duration) -> Result<Round> {
        let seconds = flood(&self.server.url, &self.warm, span)?;
        Ok(Round { requests_per_second: seconds.len() as f64 / span.as_secs_f64(), seconds })
    }

    /// The first request of each tenant after a start: neither its key nor its place is in anybody's memory.
    fn load_cold(&mut self) -> Result<Round> {
        self.server.restart()?;
        let (next, begin) = (Mutex::new(self.cold.iter()), Instant::now());
        let seconds = on_all_connections(&self.server.url, |client, _| {
            let mut seconds = Vec::new();
            loop {
                let Some(request) = next.lock().ok().and_then(|mut next| next.next()) else { return Ok(seconds) };
                let start = Instant::now();
                client.exchange(request)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
        })?;
        Ok(Round { requests_per_second: seconds.len() as f64 / begin.elapsed().as_secs_f64(), seconds })
    }
}

fn report(arms: &[Arm], span: Duration, figures: &mut Figures) {
    let Some(reference) = arms.first() else { return };
    for arm in arms {
        let model = format!("{} {}", TINY.name, arm.name);
        let what = format!("{CONNECTIONS} connections, {} rounds of {} s", arm.warm_rounds.len(), span.as_secs_f64());
        report_rounds(figures, &model, &what, "walls", &arm.warm_rounds, (reference.name, &reference.warm_rounds));
        let what = format!("{CONNECTIONS} connections, {} rounds of {} tenants", arm.cold_rounds.len(), arm.cold.len());
        report_rounds(figures, &model, &what, "walls.cold", &arm.cold_rounds, (reference.name, &reference.cold_rounds));
    }
}

fn report_rounds(
    figures: &mut Figures,
    model: &str,
    what: &str,
    kind: &str,
    rounds: &[Round],
    (reference, referred): (&str, &[Round]),
) {
    let rate = median(rounds.iter().map(|round| round.requests_per_second).collect());
    let mut seconds: Vec<f64> = rounds.iter().flat_map(|round| round.seconds.iter().copied()).collect();
    let ratios = rounds.iter().zip(referred).map(|(round, of)| round.requests_per_second / of.requests_per_second);
    let ratio = median(ratios.collect());
    let mut add =
        |name: &str, value: f64, what: &str| figures.add(model, "bf16", &format!("{kind}.{name}"), value, what);
    add("requests", rate, what);
    add("p99", 1e3 * percentile(&mut seconds, 0.99), what);
    add("ratio", ratio, &format!("{what}, of `{reference}`"));
}
