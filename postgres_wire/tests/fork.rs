//! The client in forked processes, as in PostgreSQL backends. Alone in its program, for a child of
//! a process with many threads may do little.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use postgres_wire::client::{ConnectParams, Connection};
use support::{TestServer, timeouts};

/// What the child does; gives its exit status.
fn child(params: &ConnectParams, inherited: Connection) -> i32 {
    drop(inherited);
    let asked = || {
        let mut connection = Connection::connect(params, timeouts())?;
        let rows = connection.simple_query("rows 3")?.len();
        let mut copy = connection.copy_both("reflect")?;
        copy.send(&[b"page"])?;
        let answer = copy.recv()?;
        Ok::<_, postgres_wire::client::ClientError>((rows, answer))
    };
    match asked() {
        Ok((3, Some(answer))) if answer == "<page>" => 0,
        _ => 1,
    }
}

#[test]
fn a_child_connects_for_itself_and_leaves_its_parents_connection_alone() {
    let server = TestServer::start();
    let mut ours = server.connect();
    let params = server.unix_params();
    for _ in 0..5 {
        let inherited = server.connect();
        // SAFETY: the child uses nothing that another thread could have locked but the allocator,
        // which the C library makes usable after a fork; and it ends without running destructors.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let status = child(&params, inherited);
                // SAFETY: ends the process at once.
                unsafe { libc::_exit(status) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                // The child has dropped its copy; ours still works.
                let mut inherited = inherited;
                assert_eq!(inherited.simple_query("rows 2").unwrap().len(), 2);
            }
        }
    }
    assert_eq!(ours.simple_query("rows 1").unwrap().len(), 1);
}
