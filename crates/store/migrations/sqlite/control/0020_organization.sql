-- Who there is inside a tenant, and what a key may be: its name, scopes, project, holder and end.

CREATE TABLE projects (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    archived_at INTEGER,
    PRIMARY KEY (tenant_id, id)
) STRICT;

CREATE TABLE users (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    email TEXT NOT NULL,
    name TEXT,
    role TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    removed_at INTEGER,
    PRIMARY KEY (tenant_id, id)
) STRICT;

CREATE UNIQUE INDEX users_present_email ON users (tenant_id, email) WHERE removed_at IS NULL;

CREATE TABLE project_users (
    tenant_id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL,
    added_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, project_id, user_id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
) STRICT;

CREATE TABLE service_accounts (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    project_id TEXT NOT NULL,
    name TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    removed_at INTEGER,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id)
) STRICT;

CREATE INDEX service_accounts_of_project ON service_accounts (tenant_id, project_id);

CREATE TABLE invites (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    id TEXT NOT NULL,
    email TEXT NOT NULL,
    role TEXT NOT NULL,
    -- The projects that the person will belong to, and as what: [{"id", "role"}].
    projects TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    accepted_at INTEGER,
    deleted_at INTEGER,
    PRIMARY KEY (tenant_id, id)
) STRICT;

-- Made anew, because a foreign key cannot be added to a table that is there.
CREATE TABLE keys_with_owners (
    id TEXT NOT NULL PRIMARY KEY,
    public_id TEXT NOT NULL UNIQUE,
    tenant_id TEXT REFERENCES tenants (id),
    name TEXT,
    role TEXT NOT NULL,
    -- Null: all that the role may.
    scopes TEXT,
    project_id TEXT,
    user_id TEXT,
    service_account_id TEXT,
    secret_hash BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    last_used_at INTEGER,
    revoked_at INTEGER,
    CHECK ((role = 'operator') = (tenant_id IS NULL)),
    CHECK (tenant_id IS NOT NULL OR (project_id IS NULL AND user_id IS NULL AND service_account_id IS NULL)),
    CHECK (user_id IS NULL OR service_account_id IS NULL),
    FOREIGN KEY (tenant_id, project_id) REFERENCES projects (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    FOREIGN KEY (tenant_id, service_account_id) REFERENCES service_accounts (tenant_id, id)
) STRICT;

INSERT INTO keys_with_owners (id, public_id, tenant_id, role, secret_hash, created_at, last_used_at, revoked_at)
    SELECT id, public_id, tenant_id, role, secret_hash, created_at, last_used_at, revoked_at FROM keys;
DROP TABLE keys;
ALTER TABLE keys_with_owners RENAME TO keys;

CREATE INDEX keys_of_tenant ON keys (tenant_id, created_at);
CREATE INDEX keys_of_project ON keys (tenant_id, project_id) WHERE project_id IS NOT NULL;
CREATE INDEX keys_of_user ON keys (tenant_id, user_id) WHERE user_id IS NOT NULL;

-- Counts the changes after which a key may do less than before: whoever remembers keys looks here whether they still
-- are what they were. One row, which says nothing about anybody.
CREATE TABLE key_changes (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL
) STRICT;

INSERT INTO key_changes (one, epoch) VALUES (1, 0);
