-- Who there is inside a tenant, and what a key may be: its name, scopes, project, holder and end.

CREATE TABLE projects (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    archived_at BIGINT,
    PRIMARY KEY (tenant_id, id)
);

SELECT pg_temp.control_table('projects');

CREATE TABLE users (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    id TEXT COLLATE "C" NOT NULL,
    email TEXT NOT NULL,
    name TEXT,
    role TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    removed_at BIGINT,
    PRIMARY KEY (tenant_id, id)
);

CREATE UNIQUE INDEX users_present_email ON users (tenant_id, email) WHERE removed_at IS NULL;
SELECT pg_temp.control_table('users');

CREATE TABLE project_users (
    tenant_id TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    role TEXT NOT NULL,
    added_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, project_id, user_id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);

SELECT pg_temp.control_table('project_users');

CREATE TABLE service_accounts (
    tenant_id TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    project_id TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    removed_at BIGINT,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id)
);

CREATE INDEX service_accounts_of_project ON service_accounts (tenant_id, project_id);
SELECT pg_temp.control_table('service_accounts');

CREATE TABLE invites (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    id TEXT COLLATE "C" NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    -- The projects that the person will belong to, and as what: [{"id", "role"}].
    projects TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    accepted_at BIGINT,
    deleted_at BIGINT,
    PRIMARY KEY (tenant_id, id)
);

SELECT pg_temp.control_table('invites');

ALTER TABLE keys ADD COLUMN name TEXT;
-- Null: all that the role may.
ALTER TABLE keys ADD COLUMN scopes TEXT;
ALTER TABLE keys ADD COLUMN project_id TEXT COLLATE "C";
ALTER TABLE keys ADD COLUMN user_id TEXT COLLATE "C";
ALTER TABLE keys ADD COLUMN service_account_id TEXT COLLATE "C";
ALTER TABLE keys ADD COLUMN expires_at BIGINT;
ALTER TABLE keys ADD CHECK
    (tenant_id IS NOT NULL OR (project_id IS NULL AND user_id IS NULL AND service_account_id IS NULL));
ALTER TABLE keys ADD CHECK (user_id IS NULL OR service_account_id IS NULL);
ALTER TABLE keys ADD FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id);
ALTER TABLE keys ADD FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id);
ALTER TABLE keys ADD FOREIGN KEY (tenant_id, service_account_id) REFERENCES service_accounts (tenant_id, id);

CREATE INDEX keys_of_project ON keys (tenant_id, project_id) WHERE project_id IS NOT NULL;
CREATE INDEX keys_of_user ON keys (tenant_id, user_id) WHERE user_id IS NOT NULL;
SELECT pg_temp.control_table('keys');

-- Counts the changes after which a key may do less than before: whoever remembers keys looks here whether they still
-- are what they were. One row, which says nothing about anybody: every scope may read and raise it.
CREATE TABLE key_changes (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch BIGINT NOT NULL
);

INSERT INTO key_changes (one, epoch) VALUES (1, 0);
SELECT pg_temp.common_table('key_changes');
