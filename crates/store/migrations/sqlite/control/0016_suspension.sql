-- Since when a tenant may do nothing; its data stays.
ALTER TABLE tenants ADD COLUMN suspended_at INTEGER;
