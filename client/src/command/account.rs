//! `register`, `login`, `logout` and `passwd`.

use super::{
    failure::Failure,
    json::Line,
    next,
    profile::{Context, Profile},
    terminal::Terminal,
};
use crate::{Identity, account, codec::limits};
use std::{
    env,
    io::{ErrorKind, IsTerminal},
};
use tokio::signal::unix::{SignalKind, signal};

const PASSWORD: &str = "STARLING_PASSWORD";
const NEW_PASSWORD: &str = "STARLING_NEW_PASSWORD";

pub(super) async fn register(
    context: &Context,
    terminal: &mut Terminal,
    name: &str,
) -> Result<(), Failure> {
    let mut profile = context.open()?;
    if let Some(known) = logged_in(&profile) {
        return Err(taken(&known));
    }
    let password = new_password(PASSWORD, "Password: ")?;
    let identity = account::register(&context.server, &mut profile.store, name, &password)
        .await
        .map_err(|error| Failure::call(error, name))?;
    greet(&profile, terminal, &identity)
}

pub(super) async fn login(
    context: &Context,
    terminal: &mut Terminal,
    name: &str,
) -> Result<(), Failure> {
    let mut profile = context.open()?;
    if let Some(known) = logged_in(&profile).filter(|known| !known.is_called(name)) {
        return Err(taken(&known));
    }
    let password = password(PASSWORD, "Password: ")?;
    let identity = account::login(&context.server, &mut profile.store, name, &password)
        .await
        .map_err(|error| Failure::call(error, name))?;
    greet(&profile, terminal, &identity)
}

pub(super) async fn logout(context: &Context, terminal: &mut Terminal) -> Result<(), Failure> {
    let online = context.connect().await?;
    terminal.speak_for(&online.identity);
    let name = online.identity.name.clone();
    online.client.logout().await.map_err(|error| Failure::request(error, &name))?;
    online.client.close().await;
    let line = Line::Done { action: "logout" };
    let login = next::command(format_args!("login {name}"));
    terminal.print(&line, |_| format!("{name} is logged out here. Next: {login}"))?;
    terminal.flush()
}

pub(super) async fn passwd(context: &Context, terminal: &mut Terminal) -> Result<(), Failure> {
    let (profile, identity) = context.open_logged_in()?;
    let old = password(PASSWORD, "Old password: ")?;
    let new = new_password(NEW_PASSWORD, "New password: ")?;
    let online = context.connect_profile(profile, identity).await?;
    terminal.speak_for(&online.identity);
    let name = online.identity.name.clone();
    let changed = online.client.change_password(&old, &new).await;
    changed.map_err(|error| match Failure::request(error, &name) {
        Failure::Refused { refusal, .. }
            if refusal.code() == Some(crate::codec::ErrorCode::WrongPassword) =>
        {
            let passwd = next::command("passwd");
            let line = format!("that is not your password: type `{passwd}` to try again");
            Failure::Refused { refusal, line }
        }
        failure => failure,
    })?;
    let line = Line::Done { action: "passwd" };
    let told = "The password is changed; your other devices are logged out.";
    terminal.print(&line, |_| told.to_owned())?;
    terminal.flush()?;
    online.finish(terminal).await
}

fn logged_in(profile: &Profile) -> Option<Identity> {
    profile.identity.clone().filter(Identity::is_logged_in)
}

fn taken(known: &Identity) -> Failure {
    Failure::Usage(format!(
        "this profile is logged in as {}: type `{}` first, or name another folder with --profile \
         DIR",
        known.name,
        next::command("logout")
    ))
}

fn greet(profile: &Profile, terminal: &mut Terminal, identity: &Identity) -> Result<(), Failure> {
    profile.journal.keep_name(identity.user, &identity.name)?;
    let line = Line::account(identity);
    terminal.print(&line, |_| {
        let (name, device) = (&identity.name, identity.device);
        format!("{name} is logged in (device {device}). Next: {}", next::command("chat NAME"))
    })?;
    terminal.flush()
}

/// From the environment, or asked for.
fn password(variable: &str, prompt: &str) -> Result<String, Failure> {
    if let Ok(password) = env::var(variable) {
        return Ok(password);
    }
    let unasked =
        || Failure::Usage(format!("there is no terminal to ask for a password on: set {variable}"));
    if !std::io::stdin().is_terminal() {
        return Err(unasked());
    }
    // At Ctrl-C the prompt raises the signal before it gives the terminal its echo back: nobody may
    // die of that. Once the password is there, Ctrl-C ends the command again.
    let mut interrupts = signal(SignalKind::interrupt()).map_err(|_| unasked())?;
    let password = rpassword::prompt_password(prompt).map_err(|error| match error.kind() {
        ErrorKind::Interrupted => Failure::Interrupted,
        _ => unasked(),
    })?;
    tokio::spawn(async move {
        interrupts.recv().await;
        std::process::exit(super::INTERRUPTED.into());
    });
    Ok(password)
}

/// A password that is to be remembered is asked for twice.
fn new_password(variable: &str, prompt: &str) -> Result<String, Failure> {
    let chosen = password(variable, prompt)?;
    if !(limits::MIN_PASSWORD_BYTES..=limits::MAX_PASSWORD_BYTES).contains(&chosen.len()) {
        return Err(Failure::Usage(format!(
            "a password has {} to {} bytes: type the command again with another",
            limits::MIN_PASSWORD_BYTES,
            limits::MAX_PASSWORD_BYTES
        )));
    }
    if env::var_os(variable).is_none() && password(variable, "Once more: ")? != chosen {
        return Err(Failure::Usage("the two passwords differ: type the command again".to_owned()));
    }
    Ok(chosen)
}
