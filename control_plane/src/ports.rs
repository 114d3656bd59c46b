//! Choosing TCP ports that are free.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Error, Result};

/// Below the ports that systems hand out to outgoing connections (Linux: from 32768), so that a
/// port chosen now is still free after a restart.
const RANGE: std::ops::Range<u16> = 15_000..32_000;
const ATTEMPTS_MAX: usize = 1_000;

/// A port of the loopback address on which nobody listens, other than those `taken` by servers
/// that are not running now. Random, so that two who choose at once choose differently.
pub(crate) fn choose(taken: &[u16]) -> Result<u16> {
    for _ in 0..ATTEMPTS_MAX {
        let port = rand::random_range(RANGE);
        if !taken.contains(&port) && is_free(port) {
            return Ok(port);
        }
    }
    Err(Error::Environment(format!(
        "found no free port between {} and {} in {ATTEMPTS_MAX} attempts; name one with --port",
        RANGE.start, RANGE.end
    )))
}

/// Whether a server could listen on `port` of the loopback address now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_chosen_port_can_be_listened_on() {
        let port = choose(&[]).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(!is_free(port));
        drop(listener);
    }
}
