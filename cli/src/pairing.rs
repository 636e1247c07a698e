//! `kith invite` and `kith join`.

use crate::argument::Mounting;
use crate::failure::Failure;
use crate::running::{client, make_sure};
use crate::screen::{
    BUSY, DIM, GOOD, STRONG, clock, complain, is_terminal, plain, say, say_json, several, waiting,
};
use anstyle::{AnsiColor, Color, Style};
use kith_control::interrupt::on_interrupt;
use kith_control::pairing::{Invitation, InviteLine, Join};
use kith_daemon::paths::Paths;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// The colours of a QR code.
const PAPER: Style =
    AnsiColor::Black.on_default().bg_color(Some(Color::Ansi(AnsiColor::BrightWhite)));
/// What a link to an invitation begins with.
const SCHEME: &str = "kith:";
/// How many addresses a QR code carries: each makes it larger.
const LINK_ADDRESSES: usize = 3;

/// `kith invite`.
pub(crate) fn invite(paths: &Paths, json: bool) -> Result<(), Failure> {
    let lines = client(paths).invite()?;
    // Ending the process closes the answer, which withdraws the code.
    let withdrawn = Failure::new("Nobody joined: the code is withdrawn", "");
    on_interrupt(move || {
        withdrawn.tell(json);
        std::process::exit(1);
    })
    .map_err(|error| Failure::new(format!("signals cannot be received: {error}"), ""))?;
    for line in lines {
        match line? {
            InviteLine::Code(invitation) if json => say_json(&invitation),
            InviteLine::Code(invitation) => present(&invitation),
            InviteLine::WrongGuess { guesses_left } => complain(&format!(
                "{BUSY}Somebody tried a wrong code.{BUSY:#} {} left.",
                several(guesses_left.into(), "attempt")
            )),
            InviteLine::Joined { joined } => {
                if json {
                    say_json(&InviteLine::Joined { joined });
                } else {
                    say(&format!("{GOOD}{} has joined.{GOOD:#}", plain(&joined.name)));
                }
                return Ok(());
            }
            InviteLine::Failed { error, hint } => return Err(Failure::new(error, hint)),
        }
    }
    Err(Failure::new("Kith went away before anybody joined", "Invite again."))
}

fn present(invitation: &Invitation) {
    let code = plain(&invitation.code);
    say(&format!("\n    {STRONG}{code}{STRONG:#}\n"));
    if is_terminal()
        && let Ok(picture) = QrCode::new(link(invitation))
    {
        // In its own colours, so that it can be read on a dark terminal too.
        for line in picture.render::<Dense1x2>().build().lines() {
            say(&format!("    {PAPER}{line}{PAPER:#}"));
        }
        say("");
    }
    say(&format!("On the other device:  kith join {code}"));
    if let Some(address) = invitation.addresses.first() {
        let address = plain(address);
        say(&format!(
            "{DIM}If it does not find this one:  kith join {code} --addr {address}{DIM:#}"
        ));
    }
    let until = invitation.expires.map(|at| format!(" until {}", clock(at))).unwrap_or_default();
    say(&format!("\n{DIM}Waiting{until}. Ctrl-C withdraws the code.{DIM:#}"));
}

/// The code, and where to find the device that shows it, in a form that `join` takes too.
fn link(invitation: &Invitation) -> String {
    // An address with a zone means nothing on another device.
    let addresses = invitation.addresses.iter().filter(|address| !address.contains('%'));
    let mut link = format!("{SCHEME}{}", invitation.code);
    for (at, address) in addresses.take(LINK_ADDRESSES).enumerate() {
        link.push(if at == 0 { '?' } else { '&' });
        link.push_str("addr=");
        link.push_str(address);
    }
    link
}

/// What to join, from a code or a link.
fn read_code(text: &str, addresses: &[String]) -> Join {
    let text = text.trim();
    let Some(link) = text.strip_prefix(SCHEME) else {
        return Join { code: text.to_owned(), addresses: addresses.to_vec() };
    };
    let (code, query) = link.split_once('?').unwrap_or((link, ""));
    let linked = query.split('&').filter_map(|pair| pair.strip_prefix("addr="));
    // What a person typed counts first.
    let addresses = addresses.iter().cloned().chain(linked.map(str::to_owned)).collect();
    Join { code: code.to_owned(), addresses }
}

/// `kith join`.
pub(crate) fn join(
    paths: &Paths,
    code: &str,
    addresses: &[String],
    json: bool,
) -> Result<(), Failure> {
    let join = read_code(code, addresses);
    make_sure(paths, &Mounting::default(), json)?;
    let wait = waiting("Looking for the other device", json);
    let joined = client(paths).join(&join);
    wait.finish_and_clear();
    let joined = joined?;
    if json {
        say_json(&joined);
        return Ok(());
    }
    say(&format!("{GOOD}Joined {}.{GOOD:#}", plain(&joined.device.name)));
    if let Some(mount) = &joined.mount {
        say(&format!("Your folder is {STRONG}{}{STRONG:#}", plain(mount)));
    }
    say(&format!(
        "{DIM}Names are there at once, bytes arrive by and by: `kith status --watch` shows it.{DIM:#}"
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_to_what_it_was_made_from() {
        let addresses = ["192.0.2.1:5484", "[fe80::1%eth0]:5484", "[2001:db8::1]:5484"];
        let invitation = Invitation {
            code: "7-mango-elephant".into(),
            addresses: addresses.map(str::to_owned).to_vec(),
            expires: None,
        };
        let link = link(&invitation);
        assert_eq!(link, "kith:7-mango-elephant?addr=192.0.2.1:5484&addr=[2001:db8::1]:5484");
        let join = read_code(&link, &["nas:1".into()]);
        assert_eq!(join.code, "7-mango-elephant");
        assert_eq!(join.addresses, ["nas:1", "192.0.2.1:5484", "[2001:db8::1]:5484"]);
    }

    #[test]
    fn a_code_is_taken_as_it_is() {
        let join = read_code(" 7-mango-elephant ", &[]);
        assert_eq!(join, Join { code: "7-mango-elephant".into(), addresses: Vec::new() });
        assert_eq!(read_code("kith:7-a-b", &[]).code, "7-a-b");
    }
}
