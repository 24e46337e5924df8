-- Each event has an id, says by whom in parts, and holds a hash over itself and the one before. What was written earlier
-- has no hash: the first event that has one binds it. Its ids come from a default, which row level security does not
-- keep from any row.
ALTER TABLE audit ADD COLUMN id TEXT COLLATE "C" NOT NULL
    DEFAULT 'audit_log-' || replace(CAST(gen_random_uuid() AS TEXT), '-', '');
ALTER TABLE audit ALTER COLUMN id DROP DEFAULT;
ALTER TABLE audit ADD COLUMN actor_key TEXT COLLATE "C";
ALTER TABLE audit ADD COLUMN actor_owner TEXT COLLATE "C";
ALTER TABLE audit ADD COLUMN project_id TEXT COLLATE "C";
ALTER TABLE audit ADD COLUMN hash TEXT;

CREATE UNIQUE INDEX audit_ids ON audit (tenant_id, id);
CREATE INDEX audit_by_time ON audit (tenant_id, at, sequence);
