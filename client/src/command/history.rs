//! `history`: the last messages with somebody.

use super::{
    failure::Failure,
    json::Line,
    listen::{message_line, name_of},
    profile::{Context, Online},
    terminal::Terminal,
};
use crate::{
    Page, Peer, RequestError,
    codec::{UserId, limits::MAX_HISTORY_PAGE, wire::Message},
};
use std::time::Duration;

/// How long one page may take, over reconnects.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(
    context: &Context,
    terminal: &mut Terminal,
    name: &str,
    limit: u32,
) -> Result<(), Failure> {
    let online = context.connect().await?;
    terminal.speak_for(&online.identity);
    let resolved = tokio::time::timeout(PATIENCE, online.client.resolve(name)).await;
    let user = resolved
        .unwrap_or(Err(RequestError::Lost))
        .map_err(|error| Failure::request(error, name))?;
    online.journal.keep_name(user, name)?;
    // What an interrupted command left is a part of the conversation for whoever wrote it.
    online.flush().await;
    for message in last_messages(&online, user, name, limit).await? {
        let sender = name_of(&online.client, &online.journal, UserId(message.sender)).await?;
        let own = message.sender == online.identity.user.0;
        terminal.print(&Line::message(&message, None), |terminal| {
            message_line(terminal, &message, &sender, own)
        })?;
    }
    terminal.flush()?;
    online.close(terminal).await
}

/// The newest `limit` messages with a user, oldest first.
pub(super) async fn last_messages(
    online: &Online,
    user: UserId,
    name: &str,
    limit: u32,
) -> Result<Vec<Message>, Failure> {
    let mut newest_first = Vec::new();
    let mut page = Page::Newest;
    loop {
        let missing = limit.saturating_sub(newest_first.len() as u32);
        if missing == 0 {
            break;
        }
        let asked = online.client.history(Peer::User(user), page, missing.min(MAX_HISTORY_PAGE));
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let answer = answer
            .unwrap_or(Err(RequestError::Lost))
            .map_err(|error| Failure::request(error, name))?;
        let Some(oldest) = answer.messages.first().map(|message| message.seq) else { break };
        newest_first.extend(answer.messages.into_iter().rev());
        if !answer.more {
            break;
        }
        page = Page::Before(oldest);
    }
    newest_first.reverse();
    Ok(newest_first)
}
