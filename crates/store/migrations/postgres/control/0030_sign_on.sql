-- Single sign-on: which issuer a tenant trusts, who its people are to it, and what signing in gives them: keys for a
-- purpose, and codes by which a program fetches one.

CREATE TABLE sign_on (
    tenant_id TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES tenants (id),
    issuer TEXT COLLATE "C" NOT NULL,
    client_id TEXT NOT NULL,
    -- Sealed for this issuer and this client; null for a client without one.
    client_secret TEXT,
    -- Domains of addresses whose people come uninvited, with a comma between; empty when nobody does.
    domains TEXT NOT NULL,
    -- What those become.
    role TEXT NOT NULL,
    changed_at BIGINT NOT NULL
);
SELECT pg_temp.control_table('sign_on');

-- Who an issuer's subject is. Both are keyed hashes: they are only ever looked for.
CREATE TABLE identities (
    tenant_id TEXT COLLATE "C" NOT NULL,
    issuer TEXT COLLATE "C" NOT NULL,
    subject TEXT COLLATE "C" NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    linked_at BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, issuer, subject),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);

-- An issuer gives a person one subject.
CREATE UNIQUE INDEX identities_of_user ON identities (tenant_id, user_id, issuer);
SELECT pg_temp.control_table('identities');

CREATE TABLE sign_in_codes (
    tenant_id TEXT COLLATE "C" NOT NULL,
    public_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    secret_hash BYTEA NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    -- What the program that began it shows the preimage of.
    challenge TEXT NOT NULL,
    expires_at BIGINT NOT NULL,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);

CREATE INDEX sign_in_codes_of_tenant ON sign_in_codes (tenant_id, expires_at);
SELECT pg_temp.control_table('sign_in_codes');

ALTER TABLE keys ADD COLUMN purpose TEXT NOT NULL DEFAULT 'key';
