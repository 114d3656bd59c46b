//! Clusters, page servers and lazily filled copies for the tests.

#![allow(dead_code, reason = "each test uses its part")]

pub mod cluster;
pub mod page_server;
pub mod stubs;

#[allow(unused_imports, reason = "as above")]
pub use cluster::{Cluster, Server};
