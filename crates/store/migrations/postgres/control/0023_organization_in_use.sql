-- Every tenant has a project from its beginning, which bears the tenant's own digits: what names no project belongs to
-- it. Usage says for which project and for whom. An invite has a secret, kept as keys are, and says who came of it.

ALTER TABLE usage_events ADD COLUMN project_id TEXT COLLATE "C";
ALTER TABLE usage_events ADD COLUMN user_id TEXT COLLATE "C";

-- Nothing has ever been in it.
DROP TABLE invites;
CREATE TABLE invites (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    id TEXT COLLATE "C" NOT NULL,
    public_id TEXT COLLATE "C" NOT NULL UNIQUE,
    secret_hash BYTEA NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    -- The projects that the person will belong to, and as what: [{"id", "role"}].
    projects TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    accepted_at BIGINT,
    user_id TEXT COLLATE "C",
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);

SELECT pg_temp.control_table('invites');

CREATE INDEX project_users_of_user ON project_users (tenant_id, user_id);

INSERT INTO projects (tenant_id, id, name, created_at)
    SELECT id, 'proj_' || substr(id, 5), 'Default project', created_at FROM tenants WHERE deleted_at IS NULL;
UPDATE keys SET project_id = 'proj_' || substr(tenant_id, 5)
    WHERE role IN ('member', 'service') AND project_id IS NULL
    AND tenant_id IN (SELECT id FROM tenants WHERE deleted_at IS NULL);
