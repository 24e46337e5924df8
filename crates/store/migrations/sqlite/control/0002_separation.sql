-- Where a tenant's rows are, and where a move that has begun is taking them. Here that is a file, always.
ALTER TABLE tenants ADD COLUMN separation TEXT NOT NULL DEFAULT 'file' CHECK (separation = 'file');
ALTER TABLE tenants ADD COLUMN moving_to TEXT;
