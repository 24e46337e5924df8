//! atelier-platform
