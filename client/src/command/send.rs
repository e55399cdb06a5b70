//! `send`: one message, and its receipt.

use super::{
    failure::Failure,
    json::Line,
    profile::Context,
    terminal::{Ink, Terminal},
};
use crate::{Outgoing, Peer, SendError};
use std::time::Duration;

/// How long to wait for an acknowledgement, over reconnects, before the command gives the
/// terminal back. The message is kept.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context,
    terminal: &mut Terminal,
    name: &str,
    text: &str,
) -> Result<(), Failure> {
    let online = context.connect().await?;
    terminal.speak_for(&online.identity);
    let resolved = online.client.resolve(name);
    let resolved = tokio::time::timeout(PATIENCE, resolved).await;
    // Nothing is in the outbox yet, so the command may simply be typed again.
    let user = resolved
        .unwrap_or(Err(crate::RequestError::Lost))
        .map_err(|error| Failure::request(error, name))?;
    let sending = online.client.post(Outgoing::text(Peer::User(user), text)).await;
    let sending = sending.map_err(|error| Failure::send(SendError::Queue(error), name))?;
    let receipt = match tokio::time::timeout(PATIENCE, sending).await {
        Ok(answer) => answer.map_err(|error| Failure::send(error, name))?,
        Err(_) => return Err(Failure::kept()),
    };
    terminal.print(&Line::sent(&receipt), |terminal| {
        let tick = terminal.paint(Ink::Good, "✓");
        format!("{tick} kept as message {} with {name}", receipt.seq)
    })?;
    terminal.flush()?;
    online.finish(terminal).await
}
