-- What tenants' data is sealed with. The root key itself is kept elsewhere; here is how the right one is known.
CREATE TABLE root_key (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    fingerprint BYTEA NOT NULL,
    set_at BIGINT NOT NULL
);

SELECT pg_temp.operator_table('root_key');

-- Every tenant's keys, wrapped with the root key. Those of a deleted tenant are destroyed: the rows stay, without them.
CREATE TABLE data_keys (
    tenant_id TEXT COLLATE "C" NOT NULL REFERENCES tenants (id),
    generation BIGINT NOT NULL,
    -- Whether what was stored before this key may still be there as it was. The wrap is bound to it.
    state TEXT NOT NULL CHECK (state IN ('sealing', 'sealed')),
    wrapped BYTEA,
    created_at BIGINT NOT NULL,
    destroyed_at BIGINT,
    PRIMARY KEY (tenant_id, generation),
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);

SELECT pg_temp.control_table('data_keys');
