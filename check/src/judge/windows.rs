//! Whether the send windows that a device was told agree with each other, and with what is
//! stored.

use super::Judge;
use crate::{
    Property,
    devices::{Device, Told},
    messages::NO_MESSAGE,
    sends::{Answer, NO_SEND},
};
use starling_codec::{SendNo, SendWindow, Standing};

/// Most numbers above a window that are looked at: no device has more without an answer.
const MOST_UNANSWERED: u64 = 1_024;

impl Judge {
    pub(super) fn judge_windows(&mut self) {
        for number in 0..self.devices.list.len() as u32 {
            let windows = std::mem::take(&mut self.devices.list[number as usize].windows);
            for (at, told) in windows.iter().enumerate() {
                if let Some(before) = at.checked_sub(1).map(|before| &windows[before]) {
                    self.judge_pair(before, told);
                }
                let top = self.devices.list[number as usize].top_send_no;
                let highest = told.window.highest().0;
                let lowest = highest.saturating_sub(SendWindow::WIDTH).max(1);
                for send_no in lowest..=top.clamp(highest, highest + MOST_UNANSWERED) {
                    self.judge_number(number, told, SendNo(send_no));
                }
            }
        }
    }

    /// What was applied stays applied, but for what was lost.
    fn judge_pair(&mut self, before: &Told, after: &Told) {
        let (earlier, later) = (self.ages.rank(before.opening), self.ages.rank(after.opening));
        if self.ages.lossy_between(earlier, later) {
            return;
        }
        let highest = before.window.highest().0;
        let numbers = highest.saturating_sub(SendWindow::WIDTH).max(1)..=highest;
        let taken_back = numbers.map(SendNo).find(|send_no| {
            before.window.standing(*send_no) == Standing::Applied
                && after.window.standing(*send_no) == Standing::New
        });
        if let Some(send_no) = taken_back {
            self.violations.add(Property::Window, [before.position, after.position], || {
                format!("send {send_no} was applied, and then not")
            });
        }
    }

    /// What a window says of a number against what is stored under it.
    fn judge_number(&mut self, device: u32, told: &Told, send_no: SendNo) {
        let Some(numbered) = self.sends.numbered(device, send_no) else { return };
        let send = (numbered.send != NO_SEND).then(|| self.sends.list[numbered.send as usize]);
        let device = &self.devices.list[device as usize];
        match told.window.standing(send_no) {
            Standing::Stale => {}
            Standing::New => {
                if numbered.message == NO_MESSAGE || self.excuses(numbered.message) {
                    return;
                }
                let told_of = self.messages[numbered.message as usize].position;
                let in_earlier_epoch = self.rank(numbered.message) < self.ages.rank(told.opening);
                // Within an epoch only the device's own lines say what came first.
                let answered_before = send.filter(|send| {
                    matches!(send.answer, Answer::Sent { .. })
                        && !numbered.ambiguous
                        && send.answered_at.file() == told.position.file()
                        && send.answered_at < told.position
                });
                let evidence = match answered_before {
                    Some(send) => send.answered_at,
                    None if in_earlier_epoch => told_of,
                    None => return,
                };
                self.violations.add(Property::Window, [evidence, told.position], || {
                    format!("send {send_no} is stored, and the window says that it is not")
                });
            }
            Standing::Applied => {
                let written = send.and_then(|send| send.written).filter(|_| !numbered.ambiguous);
                let nothing_is_stored = numbered.message == NO_MESSAGE
                    && send.is_some_and(|send| send.message == NO_MESSAGE);
                if let Some(written) = written
                    && nothing_is_stored
                    && let Some(settled) = settled_in_newest(device, told, self)
                {
                    let evidence = [written.position, told.position, settled];
                    self.violations.add(Property::Window, evidence, || {
                        format!("the window says that send {send_no} is stored, and it is not")
                    });
                }
            }
        }
    }
}

/// Where the device said that it is done, if nothing can have been lost after the window.
fn settled_in_newest(device: &Device, told: &Told, judge: &Judge) -> Option<crate::Position> {
    let is_newest = judge.ages.rank(told.opening) == judge.ages.newest();
    device.settled().filter(|_| device.whole && is_newest).map(|settled| settled.position)
}
