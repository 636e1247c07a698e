//! Answers that go on: events, and what becomes of an invitation.

use crate::steward::InviteStream;
use axum::body::Body;
use axum::http::header;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use kith_control::event::{Event, Happening};
use kith_control::pairing::InviteLine;
use serde::Serialize;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

/// How often a quiet stream of events says that it is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Events as server-sent events, until the server stops.
pub(super) fn events(
    receiver: broadcast::Receiver<Event>,
    stopping: watch::Receiver<bool>,
) -> Response {
    let events = BroadcastStream::new(receiver).map(|received| match received {
        Ok(event) => event,
        Err(BroadcastStreamRecvError::Lagged(missed)) => Event::now(Happening::Lagged { missed }),
    });
    let last = stream::once(async { Event::now(Happening::Stopping) });
    let events = events.take_until(told(stopping)).chain(last).map(|event| {
        let data = axum::response::sse::Event::default().data(one_line(&event));
        Ok::<_, Infallible>(data)
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)).into_response()
}

/// The code, and then a line for whatever becomes of the invitation, which ends with the answer.
pub(super) fn invitation(open: InviteStream, stopping: watch::Receiver<bool>) -> Response {
    let InviteStream { invitation, outcome } = open;
    let first = stream::once(async { InviteLine::Code(invitation) });
    let stopped = stream::once(async {
        InviteLine::Failed {
            error: "Kith stopped before anybody joined.".into(),
            hint: "Invite again once it runs.".into(),
        }
    });
    let lines =
        until_settled(first.chain(receive(outcome).take_until(told(stopping))).chain(stopped));
    let bytes = lines.map(|line| Ok::<_, Infallible>(format!("{}\n", one_line(&line))));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(bytes)).into_response()
}

fn receive(
    outcome: tokio::sync::mpsc::Receiver<InviteLine>,
) -> impl Stream<Item = InviteLine> + Send {
    stream::unfold(outcome, |mut outcome| async {
        outcome.recv().await.map(|line| (line, outcome))
    })
}

/// Everything up to and with the line after which nothing more can happen.
fn until_settled(
    lines: impl Stream<Item = InviteLine> + Send,
) -> impl Stream<Item = InviteLine> + Send {
    // It must end with that line and not with the next one, which may never come.
    stream::unfold(Some(Box::pin(lines)), |lines| async {
        let mut lines = lines?;
        let line = lines.next().await?;
        let settled = matches!(line, InviteLine::Joined { .. } | InviteLine::Failed { .. });
        Some((line, (!settled).then_some(lines)))
    })
}

async fn told(mut stopping: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good as being told.
    let _ = stopping.wait_for(|&stop| stop).await;
}

fn one_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the API's own types have string keys and no failing parts")
}
