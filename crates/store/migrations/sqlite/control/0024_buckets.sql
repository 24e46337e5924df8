-- The bucket of a tenant's own in which its blobs are; none for the one that tenants share.
ALTER TABLE tenants ADD COLUMN bucket TEXT;
-- While blobs move, and until the next start when that is cut short: the bucket that is not the tenant's. Empty for the
-- one that tenants share.
ALTER TABLE tenants ADD COLUMN bucket_leftover TEXT;
CREATE UNIQUE INDEX tenants_buckets ON tenants (bucket) WHERE bucket IS NOT NULL AND erased_at IS NULL;

-- Says since when blobs are in a bucket; without a row they are in the data folder.
CREATE TABLE blob_home (
    one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1),
    set_at INTEGER NOT NULL
) STRICT;
