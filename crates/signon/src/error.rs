//! Why somebody is not signed in. No text here repeats a secret, a code or a token.

use std::error::Error;

/// Why a sign-in did not begin or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum SignOnError {
    /// An address that is not called.
    #[error("the issuer's address is not used: {why}")]
    Address {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The issuer does not answer, not in time, or not over a connection that can be trusted.
    #[error("the issuer's {what} cannot be fetched")]
    Unreachable {
        /// What was asked for.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The issuer answers with something else than success.
    #[error("the issuer answers HTTP {status} when it is asked for its {what}")]
    Status {
        /// What was asked for.
        what: &'static str,
        /// The status.
        status: u16,
    },
    /// The issuer sends more than anybody should need.
    #[error("the issuer's {what} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        what: &'static str,
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// The issuer sends something else than what it should.
    #[error("the issuer's {what} is not as OpenID Connect has it")]
    Malformed {
        /// What was asked for.
        what: &'static str,
    },
    /// The document at the issuer's address is another issuer's.
    #[error(
        "the document at the issuer's address calls the issuer otherwise: {named}. Set the issuer to what it calls \
         itself, letter by letter"
    )]
    OtherIssuer {
        /// What it calls itself, as far as it is fit to be shown.
        named: String,
    },
    /// Too many people of the tenant sign in at once, or too many of all tenants.
    #[error("too many sign-ins at once")]
    Busy,
    /// The answer does not belong to a sign-in that this browser began, or that one began too long ago.
    #[error("the answer belongs to no sign-in that this browser began, or came too late")]
    NotBegun,
    /// The answer is not the issuer's that was asked (RFC 9207).
    #[error("the answer comes from another issuer than the one that was asked")]
    AnswerOfOther,
    /// The issuer did not let the person in.
    #[error("the issuer says `{error}`")]
    Refused {
        /// The word that it has for it: letters, digits, `_`, `-`, `.`.
        error: String,
    },
    /// The issuer does not exchange the code.
    #[error("the issuer does not take its own code, and says `{error}`")]
    CodeRefused {
        /// The word that it has for it, of the same letters.
        error: String,
    },
    /// The ID token is not believed.
    #[error("the issuer's ID token is not believed")]
    Token(#[from] TokenFault),
    /// The issuer is believed, and does not say enough.
    #[error("the issuer does not say who signed in")]
    Person(#[from] PersonFault),
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    Random,
}

/// What is wrong with an ID token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// It is not a token.
    #[error("it is no signed token")]
    Malformed,
    /// Signed in a way that proves nothing here: with no key, with a shared one, or in a way that is not known.
    #[error("it is signed by another algorithm than RS256, ES256 or EdDSA")]
    Algorithm,
    /// Something about it must be understood and is not.
    #[error("it names something critical that is not understood")]
    Critical,
    /// No key of the issuer's has that name.
    #[error("it names a key that the issuer has not")]
    UnknownKey,
    /// The signature is not of that key.
    #[error("its signature is wrong")]
    Signature,
    /// It is another issuer's.
    #[error("it is another issuer's")]
    Issuer,
    /// It is for somebody else.
    #[error("it is meant for somebody else")]
    Audience,
    /// It is past its time.
    #[error("it has expired")]
    Expired,
    /// It is from the future, or was not made for this sign-in.
    #[error("it was made at another time than this sign-in")]
    IssuedAt,
    /// It is another sign-in's.
    #[error("it belongs to another sign-in")]
    Nonce,
    /// It does not say who it is.
    #[error("it does not name a subject")]
    Subject,
}

/// What is missing in what an issuer says of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PersonFault {
    /// No email address, neither in the ID token nor at the userinfo endpoint.
    #[error("it names no email address; let it send the claim `email`")]
    NoEmail,
    /// The issuer does not vouch for the email address.
    #[error("it does not say that the email address is verified (`email_verified`)")]
    EmailNotVerified,
    /// The userinfo endpoint tells of another person than the ID token.
    #[error("its userinfo endpoint tells of somebody else than its ID token")]
    AnotherPerson,
}
