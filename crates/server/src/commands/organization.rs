//! `atelier project`, `atelier user`, `atelier invite`: who there is inside of a tenant.

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::TenantArg;
use crate::client::Client;
use crate::output::{Output, table_or};

const PROJECTS: &str = "/v1/organization/projects";
const USERS: &str = "/v1/organization/users";
const INVITES: &str = "/v1/organization/invites";
/// Items of a page: as many as the server gives.
const PAGE_ITEMS: usize = 100;

/// What to do with projects.
#[derive(Debug, Clone, Subcommand)]
pub enum ProjectCommand {
    /// Make a project.
    #[command(after_help = "Example:\n  atelier project create web --tenant acme")]
    Create {
        /// For which tenant.
        #[command(flatten)]
        tenant: TenantArg,
        /// What to call it.
        name: String,
    },
    /// List a tenant's projects, archived ones included.
    #[command(after_help = "Example:\n  atelier project list --tenant acme")]
    List(TenantArg),
    /// Close a project for good; its keys are worthless within a second.
    #[command(after_help = "Example:\n  atelier project archive web --tenant acme")]
    Archive(OneArgs),
}

/// What to do with people.
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// List a tenant's people.
    #[command(after_help = "Example:\n  atelier user list --tenant acme")]
    List(TenantArg),
    /// Make a person an owner, or a reader.
    #[command(after_help = "Example:\n  atelier user role jo@example.com owner --tenant acme")]
    Role {
        /// Who.
        #[command(flatten)]
        user: OneArgs,
        /// What the person is from then on.
        #[arg(value_enum)]
        role: PersonRoleArg,
    },
    /// Remove a person and its keys.
    #[command(after_help = "Example:\n  atelier user remove jo@example.com --tenant acme")]
    Remove(OneArgs),
}

/// What to do with invites.
#[derive(Debug, Clone, Subcommand)]
pub enum InviteCommand {
    /// Invite somebody; prints what accepts the invite, once.
    #[command(after_help = "Example:\n  atelier invite create jo@example.com --tenant acme --role owner")]
    Create {
        /// For which tenant.
        #[command(flatten)]
        tenant: TenantArg,
        /// The person's address.
        email: String,
        /// What the person will be.
        #[arg(long, value_enum, default_value_t = PersonRoleArg::Reader)]
        role: PersonRoleArg,
        /// A project that the person will belong to, as a member; may be repeated. The default project when absent.
        #[arg(long = "project", value_name = "PROJECT")]
        projects: Vec<String>,
    },
    /// List a tenant's invites.
    #[command(after_help = "Example:\n  atelier invite list --tenant acme")]
    List(TenantArg),
    /// Make an invite worthless.
    #[command(after_help = "Example:\n  atelier invite delete jo@example.com --tenant acme")]
    Delete(OneArgs),
    /// With the secret of an invite in ATELIER_KEY: become one of the tenant's people; prints a key of one's own, once.
    #[command(
        after_help = "Example, with the secret in ATELIER_KEY and the server in ATELIER_URL:\n  atelier invite accept 'Jo Smith'"
    )]
    Accept {
        /// What you are called.
        name: String,
    },
}

/// One thing of a tenant.
#[derive(Debug, Clone, Args)]
pub struct OneArgs {
    /// For which tenant.
    #[command(flatten)]
    pub tenant: TenantArg,
    /// Its id, or what `list` shows of it: a project's name, a person's address.
    #[arg(value_name = "WHICH")]
    pub which: String,
}

/// One kind of thing, and how people call one of them.
struct Kind {
    word: &'static str,
    path: &'static str,
    id_begins: &'static str,
    called: &'static str,
    /// The status of one that can still be meant, where it has one.
    living: Option<&'static str>,
}

const PROJECT: Kind =
    Kind { word: "project", path: PROJECTS, id_begins: "proj_", called: "name", living: Some("active") };
const USER: Kind = Kind { word: "user", path: USERS, id_begins: "user-", called: "email", living: None };
const INVITE: Kind =
    Kind { word: "invite", path: INVITES, id_begins: "invite-", called: "email", living: Some("pending") };

impl Kind {
    /// The id of the one that is meant: as it was said, or of the only one that is called so.
    async fn id(&self, client: &Client, which: &str) -> Result<String> {
        let is_id = which.strip_prefix(self.id_begins).is_some_and(|rest| {
            !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        });
        if is_id {
            return Ok(which.to_owned());
        }
        let listed = all(client, &format!("{}?", self.path)).await?;
        let items = listed["data"].as_array().into_iter().flatten();
        let is_meant = |item: &&Value| {
            self.living.is_none_or(|living| item["status"] == living)
                && text(&item[self.called]).eq_ignore_ascii_case(which)
        };
        let ids: Vec<String> = items.filter(is_meant).map(|item| text(&item["id"])).collect();
        match ids.as_slice() {
            [] => bail!("There is no {0} `{which}`. `atelier {0} list` lists what there is.", self.word),
            [one] => Ok(one.clone()),
            several => bail!("Several are called `{which}`: name one by its id. They are {}.", several.join(", ")),
        }
    }
}

/// What a person is to a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PersonRoleArg {
    /// Manages it.
    Owner,
    /// Looks at it, and uses it in its projects.
    Reader,
}

impl PersonRoleArg {
    /// The role's name on the wire.
    fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Reader => "reader",
        }
    }
}

/// Does what was asked with projects.
pub async fn projects(client: Client, command: ProjectCommand, output: Output) -> Result<()> {
    match command {
        ProjectCommand::Create { tenant, name } => {
            let client = client.for_tenant(tenant.name.as_deref());
            let project = client.send(Method::POST, PROJECTS, &json!({"name": name})).await?;
            output.result(&project, || format!("Created project {name} ({}).", text(&project["id"])))
        }
        ProjectCommand::List(tenant) => {
            let client = client.for_tenant(tenant.name.as_deref());
            let projects = all(&client, &format!("{PROJECTS}?include_archived=true&")).await?;
            output.result(&projects, || list("project", &projects, &["id", "name", "status"]))
        }
        ProjectCommand::Archive(OneArgs { tenant, which }) => {
            let client = client.for_tenant(tenant.name.as_deref());
            let id = PROJECT.id(&client, &which).await?;
            let project = client.send(Method::POST, &format!("{PROJECTS}/{id}/archive"), &json!({})).await?;
            output.result(&project, || format!("Project {which} is archived; its keys are worthless."))
        }
    }
}

/// Does what was asked with people.
pub async fn users(client: Client, command: UserCommand, output: Output) -> Result<()> {
    match command {
        UserCommand::List(tenant) => {
            let users = all(&client.for_tenant(tenant.name.as_deref()), &format!("{USERS}?")).await?;
            output.result(&users, || list("person", &users, &["id", "email", "name", "role"]))
        }
        UserCommand::Role { user: OneArgs { tenant, which }, role } => {
            let client = client.for_tenant(tenant.name.as_deref());
            let id = USER.id(&client, &which).await?;
            let user = client.send(Method::POST, &format!("{USERS}/{id}"), &json!({"role": role.name()})).await?;
            output.result(&user, || format!("{} is {} now.", text(&user["email"]), text(&user["role"])))
        }
        UserCommand::Remove(OneArgs { tenant, which }) => {
            let client = client.for_tenant(tenant.name.as_deref());
            let id = USER.id(&client, &which).await?;
            let removed = client.send(Method::DELETE, &format!("{USERS}/{id}"), &json!({})).await?;
            output.result(&removed, || format!("{which} is removed, and the keys of that person are worthless."))
        }
    }
}

/// Does what was asked with invites.
pub async fn invites(client: Client, command: InviteCommand, output: Output) -> Result<()> {
    match command {
        InviteCommand::Create { tenant, email, role, projects } => {
            let client = client.for_tenant(tenant.name.as_deref());
            let mut body = json!({"email": email, "role": role.name()});
            if !projects.is_empty() {
                body["projects"] = projects.iter().map(|id| json!({"id": id, "role": "member"})).collect();
            }
            let invite = client.send(Method::POST, INVITES, &body).await?;
            output.result(&invite, || {
                format!(
                    "Invited {} as {} ({}).\nSecret (shown only now): {}\nAccept with: ATELIER_URL={} ATELIER_KEY=SECRET \
                     atelier invite accept \"YOUR NAME\"",
                    text(&invite["email"]),
                    text(&invite["role"]),
                    text(&invite["id"]),
                    text(&invite["secret"]),
                    client.url()
                )
            })
        }
        InviteCommand::List(tenant) => {
            let invites = all(&client.for_tenant(tenant.name.as_deref()), &format!("{INVITES}?")).await?;
            output.result(&invites, || list("invite", &invites, &["id", "email", "role", "status"]))
        }
        InviteCommand::Delete(OneArgs { tenant, which }) => {
            let client = client.for_tenant(tenant.name.as_deref());
            let id = INVITE.id(&client, &which).await?;
            let deleted = client.send(Method::DELETE, &format!("{INVITES}/{id}"), &json!({})).await?;
            output.result(&deleted, || format!("The invite {which} is worthless."))
        }
        InviteCommand::Accept { name } => {
            let joined = client.send(Method::POST, &format!("{INVITES}/accept"), &json!({"name": name})).await?;
            output.result(&joined, || {
                let (user, key) = (&joined["user"], &joined["key"]);
                format!(
                    "You are {} ({}).\nKey (shown only now): {}\nNext, with that key in ATELIER_KEY: atelier complete \
                     --file FILE --line N",
                    text(&user["email"]),
                    text(&user["role"]),
                    text(&key["value"])
                )
            })
        }
    }
}

/// A whole list, whatever the server's page holds. The path ends where further parameters go.
async fn all(client: &Client, path: &str) -> Result<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map(|item| format!("&after={}", text(&item["id"]))).unwrap_or_default();
        let mut page = client.get(&format!("{path}limit={PAGE_ITEMS}{after}")).await?;
        let more = page["has_more"] == json!(true);
        if let Some(items) = page["data"].as_array_mut() {
            all.append(items);
        }
        if !more {
            return Ok(json!({"object": "list", "data": all, "has_more": false}));
        }
    }
}

/// A table of these fields; where there is nothing, how one comes about.
fn list(word: &str, list: &Value, fields: &[&str]) -> String {
    let items = list["data"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = items.map(|item| fields.iter().map(|field| text(&item[*field])).collect()).collect();
    let headings: Vec<String> = fields.iter().map(|field| field.to_uppercase()).collect();
    let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
    let first = if word == "project" { "atelier project create NAME" } else { "atelier invite create EMAIL" };
    table_or(&format!("There is no {word} yet. Next: {first}"), &headings, &rows)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".to_owned() } else { value.to_string() }, str::to_owned)
}
