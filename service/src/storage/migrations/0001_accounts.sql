-- Times are milliseconds since the epoch, hashes are SHA-256 in hex, truth values are 0 and 1.

CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE users (
    id TEXT PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    display_name TEXT,
    can_request_admin BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    locked_at BIGINT,
    deactivated_at BIGINT,
    provisioned_at BIGINT
);

-- email_key is the address as it is compared: trimmed, lower case.
CREATE TABLE user_emails (
    email_key TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    email TEXT NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX user_emails_of_user ON user_emails (user_id);

CREATE TABLE user_passwords (
    user_id TEXT PRIMARY KEY REFERENCES users (id),
    version BIGINT NOT NULL,
    hash TEXT NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE TABLE compat_sessions (
    id TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    device_id TEXT NOT NULL,
    display_name TEXT,
    user_agent TEXT,
    created_at BIGINT NOT NULL,
    created_ip TEXT,
    last_active_at BIGINT,
    last_active_ip TEXT,
    finished_at BIGINT
);
CREATE UNIQUE INDEX compat_sessions_live_device ON compat_sessions (user_id, device_id) WHERE finished_at IS NULL;
CREATE INDEX compat_sessions_of_user ON compat_sessions (user_id);
CREATE INDEX compat_sessions_finished ON compat_sessions (finished_at) WHERE finished_at IS NOT NULL;

CREATE TABLE compat_access_tokens (
    hash TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES compat_sessions (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    first_used_at BIGINT
);
CREATE INDEX compat_access_tokens_of_session ON compat_access_tokens (session_id);
CREATE INDEX compat_access_tokens_expiry ON compat_access_tokens (expires_at) WHERE expires_at IS NOT NULL;

-- retired_at: when it was exchanged or replaced; the one that is not retired is the current one of its session.
CREATE TABLE compat_refresh_tokens (
    hash TEXT PRIMARY KEY,
    session_id TEXT NOT NULL REFERENCES compat_sessions (id),
    access_token_hash TEXT NOT NULL,
    generation BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    retired_at BIGINT
);
CREATE INDEX compat_refresh_tokens_of_session ON compat_refresh_tokens (session_id);
CREATE INDEX compat_refresh_tokens_retired ON compat_refresh_tokens (retired_at) WHERE retired_at IS NOT NULL;

CREATE TABLE login_tokens (
    hash TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
CREATE INDEX login_tokens_expiry ON login_tokens (expires_at);

-- full_at: microseconds since the epoch at which the bucket is full again; later by one interval for each token taken.
CREATE TABLE rate_limits (
    bucket TEXT PRIMARY KEY,
    full_at BIGINT NOT NULL
);
CREATE INDEX rate_limits_full ON rate_limits (full_at);

-- One row per thing that Synapse still has to hear. position: order among the rows of one user. revision: grows when the same
-- thing is asked for again, so that whoever is at it does not take the newer wish for fulfilled.
CREATE TABLE outbox (
    job_key TEXT PRIMARY KEY,
    user_id TEXT NOT NULL,
    payload TEXT NOT NULL,
    position BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    next_attempt_at BIGINT NOT NULL,
    leased_until BIGINT NOT NULL,
    last_error TEXT
);
CREATE INDEX outbox_due ON outbox (next_attempt_at);
CREATE INDEX outbox_of_user ON outbox (user_id, position);
