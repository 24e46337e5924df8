//! The store through its public functions, on every database that it knows.

mod world;

mod attacks;
mod audit;
mod buckets;
mod cancellation;
mod damage;
mod drift;
mod encryption;
mod erasing;
mod files;
mod folder;
mod isolation;
mod jobs;
mod keys;
mod learning;
mod models;
mod moves;
mod organization;
mod plain;
mod postgres;
mod psql;
mod s3_server;
mod sign_on;
mod tenants;
mod usage;
mod walls;
