//! What the committer, the readers and the hashing pool see of the mesh.

use super::{Announced, Mesh, Reply};
use crossbeam::channel::Sender;
use starling_codec::{Announcement, Answer, Origin};
use starling_engine::route::Route;
use starling_storage::{Announcer, Answers};
use std::sync::Arc;

/// Takes each commit apart: one entry for each shard that it concerns.
pub struct MeshAnnouncer {
    mesh: Arc<Mesh>,
    route: Route,
    /// By shard, emptied by every announcement.
    parts: Box<[Announced]>,
    alarm: Sender<String>,
}

impl MeshAnnouncer {
    /// `alarm` hears why the store failed, should it fail.
    pub fn new(mesh: Arc<Mesh>, alarm: Sender<String>) -> MeshAnnouncer {
        MeshAnnouncer {
            route: Route::even(mesh.shards()),
            parts: (0..mesh.shards()).map(|_| Announced::default()).collect(),
            mesh,
            alarm,
        }
    }
}

impl Announcer for MeshAnnouncer {
    /// Senders wait for it, and its disk waits as well.
    fn begins(&mut self) {
        crate::priority::answer_soon();
    }

    fn announce(&mut self, announcement: Announcement) {
        for (origin, outcome) in announcement.outcomes {
            self.parts[usize::from(origin.shard)].outcomes.push((origin.key, outcome));
        }
        for delivery in announcement.deliveries {
            let home = self.route.owner_of(delivery.user);
            self.parts[usize::from(home)].deliveries.push(delivery);
        }
        for (part, port) in self.parts.iter_mut().zip(self.mesh.ports()) {
            if port.announcements.announce(std::mem::take(part)) {
                port.doorbell.ring();
            }
        }
    }

    fn resting(&mut self) {
        crate::memory::give_back_of_thread();
    }

    fn poisoned(&mut self, reason: &str) {
        // Only a process that is ending no longer listens.
        let _ = self.alarm.send(reason.to_owned());
    }
}

/// Takes the answers of reader threads to the shards that asked.
///
/// As repliers of the mesh the readers follow the threads of the hashing pool.
pub struct MeshAnswers {
    pub mesh: Arc<Mesh>,
    pub first_replier: usize,
}

impl Answers for MeshAnswers {
    fn answer(&self, reader: usize, origin: Origin, answer: Answer) {
        let replier = self.first_replier + reader;
        self.mesh.reply(replier, origin.shard, Reply::Answer(origin.key, answer));
    }

    fn resting(&self) {
        crate::memory::give_back_of_thread();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use starling_codec::{Delivery, Outcome, UserId, wire::Event};

    #[test]
    fn a_commit_is_one_entry_for_each_shard_it_concerns() {
        let mesh = Arc::new(Mesh::new(3, 16, 0).unwrap());
        let route = Route::even(3);
        let user_of =
            |shard| (1..).map(UserId).find(|&user| route.owner_of(user) == shard).unwrap();
        let delivery = |shard| Delivery {
            user: user_of(shard),
            events: vec![Event { seq: 1, epoch: 1, ..Event::default() }],
        };
        let (alarm, alarmed) = crossbeam::channel::unbounded();
        let mut announcer = MeshAnnouncer::new(Arc::clone(&mesh), alarm);
        announcer.announce(Announcement {
            outcomes: vec![
                (Origin { shard: 2, key: 5 }, Outcome::Done),
                (Origin { shard: 2, key: 4 }, Outcome::Done),
            ],
            deliveries: vec![delivery(0), delivery(2)],
        });
        let popped = |shard| mesh.port(shard).announcements.pop();
        assert_eq!(popped(0).unwrap().deliveries, [delivery(0)]);
        assert_eq!(popped(1), None);
        let both = popped(2).unwrap();
        assert_eq!(both.outcomes, [(5, Outcome::Done), (4, Outcome::Done)]);
        assert_eq!(both.deliveries, [delivery(2)]);
        assert_eq!((popped(0), popped(2)), (None, None));

        announcer.poisoned("the disk is gone");
        assert_eq!(alarmed.try_recv().as_deref(), Ok("the disk is gone"));
    }
}
