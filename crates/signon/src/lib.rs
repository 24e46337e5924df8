//! OpenID Connect, as the party that relies on it: an issuer's address → who signed in there.
//! Authorization code with PKCE (RFC 7636), state and nonce; the issuer's document, keys and ID tokens as OpenID Connect
//! Core 1.0 and Discovery 1.0 have them; the issuer named in the answer by RFC 9207.
//!
//! Layout, in reading order: [`flow`] begins and finishes a sign-in; `discovery` reads an issuer's document and `issuers`
//! remembers it with its keys; `keys` and `token` say whether an ID token is good, with the signatures of `crypto`;
//! `fetch` is the only place that calls out, within limits, and [`address`] says whom it may call.
//!
//! Invariants: nothing is stored here; every byte of an issuer's is counted before it is kept, and every call ends in
//! time; no redirect is followed; an address that is not public is called only where the operator said so, whatever a
//! name resolves to; only RS256, ES256 and EdDSA are signatures; an identity is given only for an ID token that passed
//! every check, and what is asked for beside it counts for its subject only; no secret, code or token is in any error or log.

pub mod address;
mod crypto;
mod discovery;
mod error;
mod fetch;
pub mod flow;
mod issuers;
mod keys;
mod token;

pub use address::Reach;
pub use error::{PersonFault, SignOnError, TokenFault};
pub use flow::{Answer, Begun, ClientSecret, IssuerClient, Pending, SignOn};
pub use token::Identity;
