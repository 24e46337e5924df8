-- Each event has an id, says by whom in parts, has a place in its chain, one for each tenant and one for the
-- installation, and holds a hash over itself and the one before. What was written earlier has no hash: the first event
-- that has one binds it.
ALTER TABLE operator_audit ADD COLUMN id TEXT COLLATE "C" NOT NULL
    DEFAULT 'audit_log-' || replace(CAST(gen_random_uuid() AS TEXT), '-', '');
ALTER TABLE operator_audit ALTER COLUMN id DROP DEFAULT;
ALTER TABLE operator_audit ADD COLUMN actor_key TEXT COLLATE "C";
ALTER TABLE operator_audit ADD COLUMN actor_owner TEXT COLLATE "C";
ALTER TABLE operator_audit ADD COLUMN project_id TEXT COLLATE "C";
ALTER TABLE operator_audit ADD COLUMN chain_sequence BIGINT;
ALTER TABLE operator_audit ADD COLUMN hash TEXT;

CREATE UNIQUE INDEX operator_audit_ids ON operator_audit (id);
CREATE UNIQUE INDEX operator_audit_chains ON operator_audit ((COALESCE(tenant_id, '')), chain_sequence);
CREATE INDEX operator_audit_in_order ON operator_audit ((COALESCE(tenant_id, '')), sequence);
CREATE INDEX operator_audit_by_time ON operator_audit (tenant_id, at, sequence);

-- Where each chain ends: those above, and those that lie in tenants' places, which follow after the commit there.
CREATE TABLE audit_heads (
    chain TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    tenant_id TEXT COLLATE "C",
    sequence BIGINT NOT NULL,
    hash TEXT NOT NULL
);

INSERT INTO audit_heads (chain, tenant_id, sequence, hash) VALUES ('operator', NULL, 0, repeat('0', 64));
INSERT INTO audit_heads (chain, tenant_id, sequence, hash)
    SELECT kind || ' ' || id, id, 0, repeat('0', 64) FROM tenants, (VALUES ('administration'), ('work')) AS kinds (kind);
SELECT pg_temp.control_table('audit_heads');
