//! `GET /_matrix/client/*/login/sso/redirect[/{idp}]`: needs the pages for people, which this version does not have.

use http::StatusCode;

use crate::http::matrix::MatrixError;

/// Says that there is no single sign-on; [`super::login::flows`] does not offer it either.
pub(super) async fn redirect() -> MatrixError {
    MatrixError::new(
        StatusCode::NOT_FOUND,
        "M_UNRECOGNIZED",
        "Login in the browser is not available on this server: use m.login.password",
    )
}
