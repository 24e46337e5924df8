//! The command line, as people see it in `--help`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::audit::AuditCommand;
use crate::commands::key::KeyCommand;

/// Where everything lives unless told otherwise.
const DEFAULT_DATA: &str = "./atelier-data";

/// One shared base model for code, one small adapter per tenant, behind an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(
    name = "atelier",
    version,
    after_help = "First steps:\n  atelier demo                                  see the whole line in a few minutes\n  atelier serve                                 start a server on 127.0.0.1:8080\n  atelier tenant create acme --plan tuned       make a tenant and its key\n  atelier learn --tenant acme ./code --wait     teach it that tenant's code\n\nAll commands but `serve`, `demo`, `root-key` and `openapi` talk to the running server. They find it through --data,\nor through ATELIER_URL and ATELIER_KEY; ATELIER_CA names the certificates that they trust instead of the system's."
)]
pub struct Cli {
    /// Folder of the server: databases, blobs, the operator's key, the root key.
    #[arg(long, global = true, env = "ATELIER_DATA", default_value = DEFAULT_DATA, value_name = "DIR")]
    pub data: PathBuf,

    /// Print one JSON object on standard output and everything else on standard error.
    #[arg(long, global = true)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, once")]
pub enum Command {
    /// Start the server.
    Serve(ServeArgs),
    /// Show the whole line: two tenants, two styles, one base model.
    Demo(DemoArgs),
    /// Create, list, change and delete tenants.
    Tenant {
        /// What to do with them.
        #[command(subcommand)]
        command: TenantCommand,
    },
    /// Create, list and revoke a tenant's keys.
    Key {
        /// What to do with them.
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Change the key that wraps the keys of all data, while no server runs.
    RootKey {
        /// What to do with it.
        #[command(subcommand)]
        command: RootKeyCommand,
    },
    /// Learn from a folder of code; the better adapter goes live by itself.
    Learn(LearnArgs),
    /// List a tenant's versions and what is live.
    Versions(TenantArg),
    /// Serve an older version again.
    Rollback(RollbackArgs),
    /// Complete at the end of a line of a file, with what the tenant is served.
    Complete(CompleteArgs),
    /// Measure what the tenant is served against the base on code that it has not seen.
    Eval(EvalArgs),
    /// Print a tenant's use of the last days.
    Usage(TenantArg),
    /// List what was done by whom, and check that the list is what was written.
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Check the machine, the data folder and the server, and say what to mend.
    Doctor(DoctorArgs),
    /// Print the OpenAPI document of the server.
    Openapi,
}

/// How to serve.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where to listen and how.
    #[command(flatten)]
    pub listen: ListenArgs,

    /// What to load and how to run it.
    #[command(flatten)]
    pub engine: EngineArgs,

    /// Where rows are.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Where blobs are.
    #[command(flatten)]
    pub blobs: BlobArgs,

    /// Where the root key is.
    #[command(flatten)]
    pub root_key: RootKeyArgs,

    /// File that names the tenants that were erased: a start with a restored backup erases them again. Keep it where no
    /// backup overwrites it; `erasures.jsonl` in the data folder when absent.
    #[arg(long, env = "ATELIER_ERASURE_LOG", value_name = "FILE")]
    pub erasure_log: Option<PathBuf>,

    /// Folder on this machine from which tenants may learn by path; may be repeated.
    #[arg(long = "source-root", value_name = "DIR")]
    pub source_roots: Vec<PathBuf>,

    /// Runs that learn at the same time; 0 leaves learning to others.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub workers: usize,
}

/// Where to listen and how.
#[derive(Debug, Clone, Args)]
pub struct ListenArgs {
    /// Address to listen on. One that others can reach needs TLS.
    #[arg(long, env = "ATELIER_LISTEN", default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub listen: SocketAddr,

    /// Certificate, followed by those that signed it, in PEM format: speaks HTTPS. Read again when the file changes.
    #[arg(long, env = "ATELIER_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The certificate's private key in PEM format.
    #[arg(long, env = "ATELIER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// Speak plain HTTP on an address that others can reach: only where a proxy before it speaks TLS, and nobody else
    /// can reach this one.
    #[arg(long, conflicts_with = "tls_cert")]
    pub allow_plaintext: bool,

    /// What clients call this server, as https://atelier.example.com; commands on this machine use it too.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Where the root key is, with which the keys of all data are wrapped.
#[derive(Debug, Clone, Default, Args)]
pub struct RootKeyArgs {
    /// File of the root key, 32 bytes in base64 or hexadecimal, or ATELIER_ROOT_KEY with the key itself; a file in the
    /// data folder when absent, made with the folder. Keep a copy: without it the data cannot be read.
    #[arg(long, env = "ATELIER_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key: Option<PathBuf>,
}

/// Where rows are. The addresses may hold passwords: they are not printed.
#[derive(Clone, Default, Args)]
pub struct DatabaseArgs {
    /// PostgreSQL database for rows, as postgres://USER@HOST/NAME with a role that owns nothing; SQLite files in the
    /// data folder when absent.
    #[arg(long, env = "ATELIER_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<String>,

    /// The same database with the role that owns its tables: brings them up to date at the start, and makes schemas
    /// and databases for tenants that have their own.
    #[arg(long, env = "ATELIER_DATABASE_OWNER", value_name = "URL", hide_env_values = true, requires = "database")]
    pub database_owner: Option<String>,
}

impl std::fmt::Debug for DatabaseArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseArgs").field("is_postgres", &self.database.is_some()).finish_non_exhaustive()
    }
}

/// Where blobs are: archives of code, adapters, states of runs. Credentials stand in no flag.
#[derive(Debug, Clone, Default, Args)]
pub struct BlobArgs {
    /// S3-compatible bucket for blobs, as s3://BUCKET or s3://BUCKET/PREFIX; the data folder when absent. Credentials
    /// come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the role of the machine or the pod. The first start
    /// brings there what lies in the data folder.
    #[arg(long, env = "ATELIER_BLOBS", value_name = "S3-ADDRESS")]
    pub blobs: Option<String>,

    /// Where the store is, as https://HOST:PORT; AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL or Amazon's when absent.
    #[arg(long, env = "ATELIER_BLOBS_ENDPOINT", value_name = "URL", requires = "blobs")]
    pub blobs_endpoint: Option<String>,

    /// The store's region; AWS_REGION, AWS_DEFAULT_REGION or us-east-1 when absent.
    #[arg(long, env = "ATELIER_BLOBS_REGION", value_name = "REGION", requires = "blobs")]
    pub blobs_region: Option<String>,

    /// Name buckets in the path rather than in the host, as MinIO and other small stores have it.
    #[arg(long, requires = "blobs")]
    pub blobs_path_style: bool,

    /// Speak plain HTTP to the store: only where nobody else is on the line.
    #[arg(long, requires = "blobs")]
    pub blobs_allow_http: bool,
}

/// What to load and how to run it.
#[derive(Debug, Clone, Args)]
pub struct EngineArgs {
    /// Folder of the base model in Hugging Face layout; the small one that ships with Atelier when absent.
    #[arg(long, env = "ATELIER_BASE", value_name = "PATH")]
    pub base: Option<PathBuf>,

    /// How the base's weights are held in memory.
    #[arg(long, value_enum, default_value_t = WeightsArg::Bf16)]
    pub weights: WeightsArg,

    /// Threads of the engine; all cores when absent.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,

    /// Memory for adapters of tenants, in MiB.
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    pub adapter_memory: usize,

    /// Instruction set of the kernels: portable, avx2, avx512, avx512-bf16; the best there is when absent.
    #[arg(long, env = "ATELIER_SIMD", value_name = "TIER")]
    pub simd: Option<String>,
}

/// How the base's weights are held in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightsArg {
    /// As they are stored, two bytes each.
    Bf16,
    /// One byte each with a scale per group: half the memory traffic, slightly different answers.
    Int8,
}

/// How to show it.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Learn from your own folder instead of the examples; may be repeated.
    #[arg(long = "tenant", value_name = "NAME=PATH")]
    pub tenants: Vec<String>,

    /// End after the show instead of going on serving.
    #[arg(long)]
    pub exit: bool,

    /// Loopback address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    pub listen: SocketAddr,

    /// Where rows are; the database must be new.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// What to load and how to run it.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Create a tenant; prints its key, once.
    Create {
        /// Lower-case letters, digits and hyphens.
        name: String,
        /// What it is served: the base alone, or the base with its own adapter.
        #[arg(long, value_enum, default_value_t = PlanArg::Tuned)]
        plan: PlanArg,
        /// Where its rows are, on PostgreSQL; with the others' when absent.
        #[arg(long, value_enum)]
        separation: Option<SeparationArg>,
        /// Bucket of its own for its blobs, which must exist; the shared one when absent.
        #[arg(long, value_name = "BUCKET")]
        bucket: Option<String>,
    },
    /// List all tenants.
    List,
    /// Move a tenant to another plan; its key and its model name stay.
    Plan {
        /// The tenant.
        name: String,
        /// The new plan.
        #[arg(value_enum)]
        plan: PlanArg,
    },
    /// Move a tenant's rows to a place of another kind, on PostgreSQL, or its blobs to another bucket; its clients notice
    /// a pause.
    #[command(group(clap::ArgGroup::new("where").required(true).multiple(true)))]
    Move {
        /// The tenant.
        name: String,
        /// Where its rows go.
        #[arg(long, value_enum, group = "where")]
        separation: Option<SeparationArg>,
        /// Where its blobs go: a bucket of its own, which must exist.
        #[arg(long, value_name = "BUCKET", group = "where", conflicts_with = "shared_bucket")]
        bucket: Option<String>,
        /// Its blobs go to the bucket that tenants share.
        #[arg(long, group = "where")]
        shared_bucket: bool,
    },
    /// Write all that a tenant has into one archive: sources, runs, versions with their adapters, usage, audit trail.
    Export {
        /// The tenant.
        name: String,
        /// File to write, a tar.gz; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Let a tenant do nothing for now: its keys answer 403, its streams are cut, its runs wait; its data stays.
    Suspend {
        /// The tenant.
        name: String,
    },
    /// Let a suspended tenant go on.
    Resume {
        /// The tenant.
        name: String,
    },
    /// Make a new key, print it once, and revoke the tenant's others.
    RotateKey {
        /// The tenant.
        name: String,
    },
    /// Erase a tenant, its keys, its data and its adapters; prints the certificate of it.
    Delete {
        /// The tenant.
        name: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
    /// List the certificates of erased tenants.
    Erased,
}

/// The plans that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanArg {
    /// The base alone.
    Shared,
    /// The base with the tenant's own adapter.
    Tuned,
    /// A model process of its own.
    Dedicated,
}

impl PlanArg {
    /// The plan's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Tuned => "tuned",
            Self::Dedicated => "dedicated",
        }
    }
}

/// Where a tenant's rows can be on PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SeparationArg {
    /// In tables that tenants share, under row level security.
    Pooled,
    /// In a schema of its own.
    Schema,
    /// In a database of its own.
    Database,
}

impl SeparationArg {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pooled => "pooled",
            Self::Schema => "schema",
            Self::Database => "database",
        }
    }
}

/// For which tenant.
#[derive(Debug, Clone, Args)]
pub struct TenantArg {
    /// The tenant's name. Needed with the operator's key; with a tenant's own key it is that tenant.
    #[arg(id = "tenant", long = "tenant", value_name = "NAME")]
    pub name: Option<String>,
}

/// What to learn from and how.
#[derive(Debug, Clone, Args)]
pub struct LearnArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,

    /// A folder of code, or a tar.gz of one.
    pub path: PathBuf,

    /// Wait until the run ends, with a progress bar.
    #[arg(long)]
    pub wait: bool,

    /// The recipe's numbers, where you want others.
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// The recipe's numbers, where you want others.
#[derive(Debug, Clone, Default, Args)]
pub struct RecipeArgs {
    /// Rank of the adapter.
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Alpha of the adapter: it is scaled by alpha / rank.
    #[arg(long, value_name = "X")]
    pub alpha: Option<f32>,
    /// Dropout on the adapter's input.
    #[arg(long, value_name = "X")]
    pub dropout: Option<f32>,
    /// Highest learning rate.
    #[arg(long, value_name = "X")]
    pub learning_rate: Option<f32>,
    /// Passes over the code, at most.
    #[arg(long, value_name = "N")]
    pub epochs: Option<usize>,
    /// Same seed, same code and same base give the same adapter.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Which version to go back to.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// The version; the one that was live before when absent.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<u32>,
}

/// Where to complete.
#[derive(Debug, Clone, Args)]
pub struct CompleteArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// The file.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// Complete at the end of this line, counted from 1; what follows it is the suffix.
    #[arg(long, value_name = "N")]
    pub line: usize,
    /// Most tokens to generate.
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub max_tokens: u32,
    /// Model to ask.
    #[arg(long, default_value = "atelier", value_name = "NAME")]
    pub model: String,
}

/// What to measure on.
#[derive(Debug, Clone, Args)]
pub struct EvalArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// A folder of code that the tenant's adapter has not learned from.
    pub path: PathBuf,
}

/// What to check.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Folder of the base model to check; the one that ships with Atelier when absent.
    #[arg(long, env = "ATELIER_BASE", value_name = "PATH")]
    pub base: Option<PathBuf>,

    /// Where rows are.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Where the root key is.
    #[command(flatten)]
    pub root_key: RootKeyArgs,
}

/// What to do with the root key.
#[derive(Debug, Subcommand)]
pub enum RootKeyCommand {
    /// Make a new root key and wrap every tenant's data key with it. No server may run; killed at any moment, it leaves
    /// data that the next start reads.
    Rotate {
        /// File of a new key that you made: name it at the next start. Without it the new key takes the old one's place
        /// in its file.
        #[arg(long, value_name = "FILE")]
        next: Option<PathBuf>,
        /// Make new data keys of all tenants too and encrypt all data anew, which takes its time.
        #[arg(long)]
        data_keys: bool,
        /// Where rows are.
        #[command(flatten)]
        database: DatabaseArgs,
        /// Where blobs are.
        #[command(flatten)]
        blobs: BlobArgs,
        /// Where the root key is.
        #[command(flatten)]
        root_key: RootKeyArgs,
    },
}
