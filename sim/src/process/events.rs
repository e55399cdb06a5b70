//! What a session tells its app: the witness hears all of it.

use super::{Doing, Process};
use crate::{coverage::Branch, stage::Stage, witness::Witness};
use starling_client::{Change, Event, RequestError, StopReason, Store, Unsent};
use starling_codec::{ErrorCode, history::At};

impl Process {
    /// Takes what the session tells. Says why it ended, if it did.
    pub(super) fn take_events(
        &mut self,
        stage: &mut Stage,
        witness: &mut Witness,
    ) -> Option<StopReason> {
        self.note_written(stage, witness);
        let Doing::Runs(session) = &mut self.doing else { return None };
        let at = self.at?;
        let own = session.identity().map_or(at, |own| At { user: own.user, device: own.device });
        if self.profile.take_refreshed() {
            stage.coverage.reach(Branch::TokenRefreshed);
        }
        if let Some(place) = self.profile.take_kept() {
            witness.kept(at, place);
        }
        let mut stopped = None;
        while let Some(event) = session.poll_event() {
            stage.tell(|| format!("{}.{}: {event:?}", at.user, at.device));
            match event {
                Event::Online(online) => {
                    let unanswered = session.unanswered() > 0;
                    if unanswered {
                        stage.coverage.reach(Branch::ResumedInDoubt);
                    }
                    witness.online(at, &online, self.welcome.as_ref());
                    self.guesses = 0;
                    stage.note("online", &[self.number as u64]);
                }
                Event::Stopped(reason) => stopped = Some(reason),
                Event::Answered { request_id, result } => {
                    if !self.asked.remove(&request_id) {
                        let words = format!("request {request_id} of {at:?} was answered twice");
                        witness.complaints.push(words);
                    }
                    if result == Err(RequestError::Lost) {
                        stage.coverage.reach(Branch::RequestLost);
                    }
                    if let Ok(answer) = &result {
                        witness.answered(stage, at, answer);
                    }
                }
                Event::Offline { why, .. } => {
                    if why.and_then(|why| why.code()) == Some(ErrorCode::LoggedOut) {
                        stage.coverage.reach(Branch::LoggedOut);
                    }
                    witness.offline(at);
                }
                event => witness.told(stage, at, own, event),
            }
        }
        stopped
    }

    /// Messages that got a number, or another one. Whatever becomes of this profile, its backup may
    /// have them.
    pub(super) fn note_written(&self, stage: &mut Stage, witness: &mut Witness) {
        for entry in self.profile.take_written() {
            let own = self.profile.look(|store| {
                let own = store.saved().identity.as_ref();
                own.map(|own| At { user: own.user, device: own.device })
            });
            if let Some(own) = own {
                witness.wrote(stage, own, &entry);
            }
        }
    }

    pub(super) fn stopped(&mut self, stage: &mut Stage, reason: StopReason) {
        stage.note("session stopped", &[self.number as u64]);
        stage.tell(|| format!("process {} stopped: {reason}", self.number));
        let wait_us = stage.random.around(1_000_000);
        self.doing = Doing::Off { until_us: stage.now_us + wait_us };
        match reason {
            StopReason::Replaced { .. } => {
                stage.coverage.reach(Branch::Replaced);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                }
            }
            StopReason::LoginNeeded(_) => {
                stage.coverage.reach(Branch::TokenRevoked);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                } else {
                    self.forget_token();
                }
            }
            StopReason::LoggedOut => {
                stage.coverage.reach(Branch::LoggedOut);
                if self.copy_of.is_some() {
                    self.doing = Doing::Gone;
                }
            }
            StopReason::Store(_) => stage.coverage.reach(Branch::StoreFailed),
            StopReason::Closed | StopReason::NotLoggedIn | StopReason::Version => {}
        }
        if !self.is_gone() {
            self.wake_at(stage, stage.now_us + wait_us);
        }
    }

    /// The user is to log in anew.
    fn forget_token(&mut self) {
        // This store fails only when it is told to, and then the old token is refused again.
        let _ = self.profile.clone().commit(&[Change::LoggedOut]);
    }
}

/// Why a message came back, as a branch.
pub fn branch_of(unsent: Unsent) -> Branch {
    match unsent {
        Unsent::Lost => Branch::MessageLost,
        Unsent::Stale => Branch::MessageStale,
    }
}
