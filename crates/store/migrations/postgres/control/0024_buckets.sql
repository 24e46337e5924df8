-- The bucket of a tenant's own in which its blobs are; none for the one that tenants share.
ALTER TABLE tenants ADD COLUMN bucket TEXT COLLATE "C";
-- While blobs move, and until the next start when that is cut short: the bucket that is not the tenant's. Empty for the
-- one that tenants share.
ALTER TABLE tenants ADD COLUMN bucket_leftover TEXT COLLATE "C";
CREATE UNIQUE INDEX tenants_buckets ON tenants (bucket) WHERE bucket IS NOT NULL AND erased_at IS NULL;

-- Says since when blobs are in a bucket; without a row they are in the data folder.
CREATE TABLE blob_home (
    one BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    set_at BIGINT NOT NULL
);

SELECT pg_temp.operator_table('blob_home');
