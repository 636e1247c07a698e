//! Dialing: one task for each other member, which keeps trying while there is no link.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kith_core::id::DeviceId;
use quinn::{ClientConfig, Connection};
use tokio::time::{Instant, sleep, timeout};

use super::session;
use super::shared::Shared;
use crate::transport::close::{Close, explain};
use crate::transport::{endpoint, tls};

/// How long one round of dialing may take.
pub(crate) const ROUND: Duration = Duration::from_millis(2500);
/// How long the first addresses have before the next is tried beside them.
const STAGGER: Duration = Duration::from_millis(100);
/// The most addresses that are tried in a round.
const ADDRESSES_MAX: usize = 12;
/// The pause after the first failure; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The longest pause while a link was in use lately: a cable that is plugged in again is to be
/// noticed at once.
const PAUSE_RECENT: Duration = Duration::from_secs(1);
/// How long a link counts as in use lately.
const RECENT: Duration = Duration::from_secs(10 * 60);
/// How long a device that this one took in has to keep that and dial, before it is dialed.
const FIRST_CONTACT: Duration = Duration::from_millis(500);
/// How much later the device with the larger id dials, so that seldom both do at once.
const COURTESY: Duration = Duration::from_millis(250);

/// The pause before the next round after so many failures. `random` spreads it by a quarter.
fn pause(failures: u32, recent: bool, random: u8) -> Duration {
    let most = if recent { PAUSE_RECENT } else { PAUSE_MAX };
    let exponential = PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let pause = exponential.min(most);
    pause - pause.mul_f64(f64::from(random) / 1024.0)
}

/// Starts a task for each member that has none, whenever the circle changes.
pub(super) async fn dial_all(shared: Arc<Shared>) {
    let mut changes = shared.circle.subscribe();
    let mut tasks: BTreeMap<DeviceId, tokio::task::AbortHandle> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        tasks.retain(|_, task| !task.is_finished());
        for device in shared.circle.others() {
            tasks.entry(device).or_insert_with(|| {
                let (shared, mut closing) = (shared.clone(), shared.closing.subscribe());
                let task = shared.runtime.clone().spawn(async move {
                    tokio::select! {
                        _ = closing.wait_for(|closing| *closing) => {}
                        () = keep_dialing(shared, device) => {}
                    }
                });
                task.abort_handle()
            });
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Dials one member whenever there is no link to it, until it isn't a member any more.
async fn keep_dialing(shared: Arc<Shared>, device: DeviceId) {
    if shared.is_guest(device) {
        sleep(FIRST_CONTACT).await;
    }
    let config = match endpoint::member_client(&shared.identity, device) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("can't dial: {error}");
            return;
        }
    };
    let courtesy = if shared.identity.device() < device { Duration::ZERO } else { COURTESY };
    let mut links = shared.links_changed.subscribe();
    let mut wake = shared.wake.subscribe();
    let mut circle = shared.circle.subscribe();
    let mut last_link: Option<Instant> = None;
    let mut failures = 0;
    let mut told = String::new();
    loop {
        links.mark_unchanged();
        circle.mark_unchanged();
        if !shared.circle.contains(device) || shared.circle.is_removed(shared.identity.device()) {
            return;
        }
        if shared.links().is_linked(device) {
            last_link = Some(Instant::now());
            failures = 0;
            told.clear();
            tokio::select! {
                _ = links.changed() => {}
                _ = circle.changed() => {}
            }
            if !shared.links().is_linked(device) {
                last_link = Some(Instant::now());
                sleep(courtesy).await;
            }
            continue;
        }
        wake.mark_unchanged();
        let addresses = shared.candidates(device);
        let error = match dial_and_greet(&shared, &config, device, addresses).await {
            Ok(()) => continue,
            Err(error) => error,
        };
        failures += 1;
        if error != told {
            tracing::info!("can't reach {}: {error}", shared.circle.name_of(device));
            told = error;
        }
        let recent = last_link.is_some_and(|at| at.elapsed() < RECENT);
        let mut random = [0];
        // Without randomness the pause is merely not spread.
        let _ = getrandom::fill(&mut random);
        tokio::select! {
            () = sleep(pause(failures, recent, random[0])) => {}
            _ = links.changed() => {}
            _ = circle.changed() => failures = 0,
            _ = wake.changed() => {
                failures = 0;
                sleep(courtesy).await;
            }
        }
    }
}

/// Looks whether what announces itself as this device is another machine.
pub(super) async fn meet_twin(shared: Arc<Shared>) {
    let own = shared.identity.device();
    let Ok(config) = endpoint::member_client(&shared.identity, own) else { return };
    let addresses = shared.sightings().addresses_of(own);
    match dial(&shared, &config, addresses).await {
        Ok(connection) => session::meet_own_key(&shared, connection, true).await,
        // What a former start announced, and is gone.
        Err(error) => tracing::debug!("what announces this device doesn't answer: {error}"),
    }
}

/// Makes a link to a member. The error says why not, for people.
async fn dial_and_greet(
    shared: &Arc<Shared>,
    config: &ClientConfig,
    device: DeviceId,
    addresses: Vec<SocketAddr>,
) -> Result<(), String> {
    if addresses.is_empty() {
        return Err("no address is known".to_owned());
    }
    let connection = dial(shared, config, addresses).await?;
    // The other side may have been faster: then its connection is in use already.
    if shared.links().is_linked(device) {
        Close::Duplicate.close(&connection);
        return Ok(());
    }
    match session::establish(shared, connection, device, true).await {
        Ok(()) => Ok(()),
        Err(error) if error.is_duplicate() => {
            // The link it speaks of is about to be known here too.
            sleep(PAUSE_MIN).await;
            if shared.links().is_linked(device) { Ok(()) } else { Err(error.to_string()) }
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Connects to the first of `addresses` that answers, and only to that one.
pub(crate) async fn dial(
    shared: &Shared,
    config: &ClientConfig,
    addresses: Vec<SocketAddr>,
) -> Result<Connection, String> {
    let attempt = async |number: u32, address: SocketAddr| {
        sleep(STAGGER * number).await;
        let connecting = shared.endpoint.connect_with(config.clone(), address, tls::SERVER_NAME);
        let connecting = connecting.map_err(|error| format!("{address}: {error}"))?;
        connecting.await.map_err(|error| format!("{address}: {}", explain(&error)))
    };
    let mut attempts: FuturesUnordered<_> = addresses
        .into_iter()
        .take(ADDRESSES_MAX)
        .zip(0..)
        .map(|(address, number)| attempt(number, address))
        .collect();
    let mut last = String::new();
    let any = async {
        while let Some(result) = attempts.next().await {
            match result {
                Ok(connection) => return Some(connection),
                Err(error) => last = error,
            }
        }
        None
    };
    match timeout(ROUND, any).await {
        Ok(Some(connection)) => Ok(connection),
        Ok(None) => Err(last),
        Err(_) if last.is_empty() => Err("no answer".to_owned()),
        Err(_) => Err(last),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let ms = |failures, recent, random| pause(failures, recent, random).as_millis();
        assert_eq!([1, 2, 3, 4].map(|failures| ms(failures, false, 0)), [200, 400, 800, 1600]);
        assert_eq!(ms(8, false, 0), 25_600);
        assert_eq!(ms(9, false, 0), 30_000);
        assert_eq!(ms(u32::MAX, false, 0), 30_000);
        assert_eq!(ms(9, true, 0), 1000);
        for random in 0..=255 {
            assert!((22_500..=30_000).contains(&ms(9, false, random)));
        }
    }
}
