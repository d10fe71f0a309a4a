//! Keys and credentials: their formats, how they are hashed, sealed and kept out of sight.

pub mod credentials;
pub mod envelope;
pub mod hasher;
pub mod key;
mod kms;
mod local;
pub mod redact;
