-- What tenants' data is sealed with. The root key itself is kept elsewhere; here is how the right one is known.
CREATE TABLE root_key (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    fingerprint BLOB NOT NULL,
    set_at INTEGER NOT NULL
) STRICT;

-- Every tenant's keys, wrapped with the root key. Those of a deleted tenant are destroyed: the rows stay, without them.
CREATE TABLE data_keys (
    tenant_id TEXT NOT NULL REFERENCES tenants (id),
    generation INTEGER NOT NULL,
    -- Whether what was stored before this key may still be there as it was. The wrap is bound to it.
    state TEXT NOT NULL CHECK (state IN ('sealing', 'sealed')),
    wrapped BLOB,
    created_at INTEGER NOT NULL,
    destroyed_at INTEGER,
    PRIMARY KEY (tenant_id, generation),
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
) STRICT;
