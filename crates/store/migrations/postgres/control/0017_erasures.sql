-- Certificates of tenants that were erased: what was there, counted before it was removed. Written with the decision,
-- finished with the last step.
CREATE TABLE erasures (
    tenant_id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    requested_by TEXT NOT NULL,
    requested_at BIGINT NOT NULL,
    -- Null until it was counted: {"sources": 3, …}.
    removed TEXT,
    completed_at BIGINT
);

CREATE INDEX erasures_by_time ON erasures (requested_at, tenant_id);
SELECT pg_temp.control_table('erasures');
