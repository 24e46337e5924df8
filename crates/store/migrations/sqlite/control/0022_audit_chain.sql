-- Each event has an id, says by whom in parts, has a place in its chain, one for each tenant and one for the
-- installation, and holds a hash over itself and the one before. What was written earlier has no hash: the first event
-- that has one binds it.
ALTER TABLE operator_audit ADD COLUMN id TEXT;
UPDATE operator_audit SET id = 'audit_log-' || lower(hex(randomblob(16)));
ALTER TABLE operator_audit ADD COLUMN actor_key TEXT;
ALTER TABLE operator_audit ADD COLUMN actor_owner TEXT;
ALTER TABLE operator_audit ADD COLUMN project_id TEXT;
ALTER TABLE operator_audit ADD COLUMN chain_sequence INTEGER;
ALTER TABLE operator_audit ADD COLUMN hash TEXT;

CREATE UNIQUE INDEX operator_audit_ids ON operator_audit (id);
CREATE UNIQUE INDEX operator_audit_chains ON operator_audit (COALESCE(tenant_id, ''), chain_sequence);
CREATE INDEX operator_audit_in_order ON operator_audit (COALESCE(tenant_id, ''), sequence);
CREATE INDEX operator_audit_by_time ON operator_audit (tenant_id, at, sequence);

CREATE TRIGGER operator_audit_never_changes BEFORE UPDATE ON operator_audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;

CREATE TRIGGER operator_audit_never_vanishes BEFORE DELETE ON operator_audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;

-- Where each chain ends: those above, and those that lie in tenants' places, which follow after the commit there.
CREATE TABLE audit_heads (
    chain TEXT NOT NULL PRIMARY KEY,
    tenant_id TEXT,
    sequence INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;

INSERT INTO audit_heads (chain, tenant_id, sequence, hash)
    SELECT 'operator', NULL, 0, lower(hex(zeroblob(32)));
INSERT INTO audit_heads (chain, tenant_id, sequence, hash)
    SELECT kind || ' ' || id, id, 0, lower(hex(zeroblob(32)))
    FROM tenants, (SELECT 'administration' AS kind UNION ALL SELECT 'work');
