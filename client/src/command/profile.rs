//! The device that a command speaks for.

use super::{failure::Failure, terminal::Terminal};
use crate::{
    Client, ClientSettings, EntryState, Events, Identity, Journal, SqliteStore, Store, text_of,
};
use std::{path::PathBuf, time::Duration};

/// How long a command waits for what it or earlier ones left in the outbox.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a command finds its server and its profile.
#[derive(Debug)]
pub(super) struct Context {
    pub server: String,
    /// As it was given.
    pub folder: Option<PathBuf>,
}

/// A profile that this process owns.
pub(super) struct Profile {
    pub store: SqliteStore,
    pub journal: Journal,
    pub identity: Option<Identity>,
}

/// A profile whose session is live.
pub(super) struct Online {
    pub client: Client,
    pub events: Events,
    pub journal: Journal,
    pub identity: Identity,
}

impl Context {
    fn folder(&self) -> Result<PathBuf, Failure> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        match directories::ProjectDirs::from("", "", "starling") {
            Some(folders) => Ok(folders.data_dir().join("profile")),
            None => Err(Failure::Usage(
                "you have no home directory: name a folder with --profile DIR".to_owned(),
            )),
        }
    }

    pub fn open(&self) -> Result<Profile, Failure> {
        let folder = self.folder()?;
        let mut store = SqliteStore::open(&folder)?;
        let journal = Journal::open(&folder)?;
        let identity = store.load()?.identity;
        Ok(Profile { store, journal, identity })
    }

    /// Opens the profile of somebody who is logged in.
    pub fn open_logged_in(&self) -> Result<(Profile, Identity), Failure> {
        let profile = self.open()?;
        match profile.identity.clone().filter(Identity::is_logged_in) {
            Some(identity) => Ok((profile, identity)),
            None => Err(Failure::NotLoggedIn),
        }
    }

    /// Connects the profile.
    pub async fn connect(&self) -> Result<Online, Failure> {
        let (profile, identity) = self.open_logged_in()?;
        self.connect_profile(profile, identity).await
    }

    pub async fn connect_profile(
        &self,
        profile: Profile,
        identity: Identity,
    ) -> Result<Online, Failure> {
        let program = concat!("starling/", env!("CARGO_PKG_VERSION")).to_owned();
        let settings = ClientSettings { program, ..ClientSettings::default() };
        let (client, events) = Client::connect(&self.server, profile.store, settings)
            .await
            .map_err(|error| Failure::connect(error, &identity.name))?;
        profile.journal.keep_name(identity.user, &identity.name)?;
        Ok(Online { client, events, journal: profile.journal, identity })
    }
}

impl Online {
    /// Lets the outbox run empty, and goes offline.
    pub async fn finish(self, terminal: &mut Terminal) -> Result<(), Failure> {
        self.flush().await;
        self.close(terminal).await
    }

    /// Waits for the answers of the outbox, within bounds: what is not answered by then is kept
    /// for the next command.
    pub async fn flush(&self) {
        let _ = tokio::time::timeout(FLUSH_TIMEOUT, self.client.flushed()).await;
    }

    /// Says what could not be sent, and goes offline.
    pub async fn close(self, terminal: &mut Terminal) -> Result<(), Failure> {
        report_unsent(&self.client, terminal).await?;
        self.client.close().await;
        Ok(())
    }
}

/// Shows messages that went back to the app, and forgets them: whoever wrote them decides.
pub(super) async fn report_unsent(client: &Client, terminal: &mut Terminal) -> Result<(), Failure> {
    for entry in client.outbox().await {
        if let EntryState::Unsent(why) = entry.state {
            terminal.unsent(&entry, why, text_of(&entry.message.content).as_deref())?;
            client.discard(entry.nonce).await;
        }
    }
    Ok(())
}
