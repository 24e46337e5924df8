-- The database's statistics on a column are samples of its values, and outlive the rows: none of names and addresses.
ALTER TABLE keys ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE projects ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE users ALTER COLUMN email SET STATISTICS 0;
ALTER TABLE users ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE service_accounts ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE invites ALTER COLUMN email SET STATISTICS 0;
ALTER TABLE tenants ALTER COLUMN name SET STATISTICS 0;
