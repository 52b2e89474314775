//! What came back from Synapse, and what it means. It decides nothing about retrying; `Error::is_final` says what a retry could bring.

use http::StatusCode;
use serde::Deserialize;

/// Largest answer that is read. Those of Synapse are a few hundred bytes.
const LARGEST_BYTES: usize = 64 * 1024;

/// A success, as read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// Why Synapse did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client could be made.
    #[error("cannot make an HTTP client for Synapse")]
    Setup(#[source] reqwest::Error),
    /// The endpoint is not a URL that can be used.
    #[error("matrix.endpoint is no URL that can be connected to")]
    Endpoint,
    /// No connection, no answer in time, or a connection that broke.
    #[error("Synapse cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// 403 (and 401): our secret is not Synapse's.
    #[error(
        "the secret does not match Synapse's (matrix.secret here, matrix_authentication_service.secret there)"
    )]
    SecretRefused,
    /// 404 without a word on the user: the endpoints do not exist.
    #[error(
        "Synapse does not delegate authentication: matrix_authentication_service is not enabled in its configuration"
    )]
    NotDelegated,
    /// `M_NOT_FOUND`: no such user, or no such device.
    #[error("Synapse knows no such user or device")]
    NotFound,
    /// Synapse understood and refused.
    #[error("Synapse refused: {status} {errcode}: {message}")]
    Rejected {
        /// HTTP status.
        status: StatusCode,
        /// Matrix error code, `M_UNKNOWN` when the answer had none.
        errcode: String,
        /// Its text, shortened.
        message: String,
    },
    /// A success whose body is not what it has to be.
    #[error("Synapse's answer cannot be understood")]
    Malformed(#[source] serde_json::Error),
    /// An answer larger than 64 KiB.
    #[error("Synapse's answer is larger than 64 KiB")]
    TooLarge,
}

impl Error {
    /// Whether the same request would be answered the same way for ever: what was asked for is wrong, not the circumstances.
    pub fn is_final(&self) -> bool {
        match self {
            Self::NotFound => true,
            Self::Rejected { status, .. } => {
                status.is_client_error()
                    && *status != StatusCode::TOO_MANY_REQUESTS
                    && *status != StatusCode::REQUEST_TIMEOUT
            }
            Self::Setup(_)
            | Self::Endpoint
            | Self::Unreachable(_)
            | Self::SecretRefused
            | Self::NotDelegated
            | Self::Malformed(_)
            | Self::TooLarge => false,
        }
    }
}

/// Reads an answer within the bound and tells success from failure.
pub(super) async fn read(mut response: reqwest::Response) -> Result<Answer, Error> {
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Error::Unreachable)? {
        if body.len() + chunk.len() > LARGEST_BYTES {
            return Err(Error::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    if status.is_success() { Ok(Answer { status, body }) } else { Err(refusal(status, &body)) }
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    #[derive(Deserialize)]
    struct MatrixError {
        errcode: String,
        #[serde(default)]
        error: String,
    }
    let told = serde_json::from_slice::<MatrixError>(body).ok();
    let errcode = told.as_ref().map_or("", |told| told.errcode.as_str());
    match (status, errcode) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => Error::SecretRefused,
        (StatusCode::NOT_FOUND, "M_NOT_FOUND") => Error::NotFound,
        (StatusCode::NOT_FOUND, _) => Error::NotDelegated,
        _ => Error::Rejected {
            status,
            errcode: if errcode.is_empty() { "M_UNKNOWN" } else { errcode }.chars().take(64).collect(),
            message: told.map_or_else(String::new, |told| {
                told.error.chars().filter(|c| !c.is_control()).take(200).collect()
            }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, body: &str, expected: &str, is_final: bool) {
        let error = refusal(StatusCode::from_u16(status).expect("a status"), body.as_bytes());
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.is_final(), is_final, "{expected}");
    }

    #[test]
    fn a_404_that_names_no_user_means_that_synapse_does_not_delegate() {
        let not_delegated = Error::NotDelegated.to_string();
        check(404, "<html>No Such Resource</html>", &not_delegated, false);
        check(404, r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#, &not_delegated, false);
        check(
            404,
            r#"{"errcode":"M_NOT_FOUND","error":"User not found"}"#,
            "Synapse knows no such user or device",
            true,
        );
    }

    #[test]
    fn a_refused_secret_is_said_clearly_and_worth_retrying() {
        check(403, r#"{"errcode":"M_FORBIDDEN","error":"x"}"#, &Error::SecretRefused.to_string(), false);
        assert!(Error::SecretRefused.to_string().starts_with("the secret does not match Synapse's"));
    }

    #[test]
    fn a_fault_of_the_request_is_final_and_one_of_the_server_is_not() {
        check(
            400,
            r#"{"errcode":"M_MISSING_PARAM","error":"x"}"#,
            "Synapse refused: 400 Bad Request M_MISSING_PARAM: x",
            true,
        );
        check(429, "{}", "Synapse refused: 429 Too Many Requests M_UNKNOWN: ", false);
        check(502, "bad gateway", "Synapse refused: 502 Bad Gateway M_UNKNOWN: ", false);
    }
}
