//! `Queues`: the jobs of a pool that no process has, and who may take which.
//!
//! Requests come first. Work ahead of demand is done by idle processes only, and by all but one of
//! them at most, so that a request finds a process that waits for nothing else than it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender, TryRecvError};
use crossbeam::select;

use crate::job::Job;

/// Jobs that go to one process together: they were asked for together, are neighbours mostly, and wake
/// a process once.
pub type Group = Vec<Job>;

/// Jobs that wait.
pub struct Queues {
    /// Requests; disconnected when the pool is dropped.
    requests: Receiver<Group>,
    /// Work ahead of demand.
    ahead: Receiver<Group>,
    /// What dead processes left behind.
    again: (Sender<Group>, Receiver<Group>),
    /// Requests that were the oldest ones of processes which died: each is run alone.
    suspects: (Sender<Group>, Receiver<Group>),
    /// Drivers that wait for a job.
    idle: AtomicUsize,
    /// How many may work ahead of demand at the moment.
    permits: Arc<AtomicUsize>,
}

/// What came of waiting for a job.
pub enum Waited {
    /// Jobs for one process, at least one.
    Jobs(Group),
    /// Nothing, for a while.
    Nothing,
    /// The pool is being dropped.
    Stopped,
}

/// That one more process works ahead of demand; ends when it is dropped.
pub struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Queues {
    /// The queues of a pool of so many processes.
    pub fn new(requests: Receiver<Group>, ahead: Receiver<Group>, processes: usize) -> Queues {
        let permits = Arc::new(AtomicUsize::new(processes.saturating_sub(1).max(1)));
        let (again, suspects) = (channel::unbounded(), channel::unbounded());
        Queues { requests, ahead, again, suspects, idle: AtomicUsize::new(0), permits }
    }

    /// Whether more requests wait than drivers do.
    pub fn is_behind(&self) -> bool {
        self.requests.len() > self.idle.load(Ordering::SeqCst)
    }

    /// A job of a process that has died goes to whichever process is free.
    pub fn put_back(&self, job: Job) {
        let queue = if job.deaths > 0 { &self.suspects.0 } else { &self.again.0 };
        // Never disconnected, for both ends are in `self`.
        let _ = queue.send(vec![job]);
    }

    /// Waits for the first jobs of an idle process, for `patience` at most.
    pub fn wait(&self, patience: Duration) -> Waited {
        for queue in [&self.suspects.1, &self.again.1, &self.requests] {
            match queue.try_recv() {
                Ok(jobs) => return Waited::Jobs(jobs),
                Err(TryRecvError::Disconnected) => return Waited::Stopped,
                Err(TryRecvError::Empty) => {}
            }
        }
        let (permit, nothing) = (self.permit(), channel::never());
        let ahead = if permit.is_some() { &self.ahead } else { &nothing };
        self.idle.fetch_add(1, Ordering::SeqCst);
        let waited = select! {
            recv(self.requests) -> jobs => jobs.map_or(Waited::Stopped, Waited::Jobs),
            recv(self.again.1) -> jobs => jobs.map_or(Waited::Stopped, Waited::Jobs),
            recv(self.suspects.1) -> jobs => jobs.map_or(Waited::Stopped, Waited::Jobs),
            recv(ahead) -> jobs => match jobs {
                Ok(mut jobs) => {
                    // As long as the last of them is worked on.
                    if let Some(last) = jobs.last_mut() {
                        last.ahead = permit;
                    }
                    Waited::Jobs(jobs)
                }
                Err(_) => Waited::Stopped,
            },
            default(patience) => Waited::Nothing,
        };
        self.idle.fetch_sub(1, Ordering::SeqCst);
        waited
    }

    /// Jobs to be put behind others that a process has, if there should be any.
    pub fn further(&self) -> Option<Group> {
        if let Ok(jobs) = self.again.1.try_recv() {
            return Some(jobs);
        }
        // What an idle process can begin at once should not wait behind our process's work.
        if self.is_behind() { self.requests.try_recv().ok() } else { None }
    }

    /// Any jobs, for one who cannot do them.
    pub fn any(&self) -> Option<Group> {
        let queues = [&self.suspects.1, &self.again.1, &self.requests, &self.ahead];
        queues.into_iter().find_map(|queue| queue.try_recv().ok())
    }

    fn permit(&self) -> Option<Permit> {
        let take = |permits: usize| permits.checked_sub(1);
        let taken = self.permits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        taken.is_ok().then(|| Permit(self.permits.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use postgres_formats::{BlockNumber, PageImage};

    use super::*;
    use crate::pending::PendingRedo;
    use crate::request::MaskKind;

    fn job(block: u32) -> Job {
        let (answer, _) = PendingRedo::new();
        Job::mask(MaskKind::PageHeader, BlockNumber(block), &PageImage::zeroed(), answer)
    }

    fn queues(processes: usize) -> (Sender<Group>, Sender<Group>, Queues) {
        let (requests, requested) = channel::unbounded();
        let (ahead, wished) = channel::unbounded();
        (requests, ahead, Queues::new(requested, wished, processes))
    }

    fn next(queues: &Queues) -> Option<Job> {
        match queues.wait(Duration::ZERO) {
            Waited::Jobs(mut jobs) => {
                assert_eq!(jobs.len(), 1);
                jobs.pop()
            }
            Waited::Nothing => None,
            Waited::Stopped => panic!("stopped"),
        }
    }

    fn next_block(queues: &Queues) -> Option<u32> {
        next(queues).map(|job| job.block.0)
    }

    #[test]
    fn requests_come_before_work_ahead_of_demand() {
        let (requests, ahead, queues) = queues(1);
        ahead.send(vec![job(1)]).unwrap();
        requests.send(vec![job(2)]).unwrap();
        requests.send(vec![job(3)]).unwrap();
        queues.put_back(Job { deaths: 1, ..job(4) });
        queues.put_back(job(5));
        // Behind others goes neither what has to be alone nor what can wait.
        assert_eq!(queues.further().unwrap()[0].block.0, 5);
        assert_eq!(queues.further().unwrap()[0].block.0, 2);
        queues.put_back(job(6));
        assert_eq!(
            [(); 5].map(|()| next_block(&queues)),
            [Some(4), Some(6), Some(3), Some(1), None]
        );
        ahead.send(vec![job(7)]).unwrap();
        assert!(queues.further().is_none());
    }

    #[test]
    fn work_ahead_of_demand_leaves_a_process_free() {
        for (processes, at_once) in [(1, 1), (2, 1), (4, 3)] {
            let (requests, ahead, queues) = queues(processes);
            (0..9).for_each(|n| ahead.send(vec![job(n)]).unwrap());
            let mut taken: Vec<Job> = std::iter::from_fn(|| next(&queues)).collect();
            assert_eq!(taken.len(), at_once);
            requests.send(vec![job(10)]).unwrap();
            assert_eq!(next_block(&queues), Some(10));
            assert!(next(&queues).is_none());
            taken.pop();
            assert_eq!(next_block(&queues), Some(at_once as u32));
        }
    }

    #[test]
    fn waiting_ends_with_the_pool() {
        let (requests, _ahead, queues) = queues(2);
        drop(requests);
        assert!(matches!(queues.wait(Duration::MAX), Waited::Stopped));
    }
}
