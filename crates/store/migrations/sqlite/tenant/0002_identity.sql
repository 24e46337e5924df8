-- Whose file this is: one that was put in another tenant's place is refused.
CREATE TABLE tenant_identity (
    tenant_id TEXT NOT NULL PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TRIGGER tenant_identity_never_changes BEFORE UPDATE ON tenant_identity
BEGIN
    SELECT RAISE(ABORT, 'a file is one tenant''s');
END;
