//! What can be asked, and how an answer is written.

use super::stream;
use crate::config::{check_address, check_name};
use crate::steward::{ControlError, ControlErrorKind, Steward};
use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use kith_control::diagnosis::DoctorReport;
use kith_control::pairing::{Join, Joined};
use kith_control::refusal::ErrorBody;
use kith_control::status::{DeviceList, DeviceRef, Mean, Meant, Member, Rename, ShareList, Status};
use kith_core::id::DeviceId;
use std::sync::Arc;
use tokio::sync::watch;

/// The largest question that is read.
const BODY_BYTES: usize = 64 << 10;
/// The most addresses that a join can list.
const ADDRESSES: usize = 16;
/// The longest code that is passed on to the pairing.
const CODE_BYTES: usize = 256;
/// The fewest digits by which an id can be shortened.
const ID_DIGITS: usize = 4;

#[derive(Clone)]
struct Asked {
    steward: Arc<dyn Steward>,
    stopping: watch::Receiver<bool>,
}

pub(super) fn router(steward: Arc<dyn Steward>, stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/shares", get(shares))
        .route("/v1/devices", get(devices))
        .route("/v1/devices/{device}", patch(rename_device).delete(remove_device))
        .route("/v1/invite", post(invite))
        .route("/v1/join", post(join))
        .route("/v1/meant", post(meant))
        .route("/v1/events", get(events))
        .route("/v1/doctor", get(doctor))
        .route("/v1/stop", post(stop))
        .route("/v1/restart", post(restart))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(Asked { steward, stopping })
}

impl Asked {
    /// Asks where the disk may be used, away from the thread that serves the others.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&(dyn Steward + 'static)) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, ControlError> {
        let steward = Arc::clone(&self.steward);
        tokio::task::spawn_blocking(move || question(&*steward)).await.unwrap_or_else(|panic| {
            tracing::error!(%panic, "a control call ended in a panic");
            Err(ControlError::new(
                ControlErrorKind::Internal,
                "Kith made a mistake of its own.",
                "Please report it, with what the log says.",
            ))
        })
    }
}

async fn status(State(asked): State<Asked>) -> Result<Json<Status>, ControlError> {
    asked.ask(Steward::status).await.map(Json)
}

async fn shares(State(asked): State<Asked>) -> Result<Json<ShareList>, ControlError> {
    asked.ask(Steward::shares).await.map(|shares| Json(ShareList { shares }))
}

async fn devices(State(asked): State<Asked>) -> Result<Json<DeviceList>, ControlError> {
    asked.ask(|steward| Ok(steward.devices())).await.map(Json)
}

async fn rename_device(
    State(asked): State<Asked>,
    Path(device): Path<String>,
    body: Result<Json<Rename>, JsonRejection>,
) -> Result<Json<DeviceRef>, ControlError> {
    let Rename { name } = understood(body)?;
    check_name(&name).map_err(|what| {
        invalid(format!("A device's name {what}."), "Choose a name like \"laptop\".")
    })?;
    asked
        .ask(move |steward| {
            let id = choose(&steward.devices().devices, &device)?;
            steward.rename_device(id, &name)
        })
        .await
        .map(Json)
}

async fn remove_device(
    State(asked): State<Asked>,
    Path(device): Path<String>,
) -> Result<Json<DeviceRef>, ControlError> {
    asked
        .ask(move |steward| {
            let id = choose(&steward.devices().devices, &device)?;
            steward.remove_device(id)
        })
        .await
        .map(Json)
}

async fn invite(State(asked): State<Asked>) -> Result<Response, ControlError> {
    let open = asked.ask(Steward::invite).await?;
    Ok(stream::invitation(open, asked.stopping))
}

async fn join(
    State(asked): State<Asked>,
    body: Result<Json<Join>, JsonRejection>,
) -> Result<Json<Joined>, ControlError> {
    let Join { code, addresses } = understood(body)?;
    let code = code.trim();
    if code.is_empty() || code.len() > CODE_BYTES {
        return Err(invalid(
            "That is not an invitation code.",
            "A code looks like 7-mango-elephant; `kith invite` on the other device shows one.",
        ));
    }
    if addresses.len() > ADDRESSES {
        return Err(invalid(format!("More than {ADDRESSES} addresses were given."), ""));
    }
    for address in &addresses {
        check_address(address).map_err(|what| {
            invalid(format!("The address {what}."), "Write it like 192.0.2.1:5484.")
        })?;
    }
    asked.steward.join(code, &addresses).await.map(Json)
}

async fn meant(
    State(asked): State<Asked>,
    body: Result<Json<Mean>, JsonRejection>,
) -> Result<Json<Meant>, ControlError> {
    let Mean { device } = understood(body)?;
    let answer = asked.ask(move |steward| {
        let meant = steward.mean(device.as_deref())?;
        let Some(selector) = device.filter(|_| meant.is_empty()) else { return Ok(meant) };
        // No device of that name has made one: an id, or a name that is the same but for its case.
        let devices = steward.devices().devices;
        let id = choose(&devices, &selector)?.to_string();
        let chosen = devices.iter().find(|member| member.id == id);
        chosen.map_or(Ok(Vec::new()), |member| steward.mean(Some(&member.name)))
    });
    answer.await.map(|meant| Json(Meant { meant }))
}

async fn events(State(asked): State<Asked>) -> Response {
    stream::events(asked.steward.events(), asked.stopping)
}

async fn doctor(State(asked): State<Asked>) -> Result<Json<DoctorReport>, ControlError> {
    asked.ask(|steward| Ok(steward.doctor())).await.map(Json)
}

async fn stop(State(asked): State<Asked>) -> Json<serde_json::Value> {
    asked.steward.stop();
    Json(serde_json::json!({ "stopping": true }))
}

async fn restart(State(asked): State<Asked>) -> Json<serde_json::Value> {
    asked.steward.start_again();
    Json(serde_json::json!({ "restarting": true }))
}

async fn unknown() -> ControlError {
    ControlError::new(
        ControlErrorKind::NotFound,
        "There is nothing here to ask.",
        "Begin with GET /v1/status.",
    )
}

async fn wrong_method() -> Response {
    let body = ErrorBody { error: "This can be asked, but not so.".into(), hint: String::new() };
    (StatusCode::METHOD_NOT_ALLOWED, Json(body)).into_response()
}

fn understood<T>(body: Result<Json<T>, JsonRejection>) -> Result<T, ControlError> {
    match body {
        Ok(Json(value)) => Ok(value),
        Err(rejection) => {
            let sentence = rejection.body_text().replace('\n', " ");
            Err(invalid(sentence, "Send JSON with the header Content-Type: application/json."))
        }
    }
}

fn invalid(sentence: impl Into<String>, hint: &str) -> ControlError {
    ControlError::new(ControlErrorKind::Invalid, sentence, hint)
}

/// The one device that `selector` means: by its whole id, by its name, or by the beginning of its
/// id.
fn choose(members: &[Member], selector: &str) -> Result<DeviceId, ControlError> {
    let selected = |test: &dyn Fn(&Member) -> bool| -> Vec<&Member> {
        members.iter().filter(|member| test(member)).collect()
    };
    let lowercase = selector.to_lowercase();
    let digits = lowercase.len() >= ID_DIGITS && lowercase.bytes().all(|b| b.is_ascii_hexdigit());
    let found = [
        selected(&|member| member.id == lowercase),
        selected(&|member| member.name == selector),
        selected(&|member| member.name.to_lowercase() == lowercase),
        selected(&|member| digits && member.id.starts_with(&lowercase)),
    ]
    .into_iter()
    .find(|found| !found.is_empty())
    .unwrap_or_default();
    match found.as_slice() {
        [member] => member.id.parse().map_err(|_| {
            ControlError::new(
                ControlErrorKind::Internal,
                format!("The device \"{}\" has an id that cannot be read.", member.name),
                "",
            )
        }),
        [] => Err(ControlError::new(
            ControlErrorKind::NotFound,
            format!("No device is called \"{selector}\"."),
            "`kith devices list` shows them all.",
        )),
        _ => Err(ControlError::new(
            ControlErrorKind::Refused,
            format!("\"{selector}\" could be any of {} devices.", found.len()),
            "Use the first digits of its id, which `kith devices list` shows.",
        )),
    }
}

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        let status = match self.kind {
            ControlErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ControlErrorKind::NotFound => StatusCode::NOT_FOUND,
            ControlErrorKind::Refused => StatusCode::CONFLICT,
            ControlErrorKind::Peer => StatusCode::BAD_GATEWAY,
            ControlErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ErrorBody { error: self.sentence, hint: self.hint })).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, name: &str) -> Member {
        Member {
            id: format!("{id:0<64}"),
            name: name.into(),
            this: false,
            connected: false,
            address: None,
            last_seen: None,
        }
    }

    #[test]
    fn a_device_is_chosen_by_name_or_id() {
        let members = [
            member("abcd1", "laptop"),
            member("abcd2", "desktop"),
            member("beef", "Laptop"),
            member("1234", "abcd1"),
        ];
        let chosen = |selector: &str| {
            choose(&members, selector).map(|id| id.to_string()).map_err(|error| error.kind)
        };
        for (selector, expected) in [
            ("laptop", Ok(0)),
            ("Laptop", Ok(2)),
            ("DESKTOP", Ok(1)),
            ("LAPTOP", Err(ControlErrorKind::Refused)),
            ("abcd", Err(ControlErrorKind::Refused)),
            ("abcd2", Ok(1)),
            ("abcd1", Ok(3)),
            ("BEEF", Ok(2)),
            ("bee", Err(ControlErrorKind::NotFound)),
            ("", Err(ControlErrorKind::NotFound)),
            (&members[0].id, Ok(0)),
        ] {
            assert_eq!(
                chosen(selector),
                expected.map(|at: usize| members[at].id.clone()),
                "{selector}"
            );
        }
    }
}
