-- What belongs to tenants: in one schema for those that share it, in a schema or a database of its own for others.

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Only erase_rows sets this, and only the owner can get here: the application may not delete such rows at all.
    IF TG_OP = 'DELETE' AND current_setting('app.erasing', true) = OLD.tenant_id THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
END
$$;

-- Removes every row of the transaction's own tenant, the audit trail included, unless the tenant still lives here.
CREATE FUNCTION erase_rows() RETURNS BIGINT LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
    erased CONSTANT TEXT := NULLIF(current_setting('app.tenant', true), '');
    lives_here BOOLEAN;
    walled REGCLASS;
    removed BIGINT;
    total BIGINT := 0;
BEGIN
    IF erased IS NULL THEN
        RAISE EXCEPTION 'no tenant is set';
    END IF;
    IF current_schema() = 'atelier_tenants' AND to_regclass('atelier.tenants') IS NOT NULL THEN
        SELECT EXISTS (SELECT FROM atelier.tenants
            WHERE id = erased AND deleted_at IS NULL AND separation = 'pooled') INTO lives_here;
        IF lives_here THEN
            RAISE EXCEPTION 'the tenant lives';
        END IF;
    END IF;
    PERFORM set_config('app.erasing', erased, true);
    SET CONSTRAINTS ALL DEFERRED;
    FOR walled IN
        SELECT pg_class.oid FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r' AND attname = 'tenant_id'
    LOOP
        EXECUTE format('DELETE FROM %s WHERE tenant_id = $1', walled) USING erased;
        GET DIAGNOSTICS removed = ROW_COUNT;
        total := total + removed;
    END LOOP;
    SET CONSTRAINTS ALL IMMEDIATE;
    PERFORM set_config('app.erasing', '', true);
    RETURN total;
END
$$;

DO $$
BEGIN
    REVOKE ALL ON FUNCTION erase_rows() FROM PUBLIC;
    EXECUTE format('GRANT EXECUTE ON FUNCTION erase_rows() TO %I', current_setting('atelier.app_role'));
END
$$;

CREATE TABLE sources (
    tenant_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    origin TEXT NOT NULL,
    digest TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

SELECT pg_temp.tenant_table('sources');

CREATE TABLE runs (
    tenant_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    job_id TEXT COLLATE "C" NOT NULL,
    -- Not a foreign key: a finished run outlives its source.
    source_id TEXT COLLATE "C" NOT NULL,
    suffix TEXT NOT NULL,
    state TEXT NOT NULL,
    options TEXT NOT NULL,
    progress_stage TEXT,
    progress_done BIGINT,
    progress_total BIGINT,
    version BIGINT,
    result TEXT,
    error_code TEXT,
    error_message TEXT,
    cancel_requested BIGINT NOT NULL DEFAULT 0,
    idempotency_key TEXT COLLATE "C",
    created_by TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    finished_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, idempotency_key)
);

CREATE INDEX runs_open ON runs (tenant_id, source_id) WHERE state IN ('queued', 'running');
SELECT pg_temp.tenant_table('runs');

CREATE TABLE run_events (
    tenant_id TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, run_id, sequence),
    FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id)
);

SELECT pg_temp.tenant_table('run_events');

CREATE TABLE jobs (
    tenant_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    run_id TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    due_at BIGINT NOT NULL,
    attempt BIGINT NOT NULL DEFAULT 0,
    failures BIGINT NOT NULL DEFAULT 0,
    crashes BIGINT NOT NULL DEFAULT 0,
    lease_token BYTEA,
    lease_until BIGINT,
    checkpoint TEXT,
    created_at BIGINT NOT NULL,
    finished_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, run_id),
    FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id)
);

CREATE INDEX jobs_open ON jobs (tenant_id, due_at) WHERE state IN ('queued', 'running');
SELECT pg_temp.tenant_table('jobs');

CREATE TABLE versions (
    tenant_id TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    suffix TEXT NOT NULL,
    digest TEXT NOT NULL,
    base_digest TEXT NOT NULL,
    parent BIGINT,
    run_id TEXT COLLATE "C" NOT NULL,
    source_id TEXT COLLATE "C" NOT NULL,
    manifest TEXT NOT NULL,
    eval TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, number),
    UNIQUE (tenant_id, run_id),
    FOREIGN KEY (tenant_id, parent) REFERENCES versions (tenant_id, number),
    FOREIGN KEY (tenant_id, run_id) REFERENCES runs (tenant_id, id)
);

-- A version never changes; what is live does.
SELECT pg_temp.tenant_table('versions');
SELECT pg_temp.immutable('versions');

CREATE TABLE aliases (
    tenant_id TEXT COLLATE "C" NOT NULL,
    name TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    moved_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name),
    FOREIGN KEY (tenant_id, number) REFERENCES versions (tenant_id, number)
);

SELECT pg_temp.tenant_table('aliases');

CREATE TABLE audit (
    tenant_id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    PRIMARY KEY (tenant_id, sequence)
);

SELECT pg_temp.tenant_table('audit');
SELECT pg_temp.append_only('audit');
