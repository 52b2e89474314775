//! TLS and HTTP/2 to the client.
