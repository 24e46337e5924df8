//! The store through its public functions, on every database that it knows.

mod world;

mod attacks;
mod audit;
mod buckets;
mod cancellation;
mod drift;
mod encryption;
mod erasing;
mod folder;
mod isolation;
mod jobs;
mod keys;
mod learning;
mod models;
mod moves;
mod plain;
mod postgres;
mod psql;
mod s3_server;
mod tenants;
mod usage;
mod walls;
