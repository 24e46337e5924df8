-- The control database: who there is, what they used, and which tenants have work waiting.

CREATE TABLE tenants (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    plan TEXT NOT NULL,
    cache_salt BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    deleted_at INTEGER,
    -- Null while files of a deleted tenant may still be there.
    erased_at INTEGER
) STRICT;

-- A deleted tenant's name may be taken again.
CREATE UNIQUE INDEX tenants_living_name ON tenants (name) WHERE deleted_at IS NULL;

CREATE TABLE keys (
    id TEXT NOT NULL PRIMARY KEY,
    public_id TEXT NOT NULL UNIQUE,
    tenant_id TEXT REFERENCES tenants (id),
    role TEXT NOT NULL,
    secret_hash BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER,
    revoked_at INTEGER,
    CHECK ((role = 'operator') = (tenant_id IS NULL))
) STRICT;

CREATE INDEX keys_of_tenant ON keys (tenant_id, created_at);

-- Where a claim looks first. Only an index of the tenants' jobs tables: rebuilt whenever the store is opened.
CREATE TABLE job_hints (
    tenant_id TEXT NOT NULL,
    job_id TEXT NOT NULL,
    due_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, job_id)
) STRICT;

CREATE INDEX job_hints_due ON job_hints (due_at);

-- The ledger: rows are added, never changed. A request's reservation is written before its first token, its
-- settlement after the last; corrections are further rows.
CREATE TABLE usage_events (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('reservation', 'settlement', 'correction')),
    request_id TEXT NOT NULL,
    tenant_id TEXT NOT NULL,
    key_id TEXT,
    model TEXT NOT NULL,
    plan TEXT NOT NULL,
    -- When the request was accepted: the time that all its rows are reported under.
    accepted_at INTEGER NOT NULL,
    written_at INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    input_cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    -- Micro-units for a million tokens, as agreed when the request was accepted.
    price_input INTEGER NOT NULL,
    price_input_cached INTEGER NOT NULL,
    price_output INTEGER NOT NULL,
    -- Micro-units.
    cost INTEGER NOT NULL,
    outcome TEXT,
    reason TEXT
) STRICT;

CREATE UNIQUE INDEX usage_events_once ON usage_events (request_id, kind) WHERE kind <> 'correction';
CREATE INDEX usage_events_of_tenant ON usage_events (tenant_id, accepted_at);

CREATE TRIGGER usage_events_never_change BEFORE UPDATE ON usage_events
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

CREATE TRIGGER usage_events_never_vanish BEFORE DELETE ON usage_events
BEGIN
    SELECT RAISE(ABORT, 'the ledger is append-only');
END;

-- Requests that are reserved and not settled, with the tokens known so far. Scratch, not ledger: a row goes when its
-- request is settled, and what is left at the next start is settled from here.
CREATE TABLE usage_open (
    request_id TEXT NOT NULL PRIMARY KEY,
    input_tokens INTEGER NOT NULL,
    input_cached_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL
) STRICT;

CREATE TABLE operator_audit (
    sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant_id TEXT,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
