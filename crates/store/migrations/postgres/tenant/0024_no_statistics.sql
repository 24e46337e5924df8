-- The database's statistics on a column are samples of its values, and outlive the rows: none of suffixes.
ALTER TABLE runs ALTER COLUMN suffix SET STATISTICS 0;
ALTER TABLE versions ALTER COLUMN suffix SET STATISTICS 0;
