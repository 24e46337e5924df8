-- Where a tenant's rows are. Here that is a file, always, and nothing moves.
ALTER TABLE tenants ADD COLUMN separation TEXT NOT NULL DEFAULT 'file' CHECK (separation = 'file');
ALTER TABLE tenants ADD COLUMN leftover TEXT;
