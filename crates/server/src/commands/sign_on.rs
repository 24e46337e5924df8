//! `atelier tenant sign-on`: set, show, check, remove.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Place};
use crate::output::Output;

const PATH: &str = "/v1/organization/sign_on";

/// What to do with a tenant's sign-on.
#[derive(Debug, Clone, Subcommand)]
pub enum SignOnCommand {
    /// Trust an issuer (OpenID Connect) to say who the tenant's people are.
    #[command(
        after_help = "Example:\n  atelier tenant sign-on set acme --issuer https://id.example.com/realms/acme --client-id atelier --client-secret secret.txt"
    )]
    Set(SetArgs),
    /// Show which issuer the tenant trusts, and the address that the issuer must let browsers return to.
    #[command(after_help = "Example:\n  atelier tenant sign-on show acme")]
    Show {
        /// The tenant.
        name: String,
    },
    /// Ask the issuer whether people can sign in.
    #[command(after_help = "Example:\n  atelier tenant sign-on check acme")]
    Check {
        /// The tenant.
        name: String,
    },
    /// Trust no issuer any more; whoever signed in is out within a second.
    #[command(after_help = "Example:\n  atelier tenant sign-on remove acme")]
    Remove {
        /// The tenant.
        name: String,
    },
}

/// Which issuer, and whom of those that it knows.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// The tenant.
    pub name: String,
    /// The issuer's address, letter by letter as it calls itself.
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// What the issuer calls this server.
    #[arg(long, value_name = "ID")]
    pub client_id: String,
    /// File that holds the secret that goes with it; - reads it from standard input. The known one stays when absent.
    #[arg(long, value_name = "FILE")]
    pub client_secret: Option<PathBuf>,
    /// Let people with addresses of this domain come uninvited; may be repeated.
    #[arg(long = "domain", value_name = "DOMAIN")]
    pub domains: Vec<String>,
    /// What those become.
    #[arg(long, value_enum, default_value_t = PersonRoleArg::Reader)]
    pub role: PersonRoleArg,
}

/// What a person is to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PersonRoleArg {
    /// Uses the tenant's models.
    Reader,
    /// Manages the tenant.
    Owner,
}

/// Does what was asked.
pub async fn run(place: &Place, command: SignOnCommand, output: Output) -> Result<()> {
    let client = Client::find(place)?;
    let flag = place.flag();
    match command {
        SignOnCommand::Set(args) => {
            let client = client.for_tenant(Some(&args.name));
            let role = if args.role == PersonRoleArg::Owner { "owner" } else { "reader" };
            let mut body = json!({
                "issuer": args.issuer, "client_id": args.client_id, "domains": args.domains, "role": role,
            });
            if let Some(file) = &args.client_secret {
                body["client_secret"] = json!(read_secret(file)?);
            }
            let set = client.send(Method::PUT, PATH, &body).await?;
            output
                .result(&set, || format!("{}\nNext: atelier tenant sign-on check {}{flag}", describe(&set), args.name))
        }
        SignOnCommand::Show { name } => {
            let shown = client.for_tenant(Some(&name)).get(PATH).await?;
            output.result(&shown, || {
                let next = if shown["enabled"] == json!(true) { "check" } else { "set" };
                let rest = if next == "set" { " --issuer URL --client-id ID --client-secret FILE" } else { "" };
                format!("{}\nNext: atelier tenant sign-on {next} {name}{rest}{flag}", describe(&shown))
            })
        }
        SignOnCommand::Check { name } => {
            let checked = client.for_tenant(Some(&name)).get(&format!("{PATH}/check")).await?;
            output.result(&checked, || match checked["problem"].as_str() {
                None => {
                    "The issuer answers as it must. People sign in at /sign-in, and with `atelier login`.".to_owned()
                }
                Some(problem) => problem.to_owned(),
            })?;
            if checked["ok"] == json!(true) { Ok(()) } else { anyhow::bail!("People of {name} cannot sign in.") }
        }
        SignOnCommand::Remove { name } => {
            let removed = client.for_tenant(Some(&name)).send(Method::DELETE, PATH, &json!({})).await?;
            output.result(&removed, || format!("Tenant {name} trusts no issuer any more."))
        }
    }
}

fn read_secret(file: &Path) -> Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    }
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

fn describe(sign_on: &Value) -> String {
    let text = |name: &str| sign_on[name].as_str().unwrap_or("-").to_owned();
    let redirect = format!("The issuer must let browsers return to {}", text("redirect_uri"));
    if sign_on["enabled"] != json!(true) {
        return format!("No issuer is trusted: nobody signs in.\n{redirect}");
    }
    let domains: Vec<&str> = sign_on["domains"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let who = if domains.is_empty() {
        "Only who is invited comes in.".to_owned()
    } else {
        format!("People of {} come uninvited, as {}.", domains.join(", "), text("role"))
    };
    format!("Trusts {} as client {}. {who}\n{redirect}", text("issuer"), text("client_id"))
}
