-- The control database: who there is, what they used, and which tenants have work waiting.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

CREATE TABLE tenants (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    plan TEXT NOT NULL,
    cache_salt BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    deleted_at BIGINT,
    -- Null while rows or files of a deleted tenant may still be there.
    erased_at BIGINT
);

-- A deleted tenant's name may be taken again.
CREATE UNIQUE INDEX tenants_living_name ON tenants (name) WHERE deleted_at IS NULL;
SELECT pg_temp.control_table('tenants', 'id');

CREATE TABLE keys (
    id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    public_id TEXT COLLATE "C" NOT NULL UNIQUE,
    tenant_id TEXT COLLATE "C" REFERENCES tenants (id),
    role TEXT NOT NULL,
    secret_hash BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    revoked_at BIGINT,
    CHECK ((role = 'operator') = (tenant_id IS NULL))
);

CREATE INDEX keys_of_tenant ON keys (tenant_id, created_at);
SELECT pg_temp.control_table('keys');

-- Where a claim looks first. Only an index of the tenants' jobs tables: rebuilt whenever the store is opened.
CREATE TABLE job_hints (
    tenant_id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    due_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, job_id)
);

CREATE INDEX job_hints_due ON job_hints (due_at);
SELECT pg_temp.control_table('job_hints');

-- The ledger: rows are added, never changed. A request's reservation is written before its first token, its
-- settlement after the last; corrections are further rows.
CREATE TABLE usage_events (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('reservation', 'settlement', 'correction')),
    request_id TEXT COLLATE "C" NOT NULL,
    tenant_id TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C",
    model TEXT COLLATE "C" NOT NULL,
    plan TEXT NOT NULL,
    -- When the request was accepted: the time that all its rows are reported under.
    accepted_at BIGINT NOT NULL,
    written_at BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    input_cached_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    -- Micro-units for a million tokens, as agreed when the request was accepted.
    price_input BIGINT NOT NULL,
    price_input_cached BIGINT NOT NULL,
    price_output BIGINT NOT NULL,
    -- Micro-units.
    cost BIGINT NOT NULL,
    outcome TEXT,
    reason TEXT
);

CREATE UNIQUE INDEX usage_events_once ON usage_events (request_id, kind) WHERE kind <> 'correction';
CREATE INDEX usage_events_of_tenant ON usage_events (tenant_id, accepted_at);
SELECT pg_temp.control_table('usage_events');
SELECT pg_temp.append_only('usage_events');

-- Requests that are reserved and not settled, with the tokens known so far. Scratch, not ledger: a row goes when its
-- request is settled, and what is left at the next start is settled from here.
CREATE TABLE usage_open (
    request_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    input_tokens BIGINT NOT NULL,
    input_cached_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL
);

SELECT pg_temp.operator_table('usage_open');

CREATE TABLE operator_audit (
    sequence BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    tenant_id TEXT COLLATE "C",
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
);

SELECT pg_temp.control_table('operator_audit');
SELECT pg_temp.append_only('operator_audit');
