-- Where a tenant's rows are; and, of a tenant that is being moved, the place that is not yet or no longer its own:
-- whatever is there is removed when the move ends or, had it no end, when the store is next opened.
ALTER TABLE tenants ADD COLUMN separation TEXT NOT NULL DEFAULT 'pooled'
    CHECK (separation IN ('pooled', 'schema', 'database'));
ALTER TABLE tenants ADD COLUMN leftover TEXT CHECK (leftover IN ('pooled', 'schema', 'database'));
