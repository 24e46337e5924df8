//! Whether the walls between tenants stand as the schema's steps built them. A store whose walls have drifted does not
//! open, and `atelier doctor` prints the same findings.
//!
//! What must be there is read from the steps themselves: each names its tables and their walls, so that a table that a
//! step forgot, or that somebody made by hand, is a finding too.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::StoreError;
use crate::migrate::Migration;
use crate::sql::{Database, Row, values};

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WallFinding {
    /// The file, or the part of the database.
    pub place: String,
    /// What is wrong there.
    pub what: String,
}

impl fmt::Display for WallFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Who may see a table's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reach {
    Tenant,
    Control { tenant_column: String },
    Operator,
    Everyone,
}

impl Reach {
    /// The policy as PostgreSQL prints it.
    fn policy(&self) -> String {
        const SCOPE: &str = "(current_setting('app.scope'::text, true) = 'control'::text)";
        let tenant = |column: &str| format!("({column} = NULLIF(current_setting('app.tenant'::text, true), ''::text))");
        match self {
            Self::Tenant => tenant("tenant_id"),
            Self::Control { tenant_column } => format!("({} OR {SCOPE})", tenant(tenant_column)),
            Self::Operator => SCOPE.to_owned(),
            Self::Everyone => "true".to_owned(),
        }
    }
}

/// What must hold of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wall {
    reach: Reach,
    may_change: bool,
    may_vanish: bool,
}

/// The walls that these steps build, by table: from their calls of the functions in `walls.sql`.
fn walls_of(steps: &[Migration]) -> BTreeMap<String, Wall> {
    let mut walls: BTreeMap<String, Wall> = BTreeMap::new();
    for step in steps {
        for call in step.script.split("pg_temp.").skip(1) {
            let Some((function, rest)) = call.split_once('(') else { continue };
            let Some((arguments, _)) = rest.split_once(')') else { continue };
            let mut arguments = arguments.split(',').map(|argument| argument.trim().trim_matches('\'').to_owned());
            let Some(table) = arguments.next() else { continue };
            let reach = match function {
                "tenant_table" => Reach::Tenant,
                "control_table" => {
                    Reach::Control { tenant_column: arguments.next().unwrap_or_else(|| "tenant_id".to_owned()) }
                }
                "operator_table" => Reach::Operator,
                "common_table" => Reach::Everyone,
                "append_only" | "immutable" => {
                    if let Some(wall) = walls.get_mut(&table) {
                        wall.may_change = false;
                        wall.may_vanish = function == "immutable";
                    }
                    continue;
                }
                _ => continue,
            };
            walls.insert(table, Wall { reach, may_change: true, may_vanish: true });
        }
    }
    walls
}

/// The table that says which steps were applied: the same for everybody, and the owner's alone to write.
const HISTORY: &str = "schema_history";

/// Tables and views of the schema, with what protects each and what the application may do with it.
const RELATIONS: &str = "SELECT CAST(relname AS TEXT) AS name, CAST(relkind AS TEXT) AS kind,
    CAST(CAST(relrowsecurity AND relforcerowsecurity AS INT) AS BIGINT) AS forced,
    CAST(CAST(pg_has_role(relowner, 'MEMBER') AS INT) AS BIGINT) AS owned,
    COALESCE(array_to_string(reloptions, ' '), '') AS options,
    (SELECT string_agg(concat_ws(' ', polname, CAST(polcmd AS TEXT), polpermissive, polroles = '{0}',
            pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)), '; ' ORDER BY polname)
        FROM pg_policy WHERE polrelid = pg_class.oid) AS policies,
    concat_ws(' ',
        CASE WHEN has_any_column_privilege(pg_class.oid, 'INSERT') THEN 'INSERT' END,
        CASE WHEN has_any_column_privilege(pg_class.oid, 'UPDATE') THEN 'UPDATE' END,
        CASE WHEN has_table_privilege(pg_class.oid, 'DELETE') THEN 'DELETE' END,
        CASE WHEN has_table_privilege(pg_class.oid, 'TRUNCATE') THEN 'TRUNCATE' END,
        CASE WHEN has_any_column_privilege(pg_class.oid, 'REFERENCES') THEN 'REFERENCES' END,
        CASE WHEN has_table_privilege(pg_class.oid, 'TRIGGER') THEN 'TRIGGER' END) AS may,
    CAST(CAST(EXISTS (SELECT FROM aclexplode(relacl) AS granted WHERE granted.grantee = 0) AS INT) AS BIGINT) AS is_public,
    (SELECT string_agg(CAST(tgname AS TEXT), ' ' ORDER BY tgname) FROM pg_trigger
        WHERE tgrelid = pg_class.oid AND NOT tgisinternal AND tgenabled IN ('O', 'A')) AS triggers
    FROM pg_class WHERE relnamespace = CAST(current_schema() AS regnamespace)
        AND relkind IN ('r', 'p', 'f', 'v', 'm') ORDER BY relname";

/// What the application's role has that it must not have.
const ROLE: &str = "SELECT concat_ws(', ',
    CASE WHEN rolsuper THEN 'is a superuser' END,
    CASE WHEN rolbypassrls THEN 'bypasses row level security' END,
    CASE WHEN rolcreaterole THEN 'may make roles' END,
    CASE WHEN pg_has_role(datdba, 'MEMBER') THEN 'owns the database' END,
    CASE WHEN pg_has_role(nspowner, 'MEMBER') THEN 'owns the schema' END,
    CASE WHEN has_schema_privilege(pg_namespace.oid, 'CREATE') THEN 'may make tables' END,
    CASE WHEN EXISTS (SELECT FROM pg_db_role_setting, unnest(setconfig) AS setting
        WHERE setrole IN (0, pg_roles.oid) AND (setting LIKE 'app.%' OR setting LIKE 'row_security=%'))
        THEN 'begins with a setting that decides what it sees' END) AS faults
    FROM pg_roles, pg_database, pg_namespace
    WHERE rolname = current_user AND datname = current_database() AND nspname = current_schema()";

/// Functions that run with somebody else's rights.
const BORROWED: &str = "SELECT CAST(proname AS TEXT) AS name FROM pg_proc
    WHERE pronamespace = CAST(current_schema() AS regnamespace) AND prosecdef AND proname <> 'erase_rows'";

/// Holds a schema of a PostgreSQL database against the steps that built it.
pub(crate) async fn check_schema(
    database: &Database,
    place: &str,
    steps: &[Migration],
) -> Result<Vec<WallFinding>, StoreError> {
    let mut walls = walls_of(steps);
    let mut faults = Vec::new();
    for row in database.fetch_all(RELATIONS, values![]).await? {
        let name = row.text("name")?;
        let wall = walls.remove(&name);
        for fault in relation_faults(&row, &name, wall.as_ref())? {
            faults.push(format!("{name} {fault}"));
        }
    }
    faults.extend(walls.keys().map(|missing| format!("{missing} is not there")));
    match database.fetch_optional(ROLE, values![]).await? {
        Some(row) if row.text("faults")?.is_empty() => {}
        Some(row) => faults.push(format!("the application's role {}", row.text("faults")?)),
        None => faults.push("the schema is not there".to_owned()),
    }
    for row in database.fetch_all(BORROWED, values![]).await? {
        faults.push(format!("the function {} runs with its owner's rights", row.text("name")?));
    }
    Ok(faults.into_iter().map(|what| WallFinding { place: place.to_owned(), what }).collect())
}

fn relation_faults(row: &Row, name: &str, wall: Option<&Wall>) -> Result<Vec<String>, StoreError> {
    let mut faults = Vec::new();
    let mut must = |holds: bool, fault: &str| {
        if !holds {
            faults.push(fault.to_owned());
        }
    };
    let may = row.text("may")?;
    let may = |privilege: &str| may.split(' ').any(|held| held == privilege);
    must(!row.flag("owned")?, "belongs to the application's role");
    must(!row.flag("is_public")?, "is open to every role");
    for never in ["TRUNCATE", "REFERENCES", "TRIGGER"] {
        must(!may(never), &format!("lets the application {never}"));
    }
    if row.text("kind")? == "v" {
        let invoker = ["security_invoker=true", "security_invoker=on"];
        must(
            row.text("options")?.split(' ').any(|option| invoker.contains(&option)),
            "is a view with its owner's eyes",
        );
        return Ok(faults);
    }
    if name == HISTORY {
        must(!may("INSERT") && !may("UPDATE") && !may("DELETE"), "can be written by the application");
        return Ok(faults);
    }
    let Some(wall) = wall else {
        must(false, "is no table of ours");
        return Ok(faults);
    };
    must(row.flag("forced")?, "is without forced row level security");
    let policy = wall.reach.policy();
    let policies = row.optional_text("policies")?.unwrap_or_default();
    must(policies == format!("wall * t t {policy} {policy}"), &format!("has another policy than ours: {policies}"));
    let triggers = row.optional_text("triggers")?.unwrap_or_default();
    let has = |trigger: &str| triggers.split(' ').any(|known| known == trigger);
    if !wall.may_change {
        must(!may("UPDATE"), "can be changed by the application");
        must(has("never_change"), "has lost the trigger never_change");
    }
    if !wall.may_vanish {
        must(!may("DELETE"), "can be deleted from by the application");
        must(has("never_empty"), "has lost the trigger never_empty");
    }
    Ok(faults)
}

/// Holds the triggers of a SQLite file against the steps that built it.
pub(crate) async fn check_file(
    database: &Database,
    place: &str,
    steps: &[Migration],
) -> Result<Vec<WallFinding>, StoreError> {
    const TRIGGERS: &str = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'";
    let mut found = BTreeMap::new();
    for row in database.fetch_all(TRIGGERS, values![]).await? {
        found.insert(row.text("name")?, row.text("sql")?);
    }
    let mut faults = Vec::new();
    for (name, text) in triggers_of(steps) {
        match found.remove(name) {
            None => faults.push(format!("the trigger {name} is not there")),
            Some(sql) if text.starts_with(&sql) => {}
            Some(_) => faults.push(format!("the trigger {name} is another one than ours")),
        }
    }
    faults.extend(found.keys().map(|stranger| format!("the trigger {stranger} is none of ours")));
    Ok(faults.into_iter().map(|what| WallFinding { place: place.to_owned(), what }).collect())
}

/// The triggers that these steps make: name, and the script from there on.
fn triggers_of(steps: &[Migration]) -> BTreeMap<&'static str, &'static str> {
    const CREATE: &str = "CREATE TRIGGER ";
    const DROP: &str = "DROP TRIGGER ";
    let name_of = |text: &'static str| text.split([' ', '\n', ';']).next().unwrap_or(text);
    let mut triggers = BTreeMap::new();
    for step in steps {
        for (at, _) in step.script.match_indices("TRIGGER ") {
            let (before, after) = (&step.script[..at], &step.script[at + "TRIGGER ".len()..]);
            if before.ends_with(CREATE.trim_end_matches("TRIGGER ")) {
                triggers.insert(name_of(after), &step.script[at - (CREATE.len() - "TRIGGER ".len())..]);
            } else if before.ends_with(DROP.trim_end_matches("TRIGGER ")) {
                triggers.remove(name_of(after));
            }
        }
    }
    triggers
}

/// Nothing found, or the error that keeps a store from opening.
pub(crate) fn must_stand(findings: Vec<WallFinding>) -> Result<(), StoreError> {
    if findings.is_empty() { Ok(()) } else { Err(StoreError::WallsDown { findings }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate;

    #[test]
    fn every_table_of_a_step_has_its_wall() {
        for steps in [migrate::CONTROL.postgres, migrate::TENANT.postgres] {
            let walls = walls_of(steps);
            for step in steps {
                for table in step.script.split("CREATE TABLE ").skip(1) {
                    let name = table.split([' ', '(']).next().unwrap();
                    assert!(walls.contains_key(name), "{name} has no wall");
                }
            }
        }
        let control = walls_of(migrate::CONTROL.postgres);
        let ledger = &control["usage_events"];
        assert!(!ledger.may_change && !ledger.may_vanish);
        assert_eq!(control["tenants"].reach, Reach::Control { tenant_column: "id".to_owned() });
        let versions = &walls_of(migrate::TENANT.postgres)["versions"];
        assert!(!versions.may_change && versions.may_vanish);
    }

    #[test]
    fn triggers_are_found_in_steps() {
        let triggers = triggers_of(migrate::CONTROL.sqlite);
        assert!(triggers["usage_events_never_change"].starts_with("CREATE TRIGGER usage_events_never_change BEFORE"));
    }
}
