//! The command line, as people see it in `--help`: every command with an example, arguments in groups, and the
//! variables of the environment beside the flags that they stand for.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use atelier_domain::{ParseError, TenantId, TenantName};
use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::client::Place;
use crate::commands::audit::AuditCommand;
use crate::commands::key::KeyCommand;
use crate::commands::login::LoginArgs;
use crate::commands::organization::{InviteCommand, ProjectCommand, UserCommand};
use crate::commands::runs::RunsArgs;
use crate::commands::tenant::TenantCommand;
use crate::listen;

/// Where everything lives unless told otherwise.
const DEFAULT_DATA: &str = "./atelier-data";

/// The heading of what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// What stands under the list of commands.
const FIRST_STEPS: &str = "\
First steps:
  atelier demo                                  see the whole line in a few minutes
  atelier serve                                 start a server on 127.0.0.1:8080
  atelier tenant create acme --plan tuned       make a tenant and its key
  atelier learn --tenant acme ./code --wait     teach it that tenant's code

All commands but `serve`, `demo`, `root-key`, `openapi` and `completions` talk to the running server. They find it, and \
the operator's key, in the data folder, or both where you signed in by `login`; `doctor` looks at the folder and the \
database too.

Environment:
  ATELIER_URL  the server to ask, as https://atelier.example.com
  ATELIER_KEY  the key to ask with, an operator's or a tenant's
  ATELIER_CA   file of certificates to trust in HTTPS, instead of the system's
  RUST_LOG     what to log on standard error, as atelier=debug

Other variables stand beside their flags, which win over them. With --data on the command line the server and the key \
are those of that folder, whatever ATELIER_URL and ATELIER_KEY say.

Exit status: 0 for success; 1 for an error, which is said on standard error; 2 for a command line that is none; 3 for a \
run that was waited for and was refused, failed or was cancelled.";

/// Columns of a help text on a screen that has more: longer lines are hard to read.
const HELP_COLUMNS_MAX: usize = 110;

/// One shared base model for code, one small adapter per tenant, behind an OpenAI-compatible API.
#[derive(Debug, Parser)]
#[command(name = "atelier", version, after_help = FIRST_STEPS, max_term_width = HELP_COLUMNS_MAX)]
pub struct Cli {
    /// Folder of the server: databases, blobs, the operator's key, the root key.
    #[arg(long, global = true, env = "ATELIER_DATA", default_value = DEFAULT_DATA, value_name = "DIR", help_heading = EVERYWHERE)]
    pub data: PathBuf,

    /// Print one JSON object on standard output and everything else on standard error.
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub json: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the command line, and says which server it is about; ends the process where it is none, or asks for help.
    pub fn read() -> (Self, Place) {
        let matches = Self::command().get_matches();
        let cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let is_told = matches.value_source("data") == Some(ValueSource::CommandLine);
        let place = Place { data: cli.data.clone(), is_told };
        (cli, place)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server.
    #[command(
        after_help = "Examples:\n  atelier serve\n  atelier serve --listen 0.0.0.0:443 --tls-cert fullchain.pem --tls-key privkey.pem --url https://atelier.example.com"
    )]
    Serve(Box<ServeArgs>),
    /// Show the whole line: two tenants, two styles, one base model.
    ///
    /// Everything lies in a temporary folder, which goes when the demo ends; with --data DIR on the command line in that
    /// folder, which must be new and stays: `atelier serve --data DIR` goes on with it.
    #[command(
        after_help = "Examples:\n  atelier demo\n  atelier demo --exit --json\n  atelier demo --tenant ours=../our-code --tenant theirs=../their-code"
    )]
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
    /// Create, list and archive a tenant's projects.
    Project {
        /// What to do with them.
        #[command(subcommand)]
        command: ProjectCommand,
    },
    /// List, raise, lower and remove a tenant's people.
    User {
        /// What to do with them.
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Invite people to a tenant, and accept an invite.
    Invite {
        /// What to do with them.
        #[command(subcommand)]
        command: InviteCommand,
    },
    /// Learn from a folder of code; a version that beats what is live goes live by itself.
    #[command(
        after_help = "Exit status: 0 when a new version is live, or without --wait when the run is queued; 3 when the run was refused (the new version does not beat what is live, or there is too little text), failed or was cancelled: what was live stays.\n\nExample:\n  atelier learn --tenant acme ./code --wait"
    )]
    Learn(LearnArgs),
    /// List a tenant's runs, newest first; cancel or follow one.
    #[command(
        after_help = "Examples:\n  atelier runs --tenant acme\n  atelier runs follow run_0190d1f2a3b47c5d8e9f001122334455 --tenant acme\n  atelier runs cancel run_0190d1f2a3b47c5d8e9f001122334455 --tenant acme"
    )]
    Runs(RunsArgs),
    /// List a tenant's versions and what is live.
    #[command(after_help = "Example:\n  atelier versions --tenant acme")]
    Versions(TenantArg),
    /// Serve an older version again.
    #[command(after_help = "Examples:\n  atelier rollback --tenant acme\n  atelier rollback --tenant acme --to 3")]
    Rollback(RollbackArgs),
    /// Complete at the end of a line of a file, with what the tenant is served.
    #[command(after_help = "Example:\n  atelier complete --tenant acme --file src/orders.py --line 12")]
    Complete(CompleteArgs),
    /// Measure what the tenant is served against the base, on code that it has not learned from.
    #[command(after_help = "Example:\n  atelier eval --tenant acme ./newer-code")]
    Eval(EvalArgs),
    /// Print a tenant's use of the last 30 days.
    #[command(after_help = "Example:\n  atelier usage --tenant acme")]
    Usage(TenantArg),
    /// List what was done by whom, and check that the list is what was written.
    Audit {
        /// What to do with it.
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Sign in with a browser, and keep a key of your own for the other commands.
    #[command(after_help = "Example:\n  atelier login acme --server https://atelier.example.com")]
    Login(LoginArgs),
    /// End that key and forget it.
    #[command(after_help = "Example:\n  atelier logout")]
    Logout,
    /// Check the machine, the data folder and the server, and say what to mend.
    #[command(after_help = "Example:\n  atelier doctor --data /srv/atelier")]
    Doctor(DoctorArgs),
    /// Change the key that wraps the keys of all data, while no server runs.
    RootKey {
        /// What to do with it.
        #[command(subcommand)]
        command: RootKeyCommand,
    },
    /// Print the OpenAPI document of the server.
    #[command(after_help = "Example:\n  atelier openapi > openapi.json")]
    Openapi,
    /// Print what makes a shell complete these commands.
    #[command(
        after_help = "Examples:\n  atelier completions bash > ~/.local/share/bash-completion/completions/atelier\n  atelier completions zsh > ~/.zfunc/_atelier     # with ~/.zfunc in fpath\n  atelier completions fish > ~/.config/fish/completions/atelier.fish"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
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
    #[arg(long, env = "ATELIER_ERASURE_LOG", value_name = "FILE", help_heading = "Erasing")]
    pub erasure_log: Option<PathBuf>,

    /// Let tenants name issuers for single sign-on at addresses that are not public: in your own network by HTTPS, or on
    /// this machine.
    #[arg(long, help_heading = "Single sign-on")]
    pub private_issuers: bool,

    /// Folder on this machine from which tenants may learn by path; may be repeated.
    #[arg(long = "source-root", value_name = "DIR", help_heading = "Learning")]
    pub source_roots: Vec<PathBuf>,

    /// Runs that learn at the same time; 0 leaves learning to others.
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Learning")]
    pub workers: usize,
}

/// Where to listen and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where to listen")]
pub struct ListenArgs {
    /// Address to listen on, or a name of this machine, such as localhost:8080. One that others can reach needs TLS.
    #[arg(long, env = "ATELIER_LISTEN", default_value = "127.0.0.1:8080", value_name = "HOST:PORT", value_parser = listen::address)]
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

    /// What clients call this server, scheme and name, such as `https://atelier.example.com`; commands on this machine use
    /// it too.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Where the root key is, with which the keys of all data are wrapped.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where the root key is")]
pub struct RootKeyArgs {
    /// File of the root key, 32 bytes in base64 or hexadecimal, or ATELIER_ROOT_KEY with the key itself; a file in the
    /// data folder when absent, made with the folder. Keep a copy: without it the data cannot be read.
    #[arg(long, env = "ATELIER_ROOT_KEY_FILE", value_name = "FILE")]
    pub root_key: Option<PathBuf>,
}

/// Where rows are. The addresses may hold passwords: they are not printed.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Where rows are")]
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
#[command(next_help_heading = "Blobs")]
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
#[command(next_help_heading = "The model")]
pub struct EngineArgs {
    /// Folder of the base model in Hugging Face layout; the small one that ships with Atelier when absent.
    #[arg(long, env = "ATELIER_BASE", value_name = "PATH")]
    pub base: Option<PathBuf>,

    /// How the base's weights are held in memory.
    #[arg(long, value_enum, default_value_t = WeightsArg::Bf16)]
    pub weights: WeightsArg,

    /// Threads of the engine; all cores when absent.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

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
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT", value_parser = listen::address)]
    pub listen: SocketAddr,

    /// Where rows are; the database must be new.
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// What to load and how to run it.
    #[command(flatten)]
    pub engine: EngineArgs,
}

/// For which tenant.
#[derive(Debug, Clone, Args)]
pub struct TenantArg {
    /// The tenant's name or id. Needed with the operator's key; with a tenant's own key it is that tenant.
    #[arg(id = "tenant", long = "tenant", value_name = "NAME", value_parser = tenant)]
    pub name: Option<String>,
}

/// A tenant's name or id. Whether there is one is for the server to say, but nothing else becomes part of a request.
pub fn tenant(text: &str) -> Result<String, ParseError> {
    if text.parse::<TenantId>().is_err() {
        text.parse::<TenantName>()?;
    }
    Ok(text.to_owned())
}

/// What to learn from and how.
#[derive(Debug, Clone, Args)]
pub struct LearnArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,

    /// A folder of code, or a tar.gz of one.
    pub path: PathBuf,

    /// Wait until the run ends, with a progress bar. Without it, `atelier runs` shows how it goes.
    #[arg(long)]
    pub wait: bool,

    /// The recipe's numbers, where you want others.
    #[command(flatten)]
    pub recipe: RecipeArgs,
}

/// The recipe's numbers, where you want others.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "The recipe's numbers, where you want others")]
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
    /// A folder of code, or a tar.gz of one, that what is served has not learned from: measured on what it has, it looks
    /// better than it is.
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
    #[command(
        after_help = "Examples:\n  atelier root-key rotate --data /srv/atelier\n  atelier root-key rotate --data /srv/atelier --next /run/keys/atelier --data-keys"
    )]
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
