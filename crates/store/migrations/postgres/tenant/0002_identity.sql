-- Whose place this is: a schema or a database that another tenant's rows were put into does not have the right row.
CREATE TABLE tenant_identity (
    tenant_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL
);

SELECT pg_temp.tenant_table('tenant_identity');
SELECT pg_temp.immutable('tenant_identity');
