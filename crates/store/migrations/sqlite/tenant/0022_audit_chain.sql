-- Each event has an id, says by whom in parts, and holds a hash over itself and the one before. What was written earlier
-- has no hash: the first event that has one binds it.
ALTER TABLE audit ADD COLUMN id TEXT;
UPDATE audit SET id = 'audit_log-' || lower(hex(randomblob(16)));
ALTER TABLE audit ADD COLUMN actor_key TEXT;
ALTER TABLE audit ADD COLUMN actor_owner TEXT;
ALTER TABLE audit ADD COLUMN project_id TEXT;
ALTER TABLE audit ADD COLUMN hash TEXT;

CREATE UNIQUE INDEX audit_ids ON audit (tenant_id, id);
CREATE INDEX audit_by_time ON audit (tenant_id, at, sequence);

CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;

CREATE TRIGGER audit_never_vanishes BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit trail is append-only');
END;
