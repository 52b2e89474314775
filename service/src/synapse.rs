//! Client of Synapse's `/_synapse/mas/*`: what this service tells its homeserver, and asks of it.
//!
//! One HTTP client over `http://`, `https://` and `unix:///path` endpoints. Every call has a deadline and a bound on the answer.
//! It deliberately does not retry and does not remember anything: what has to happen in the end goes through the `outbox`.

mod answer;
#[cfg(test)]
pub(crate) mod stand_in;

use std::time::Duration;

use conf::Secret;
use reqwest::{Method, RequestBuilder};
use serde::{Deserialize, Serialize};
use url::Url;

pub use answer::Error;

/// Connecting to Synapse takes at most this long: it is on the same machine or network.
const CONNECT: Duration = Duration::from_secs(5);
/// A whole call, for work that nobody is waiting for.
const TOTAL: Duration = Duration::from_secs(30);
/// A whole call while a person or a program waits for a login.
const HURRIED: Duration = Duration::from_secs(10);

/// A connection pool to one Synapse. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// `…/_synapse/mas/`
    base: Url,
    /// As configured.
    endpoint: Url,
    secret: Secret,
    deadline: Duration,
}

/// What Synapse knows of a user.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    /// `@alice:example.com`
    pub user_id: String,
    /// Shown to others; `None` when never set.
    #[serde(default)]
    pub display_name: Option<String>,
    /// `mxc://…`
    #[serde(default)]
    pub avatar_url: Option<String>,
    /// Suspended users may log in and read, not write.
    #[serde(default)]
    pub is_suspended: bool,
    /// Deactivated users are gone for good, unless reactivated.
    #[serde(default)]
    pub is_deactivated: bool,
}

/// What to write at `provision_user`; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The display name; `Some(None)` removes it.
    pub display_name: Option<Option<String>>,
    /// E-mail addresses, the whole set.
    pub emails: Option<Vec<String>>,
    /// Whether the account is locked.
    pub locked: Option<bool>,
}

/// Whether something was new to Synapse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 201
    Created,
    /// 200
    Updated,
}

/// Synapse's word on a localpart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Free.
    Available,
    /// Taken, perhaps by a deactivated user.
    InUse,
    /// Not a localpart that Synapse accepts.
    Invalid,
    /// Reserved for an application service.
    Exclusive,
}

#[derive(Serialize)]
struct Localpart<'a> {
    localpart: &'a str,
}

#[derive(Serialize)]
struct Device<'a> {
    localpart: &'a str,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<&'a str>,
}

/// The wire form of [`Profile`]: a `set_` and an `unset_` key must never stand together, not even as `false`.
#[derive(Serialize)]
struct Provision<'a> {
    localpart: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_displayname: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unset_displayname: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    set_emails: Option<&'a [String]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unset_emails: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<bool>,
}

impl<'a> Provision<'a> {
    fn new(localpart: &'a str, profile: &'a Profile) -> Self {
        let emails = profile.emails.as_deref();
        Self {
            localpart,
            set_displayname: profile.display_name.as_ref().and_then(|name| name.as_deref()),
            unset_displayname: profile.display_name == Some(None),
            set_emails: emails.filter(|all| !all.is_empty()),
            unset_emails: emails.is_some_and(<[String]>::is_empty),
            locked: profile.locked,
        }
    }
}

impl Client {
    /// A client for the Synapse at `endpoint` (`http`, `https`, or `unix:///path`); connects when first used.
    ///
    /// # Errors
    /// [`Error::Setup`] when no TLS client can be made, for example because an `https` endpoint is used without any system certificates.
    pub fn new(endpoint: &Url, secret: &Secret) -> Result<Self, Error> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(16)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("Gatehouse/", env!("CARGO_PKG_VERSION")));
        let (builder, root) = match endpoint.scheme() {
            "unix" => {
                let path = endpoint.to_file_path().map_err(|()| Error::Endpoint)?;
                let root = Url::parse("http://synapse/").map_err(|_| Error::Endpoint)?;
                // No TLS will be spoken, so that a system without certificates is no reason to fail.
                (builder.unix_socket(path).tls_certs_only([]), root)
            }
            "http" => (builder.tls_certs_only([]), endpoint.clone()),
            _ => (builder, endpoint.clone()),
        };
        Ok(Self {
            http: builder.build().map_err(Error::Setup)?,
            base: root.join("_synapse/mas/").map_err(|_| Error::Endpoint)?,
            endpoint: endpoint.clone(),
            secret: secret.clone(),
            deadline: TOTAL,
        })
    }

    /// The same client with the shorter deadline (10 s) of calls that a login waits for.
    pub fn hurried(&self) -> Self {
        Self { deadline: HURRIED, ..self.clone() }
    }

    /// Whether both speak to the same Synapse in the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.secret == other.secret
    }

    /// What Synapse knows of a user.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it knows nobody of that name, else as every call: see [`Error`].
    pub async fn query_user(&self, localpart: &str) -> Result<User, Error> {
        let answer = self.ask("query_user", localpart).await?;
        serde_json::from_slice(&answer.body).map_err(Error::Malformed)
    }

    /// Whether a new user could have this localpart.
    ///
    /// # Errors
    /// As every call: see [`Error`].
    pub async fn is_localpart_available(&self, localpart: &str) -> Result<Availability, Error> {
        match self.ask("is_localpart_available", localpart).await {
            Ok(_) => Ok(Availability::Available),
            Err(Error::Rejected { errcode, .. }) if errcode == "M_USER_IN_USE" => Ok(Availability::InUse),
            Err(Error::Rejected { errcode, .. }) if errcode == "M_INVALID_USERNAME" => {
                Ok(Availability::Invalid)
            }
            Err(Error::Rejected { errcode, .. }) if errcode == "M_EXCLUSIVE" => Ok(Availability::Exclusive),
            Err(error) => Err(error),
        }
    }

    /// Makes the user, or updates it.
    ///
    /// # Errors
    /// As every call: see [`Error`].
    pub async fn provision_user(&self, localpart: &str, profile: &Profile) -> Result<Outcome, Error> {
        let provision = Provision::new(localpart, profile);
        match self.tell("provision_user", &provision).await {
            // Synapse looks whether there is such a user, then makes it: of two calls at a time one comes too late, and finds
            // the user when it asks again.
            Err(Error::Rejected { errcode, .. }) if errcode == "M_USER_IN_USE" => {
                self.tell("provision_user", &provision).await
            }
            told => told,
        }
    }

    /// Makes the device of a user, or renames it when `display_name` is given.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user (provision first), else as every call.
    pub async fn upsert_device(
        &self,
        localpart: &str,
        device_id: &str,
        display_name: Option<&str>,
    ) -> Result<Outcome, Error> {
        self.tell("upsert_device", &Device { localpart, device_id, display_name }).await
    }

    /// Renames a device.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such user or device, else as every call.
    pub async fn update_device_display_name(
        &self,
        localpart: &str,
        device_id: &str,
        display_name: &str,
    ) -> Result<(), Error> {
        let device = Device { localpart, device_id, display_name: Some(display_name) };
        self.tell("update_device_display_name", &device).await.map(drop)
    }

    /// Removes a device; every token of it, cached ones too, is dead when this returns. A device that is not there is fine.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn delete_device(&self, localpart: &str, device_id: &str) -> Result<(), Error> {
        self.tell("delete_device", &Device { localpart, device_id, display_name: None }).await.map(drop)
    }

    /// Makes the user's devices exactly these (a dehydrated device stays).
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn sync_devices(&self, localpart: &str, devices: &[String]) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Devices<'a> {
            localpart: &'a str,
            devices: &'a [String],
        }
        self.tell("sync_devices", &Devices { localpart, devices }).await.map(drop)
    }

    /// Sets the display name, in the profile and in every room.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn set_displayname(&self, localpart: &str, displayname: &str) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Displayname<'a> {
            localpart: &'a str,
            displayname: &'a str,
        }
        self.tell("set_displayname", &Displayname { localpart, displayname }).await.map(drop)
    }

    /// Removes the display name.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn unset_displayname(&self, localpart: &str) -> Result<(), Error> {
        self.tell("unset_displayname", &Localpart { localpart }).await.map(drop)
    }

    /// Lets the user replace the cross-signing keys without further authentication during the next ten minutes.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn allow_cross_signing_reset(&self, localpart: &str) -> Result<(), Error> {
        self.tell("allow_cross_signing_reset", &Localpart { localpart }).await.map(drop)
    }

    /// Deactivates the user: leaves all rooms; with `erase` its messages are hidden from people who join later.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn delete_user(&self, localpart: &str, erase: bool) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Delete<'a> {
            localpart: &'a str,
            erase: bool,
        }
        self.tell("delete_user", &Delete { localpart, erase }).await.map(drop)
    }

    /// Undoes a deactivation.
    ///
    /// # Errors
    /// [`Error::NotFound`] when Synapse does not know the user, else as every call.
    pub async fn reactivate_user(&self, localpart: &str) -> Result<(), Error> {
        self.tell("reactivate_user", &Localpart { localpart }).await.map(drop)
    }

    async fn ask(&self, endpoint: &str, localpart: &str) -> Result<answer::Answer, Error> {
        let mut url = self.url(endpoint)?;
        url.query_pairs_mut().append_pair("localpart", localpart);
        self.send(self.http.request(Method::GET, url)).await
    }

    async fn tell(&self, endpoint: &str, body: &impl Serialize) -> Result<Outcome, Error> {
        let url = self.url(endpoint)?;
        let answer = self.send(self.http.request(Method::POST, url).json(body)).await?;
        Ok(if answer.status == http::StatusCode::CREATED { Outcome::Created } else { Outcome::Updated })
    }

    fn url(&self, endpoint: &str) -> Result<Url, Error> {
        self.base.join(endpoint).map_err(|_| Error::Endpoint)
    }

    async fn send(&self, request: RequestBuilder) -> Result<answer::Answer, Error> {
        let request = request.bearer_auth(self.secret.expose()).timeout(self.deadline);
        answer::read(request.send().await.map_err(Error::Unreachable)?).await
    }
}

#[cfg(test)]
mod tests;
