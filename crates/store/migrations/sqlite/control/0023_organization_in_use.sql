-- Every tenant has a project from its beginning, which bears the tenant's own digits: what names no project belongs to
-- it. Usage says for which project and for whom. An invite has a secret, kept as keys are, and says who came of it.

ALTER TABLE usage_events ADD COLUMN project_id TEXT;
ALTER TABLE usage_events ADD COLUMN user_id TEXT;

-- Nothing has ever been in it.
DROP TABLE invites;
CREATE TABLE invites (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    public_id TEXT NOT NULL UNIQUE,
    secret_hash BLOB NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    -- The projects that the person will belong to, and as what: [{"id", "role"}].
    projects TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    accepted_at INTEGER,
    user_id TEXT,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
) STRICT;

CREATE INDEX project_users_of_user ON project_users (tenant_id, user_id);

INSERT INTO projects (tenant_id, id, name, created_at)
    SELECT id, 'proj_' || substr(id, 5), 'Default project', created_at FROM tenants WHERE deleted_at IS NULL;
UPDATE keys SET project_id = 'proj_' || substr(tenant_id, 5)
    WHERE role IN ('member', 'service') AND project_id IS NULL
    AND tenant_id IN (SELECT id FROM tenants WHERE deleted_at IS NULL);
