//! `atelier demo`: the whole line in a few minutes, told as a story and, with `--exit --json`, as one object.
//!
//! Everything goes through the server's own API with the tenants' own keys. Only the third arm of the eval card, one
//! tenant's text under the other's adapter, is computed here: the product never does that, the demo may, since both
//! tenants are ours.

mod arms;
mod tenants;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

use crate::cli::DemoArgs;
use crate::client::{Client, Place};
use crate::commands::{learn, runs, tenant, usage};
use crate::listen::Listen;
use crate::output::Output;
use crate::serve::{Server, StopSignal, platform_options};
use arms::Arms;
use tenants::{DemoTenant, Folder};

/// What both tenants are asked to go on with: a name that is in neither code base, and sense in both.
const PREFIX: &str = "from datetime import date\nfrom decimal import Decimal\n\n\ndef total_by_customer(orders";

/// Tokens of each completion that is shown.
const SHOWN_TOKENS: u32 = 64;

/// Shows it.
pub async fn run(place: &Place, args: DemoArgs, output: Output) -> Result<()> {
    let started = Instant::now();
    let listen = Listen::loopback(args.listen)?;
    let folders = tenants::folders(&args.tenants)?;
    // Before there is a folder: whoever ends the demo must not leave it behind.
    let mut stop = StopSignal::listen()?;
    let data = DataFolder::new(place)?;
    let options = platform_options(&data.path, &args.engine, &args.database, Vec::new(), 1)?;
    let server = Server::start(&data.path, options, listen).await?;
    let shown = tokio::select! {
        shown = show(&server, &folders, output) => shown,
        () = stop.received() => Err(anyhow!("The demo was ended before it had shown everything.")),
    };
    let result = match shown {
        Ok(mut shown) => {
            shown.object["seconds"] = json!(started.elapsed().as_secs_f64());
            let object = &shown.object;
            if args.exit {
                output.result(object, || format!("Done in {:.0} seconds.", started.elapsed().as_secs_f64()))
            } else {
                go_on(&server, &shown, &data, &mut stop, output).await
            }
        }
        Err(error) => Err(error),
    };
    server.stop().await;
    result
}

/// What was shown.
struct Shown {
    /// The one object of `--json`.
    object: Value,
    /// Who took part, with their keys.
    tenants: Vec<DemoTenant>,
}

async fn show(server: &Server, folders: &[Folder], output: Output) -> Result<Shown> {
    let info = server.platform.base_info();
    output.say(format!(
        "One base model ({}, {:.1} million parameters, {} kernels) serves everybody on {}.\n",
        info.name,
        info.parameters as f64 / 1e6,
        info.tier,
        server.url
    ));
    let operator_key = server.first_operator_key.as_deref().context("The demo's data folder is not new.")?;
    let operator = Client::new(&server.url, operator_key)?;
    let mut shown = Vec::new();
    for folder in folders {
        shown.push(create(&operator, &server.url, folder).await?);
    }
    let names: Vec<&str> = shown.iter().map(|tenant| tenant.name.as_str()).collect();
    output.say(format!("1. Before learning, {} get the same answer to the same prefix:\n", names.join(" and ")));
    output.say_part(&indent(PREFIX));
    for tenant in &mut shown {
        tenant.before = complete(&tenant.client, output, false).await?;
    }
    if shown.iter().any(|tenant| tenant.before != shown[0].before) {
        bail!("The base answered the tenants differently before anything was learned.");
    }
    output.say(format!("{}\n", continued(&shown[0].before)));
    output.say("2. Each learns from its own code, and only from that:");
    for (tenant, folder) in shown.iter_mut().zip(folders) {
        learn(tenant, folder, output).await?;
    }
    output.say("\n3. Held-out loss per token of each tenant's own files (lower is better):\n");
    let cards = arms::compare(server, &shown).await?;
    output.say(arms::table(&shown, &cards));
    output.say("\n4. The same prefix, the same model name, streamed with each tenant's key:");
    for tenant in &mut shown {
        output.say_part(&format!("\n   {}:\n{}", tenant.name, indent(PREFIX)));
        tenant.after = complete(&tenant.client, output, true).await?;
    }
    output.say("\n5. What each of them used:\n");
    let mut usages = serde_json::Map::new();
    for tenant in &shown {
        let page = usage::read(&tenant.client).await?;
        output.say(format!("   {}\n{}\n", tenant.name, indent(&usage::describe(&page))));
        usages.insert(tenant.name.clone(), page);
    }
    let tenants: Vec<Value> = shown.iter().zip(&cards).map(|(tenant, card)| describe(tenant, card)).collect();
    Ok(Shown { object: json!({"tenants": tenants, "usage": usages}), tenants: shown })
}

async fn create(operator: &Client, url: &str, folder: &Folder) -> Result<DemoTenant> {
    let created = tenant::create(operator, &folder.name, "tuned", tenant::Separate::default()).await?;
    let key = created["key"].as_str().context("The server's answer shows no key.")?.to_owned();
    let client = Client::new(url, &key)?;
    Ok(DemoTenant {
        name: folder.name.clone(),
        key,
        client,
        run: Value::Null,
        before: String::new(),
        after: String::new(),
    })
}

async fn learn(tenant: &mut DemoTenant, folder: &Folder, output: Output) -> Result<()> {
    let source = runs::give_source(&tenant.client, &folder.path).await?;
    let run = runs::start(&tenant.client, "learn", &source, json!({})).await?;
    tenant.run = runs::follow(&tenant.client, &run, &tenant.name, output).await?;
    output.say(indent(&learn::describe(&tenant.run)));
    runs::check_end(&tenant.run).with_context(|| format!("{} has no version of its own to show", tenant.name))
}

/// Asks as an editor would, greedy so that the answer is the model's own choice and the same each time.
async fn complete(client: &Client, output: Output, live: bool) -> Result<String> {
    let body = json!({
        "model": "atelier", "prompt": PREFIX, "max_tokens": SHOWN_TOKENS, "temperature": 0, "stream": true,
        "stop": ["\n\n\n"],
    });
    let mut frames = client.stream("/v1/completions", &body).await?;
    let mut completion = String::new();
    while let Some(chunk) = frames.next().await? {
        let part = chunk["choices"][0]["text"].as_str().unwrap_or_default();
        completion.push_str(part);
        if live {
            output.say_part(&continued(part));
        }
    }
    if live {
        output.say("");
    }
    Ok(completion)
}

fn describe(tenant: &DemoTenant, card: &Arms) -> Value {
    json!({
        "name": tenant.name,
        "loss": {"base": card.base, "own": card.own, "other": card.other},
        "own_vs_base_ci95": [card.own_vs_base.low, card.own_vs_base.high],
        "prefix": PREFIX,
        "completion": {"before": tenant.before, "after": tenant.after},
        "run": learn::result(&tenant.run),
    })
}

async fn go_on(server: &Server, shown: &Shown, data: &DataFolder, stop: &mut StopSignal, output: Output) -> Result<()> {
    if output.is_json() {
        output.result(&shown.object, String::new)?;
    }
    output.say(lines_to_copy(&server.url, &shown.tenants, data));
    stop.received().await;
    Ok(())
}

/// Lines that work in any folder: the keys are the demo's own, and the binary is called by its path.
fn lines_to_copy(url: &str, tenants: &[DemoTenant], data: &DataFolder) -> String {
    let program = std::env::current_exe().map_or_else(|_| "atelier".to_owned(), |path| quoted(&path));
    let folder = quoted(&data.path);
    let end = if data.is_temporary {
        format!("removes {}", data.path.display())
    } else {
        format!("leaves all in {}", data.path.display())
    };
    let keys: Vec<String> =
        tenants.iter().map(|tenant| format!("export KEY={}  # {}", tenant.key, tenant.name)).collect();
    format!(
        "Still serving on {url}; Ctrl-C ends it and {end}. Try, in another terminal:\n\n\
         # one of the tenants' keys\n\
         {keys}\n\n\
         # curl\n\
         curl {url}/v1/completions -H \"Authorization: Bearer $KEY\" -H 'Content-Type: application/json' \\\n  \
         -d '{{\"model\": \"atelier\", \"prompt\": \"def total_by_customer(orders\", \"max_tokens\": 64, \"temperature\": 0}}'\n\n\
         # Python, after: pip install openai\n\
         python3 -c \"import os, openai; client = openai.OpenAI(base_url='{url}/v1', api_key=os.environ['KEY']); \
         print(client.completions.create(model='atelier', prompt='def total_by_customer(orders', max_tokens=64, temperature=0).choices[0].text)\"\n\n\
         # the commands, as the operator\n\
         {program} --data {folder} tenant list\n",
        keys = keys.join("\n"),
    )
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-".contains(letter));
    if is_plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// What goes on where a line above ended.
fn continued(text: &str) -> String {
    text.replace('\n', "\n     ")
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n")
}

/// The demo's own data folder: temporary and removed when it ends, or the one that the command line names, which stays.
struct DataFolder {
    path: PathBuf,
    is_temporary: bool,
}

impl DataFolder {
    fn new(place: &Place) -> Result<Self> {
        if !place.is_told {
            let path = std::env::temp_dir().join(format!("atelier-demo-{}", std::process::id()));
            std::fs::create_dir(&path).with_context(|| format!("Cannot create {}.", path.display()))?;
            return Ok(Self { path, is_temporary: true });
        }
        let path = place.data.clone();
        let is_new = std::fs::read_dir(&path).map_or(!path.exists(), |mut entries| entries.next().is_none());
        if !is_new {
            bail!(
                "The demo makes its tenants in a new folder, and {} is not empty. Name another with --data, or leave \
                 --data out for a temporary one.",
                path.display()
            );
        }
        Ok(Self { path, is_temporary: false })
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.is_temporary {
            // What cannot be removed is temporary by name.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_a_shell_makes_of_them() {
        for (path, expected) in [
            ("/usr/bin/atelier", "/usr/bin/atelier"),
            ("/a b", "'/a b'"),
            ("/it's", "'/it'\\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expected);
        }
    }
}
