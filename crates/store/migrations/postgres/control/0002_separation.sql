-- Where a tenant's rows are, and where a move that has begun is taking them.
ALTER TABLE tenants ADD COLUMN separation TEXT NOT NULL DEFAULT 'pooled'
    CHECK (separation IN ('pooled', 'schema', 'database'));
ALTER TABLE tenants ADD COLUMN moving_to TEXT CHECK (moving_to IN ('pooled', 'schema', 'database'));
