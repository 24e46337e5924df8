//! How people come in: to their tenant's issuer and back, with a browser, or with a browser for a program.

use atelier_access::{Caller, Granted, KeyOwner, right};
use atelier_domain::names::misleads;
use atelier_domain::{Email, Label, TenantId, TenantName};
use atelier_signon::{ClientSecret, Identity, IssuerClient, Pending, SignOnError};
use atelier_store::{SignInRefused, SignOnClient, StoreError, TenantRecord, UserRecord, Vouched};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::error::PlatformError;
use crate::models::tenant_of;
use crate::platform::Platform;
use crate::sign_on::sentence;

pub use atelier_signon::Answer;
pub use atelier_store::LoginKey;

/// Letters of a state by which a sign-in is told from others in one browser.
const STATE_NAME_CHARS: usize = 12;
/// Letters of a PKCE challenge by S256.
const CHALLENGE_CHARS: usize = 43;
/// Letters that a program's state may have.
const PROGRAM_STATE_CHARS_MAX: usize = 128;
/// Letters of the phrase by which somebody sees that a page is about his own program.
const PHRASE_CHARS: usize = 8;
/// Ports below are the system's own: no program of a person listens there.
const PORT_MIN: u16 = 1_024;

/// A sign-in to be begun.
#[derive(Debug, Clone)]
pub struct BeginSignIn {
    /// The tenant's name, as somebody typed it.
    pub organization: String,
    /// Where the issuer sends the browser back to: ours.
    pub redirect_uri: String,
    /// Where the browser goes on to afterwards: a path of ours.
    pub return_to: String,
    /// The program for which it is, if it is for one.
    pub program: Option<Program>,
}

/// A program on somebody's machine that waits for a key (RFC 8252).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The port on which it listens, on loopback.
    port: u16,
    /// By which it knows its own answer.
    state: String,
    /// The hash of what it will show (RFC 7636).
    challenge: String,
}

/// A sign-in that has begun.
#[derive(Debug)]
pub struct BegunSignIn {
    /// Where to send the browser.
    pub url: String,
    /// What names the sign-in among those of the browser.
    pub name: String,
    /// What the browser must keep.
    pub kept: String,
}

/// What the browser brings back.
#[derive(Debug, Clone, Default)]
pub struct FinishSignIn {
    /// Where the issuer sent it back to.
    pub redirect_uri: String,
    /// What it kept.
    pub kept: Option<String>,
    /// What the issuer gave it.
    pub answer: Answer,
}

/// Somebody who is in.
#[derive(Debug)]
pub enum SignedIn {
    /// A browser has a session.
    Browser {
        /// The session's text, to be kept by the browser only.
        session: String,
        /// Where it goes on to.
        return_to: String,
    },
    /// A program may fetch its key.
    Program {
        /// Where the program waits, with what it fetches its key with.
        url: String,
        /// What it shows too, so that somebody sees that it is his.
        phrase: String,
        /// Who signed in.
        email: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Kept {
    pending: Pending,
    return_to: String,
    program: Option<Program>,
}

impl Program {
    /// What a program may ask for.
    ///
    /// # Errors
    /// When something of it is not of its form.
    pub fn new(port: u16, state: String, challenge: String) -> Result<Self, PlatformError> {
        let is_url_safe = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let fits = port >= PORT_MIN
            && (1..=PROGRAM_STATE_CHARS_MAX).contains(&state.len())
            && challenge.len() == CHALLENGE_CHARS
            && is_url_safe(&state)
            && is_url_safe(&challenge);
        if fits {
            Ok(Self { port, state, challenge })
        } else {
            let message = "That is no request of a program of ours. Run `atelier login` again.";
            Err(PlatformError::invalid(message, None, "invalid_program"))
        }
    }

    /// What the program shows too: of the challenge, in letters that are easy to compare.
    #[must_use]
    pub fn phrase(challenge: &str) -> String {
        let letters = blake3::hash(challenge.as_bytes()).to_hex().to_uppercase();
        let (one, other) = letters[..PHRASE_CHARS].split_at(PHRASE_CHARS / 2);
        format!("{one}-{other}")
    }
}

impl Platform {
    /// Begins to sign somebody in.
    ///
    /// # Errors
    /// When nobody signs in by that name, or the issuer is not there.
    pub async fn begin_sign_in(&self, begin: BeginSignIn) -> Result<BegunSignIn, PlatformError> {
        let name: Result<TenantName, _> = begin.organization.trim().to_ascii_lowercase().parse();
        let name = name.map_err(|_| nobody_signs_in())?;
        let finds = Caller::system("sign-on").grant(right::FindSignOn)?;
        let tenant = self.store().find_sign_on(&finds, &name).await?.ok_or_else(nobody_signs_in)?;
        let grant = finds.narrow(right::SignIn { tenant })?;
        let client = client_of(tenant, self.store().sign_on_client(&grant).await?);
        let service = self.sign_on().client().map_err(fault)?;
        let begun = service.begin(&client, &begin.redirect_uri, self.store().now()).await.map_err(fault)?;
        let kept = Kept { pending: begun.pending, return_to: begin.return_to, program: begin.program };
        let kept = serde_json::to_string(&kept)
            .map_err(|source| PlatformError::Stored { what: "sign-in", source: source.into() })?;
        let sealed = URL_SAFE_NO_PAD.encode(self.store().seal_for_browser(&grant, &kept)?);
        let name = begun.state.chars().take(STATE_NAME_CHARS).collect();
        Ok(BegunSignIn { url: begun.url, name, kept: format!("{tenant}.{sealed}") })
    }

    /// What names the sign-in that an answer belongs to among those of its browser.
    #[must_use]
    pub fn sign_in_name(answer: &Answer) -> String {
        answer.state.as_deref().unwrap_or_default().chars().take(STATE_NAME_CHARS).collect()
    }

    /// Finishes it: lets somebody in, or says why not.
    ///
    /// # Errors
    /// Why nobody is let in.
    pub async fn finish_sign_in(&self, finish: FinishSignIn) -> Result<SignedIn, PlatformError> {
        let not_begun = || fault(SignOnError::NotBegun);
        let kept = finish.kept.as_deref().ok_or_else(not_begun)?;
        let (tenant, sealed) = kept.split_once('.').ok_or_else(not_begun)?;
        let tenant: TenantId = tenant.parse().map_err(|_| not_begun())?;
        let grant = Caller::system("sign-on").grant(right::FindSignOn)?.narrow(right::SignIn { tenant })?;
        let sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| not_begun())?;
        let opened = self.store().open_from_browser(&grant, sealed).ok_or_else(not_begun)?;
        let kept: Kept = serde_json::from_str(&opened).map_err(|_| not_begun())?;
        let finished = self.let_in(&grant, &finish, kept).await;
        // Taken out first: no error is held while the trail is written.
        let why = finished.as_ref().err().and_then(refusal_word);
        if let Some(why) = why {
            self.note_refusal(&grant, why).await;
        }
        finished
    }

    async fn let_in(
        &self,
        grant: &Granted<right::SignIn>,
        finish: &FinishSignIn,
        kept: Kept,
    ) -> Result<SignedIn, PlatformError> {
        let client = match self.store().sign_on_client(grant).await {
            Err(StoreError::NotFound { .. }) => return Err(refused(SignInRefused::Changed)),
            client => client_of(grant.tenant(), client?),
        };
        let service = self.sign_on().client().map_err(fault)?;
        let now = self.store().now();
        let identity = service.finish(&client, &finish.redirect_uri, &kept.pending, &finish.answer, now).await;
        let vouched = vouched(client, identity.map_err(fault)?)?;
        match kept.program {
            None => {
                let made = self.store().sign_in(grant, &vouched).await?;
                Ok(SignedIn::Browser { session: made.key.key.reveal(), return_to: kept.return_to })
            }
            Some(Program { port, state, challenge }) => {
                let made = self.store().sign_in_program(grant, &vouched, &challenge).await?;
                let code = made.code.reveal();
                Ok(SignedIn::Program {
                    url: format!("http://127.0.0.1:{port}/callback?code={code}&state={state}"),
                    phrase: Program::phrase(&challenge),
                    email: made.user.email.to_string(),
                })
            }
        }
    }

    async fn note_refusal(&self, grant: &Granted<right::SignIn>, why: &'static str) {
        if !self.sign_on().notes_refusal(grant.tenant()) {
            return;
        }
        if let Err(error) = self.store().record_refused_sign_in(grant, why).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a refused sign-in was not recorded");
        }
    }

    /// The key of a program, for the code that its browser brought and what its challenge was made of.
    ///
    /// # Errors
    /// When the code is not good, for whatever reason.
    pub async fn create_login_key(&self, code: &str, verifier: &str) -> Result<LoginKey, PlatformError> {
        let finds = Caller::system("sign-on").grant(right::FindSignOn)?;
        Ok(self.store().redeem_code(&finds, code, &atelier_signon::flow::challenge(verifier)).await?)
    }

    /// A browser's session → who it is.
    ///
    /// # Errors
    /// When there is no such session, or it has ended.
    pub async fn authenticate_session(&self, text: &str) -> Result<Caller, PlatformError> {
        Ok(self.store().authenticate_session(text).await?)
    }

    /// The caller's tenant, and the person who signed in or holds the key, where there is one.
    ///
    /// # Errors
    /// When the caller has no tenant.
    pub async fn whoami(&self, caller: &Caller) -> Result<(TenantRecord, Option<UserRecord>), PlatformError> {
        let tenant = tenant_of(caller)?;
        let record = self.store().tenant(&caller.grant(right::ReadTenant { tenant })?).await?;
        let user = match caller.owner() {
            Some(KeyOwner::User(user)) => {
                let grant = Caller::system("sign-on").grant(right::SignIn { tenant })?;
                self.store().signed_in_person(&grant, user).await?
            }
            _ => None,
        };
        Ok((record, user))
    }

    /// Ends what signing in gave the caller: its session, or its program's key. Says whether it did; a key that was made
    /// otherwise stays.
    ///
    /// # Errors
    /// What the database says.
    pub async fn sign_out(&self, caller: &Caller) -> Result<bool, PlatformError> {
        let (Some(tenant), Some(key)) = (caller.tenant(), caller.key()) else { return Ok(false) };
        if caller.is_operator() {
            return Ok(false);
        }
        let grant = Caller::system("sign-on").grant(right::FindSignOn)?.narrow(right::SignIn { tenant })?;
        Ok(self.store().sign_out(&grant, key).await?)
    }
}

/// The word for the trail, where it was the person or the issuer that was refused.
fn refusal_word(error: &PlatformError) -> Option<&'static str> {
    match error {
        PlatformError::SignIn { code, .. } | PlatformError::Conflict { code, .. } => Some(code),
        _ => None,
    }
}

/// What is said when nobody signs in by that name: also when there is no such tenant.
fn nobody_signs_in() -> PlatformError {
    let message = "Nobody signs in by that name. Check the organization's name, or ask one of its owners to set up \
                   sign-on.";
    PlatformError::NotFound { message: message.to_owned(), code: "sign_on_not_found" }
}

fn client_of(tenant: TenantId, known: SignOnClient) -> IssuerClient {
    let SignOnClient { record, secret } = known;
    let secret = secret.map(ClientSecret::new);
    IssuerClient { tenant, issuer: record.issuer, client_id: record.client_id, secret }
}

fn vouched(client: IssuerClient, identity: Identity) -> Result<Vouched, PlatformError> {
    let email: Email = identity.email.parse().map_err(|_| {
        let message = "The issuer names an email address that is not taken here: it must be an ASCII address with a \
                       domain. Have it changed there.";
        PlatformError::SignIn { message: message.to_owned(), code: "email_refused" }
    })?;
    let name: Option<Label> = identity.name.filter(|name| !misleads(name)).and_then(|name| name.parse().ok());
    Ok(Vouched { issuer: client.issuer, client_id: client.client_id, subject: identity.subject, email, name })
}

/// Why somebody is not let in for whom the issuer vouches, with a next step.
pub(crate) fn refused(refused: SignInRefused) -> PlatformError {
    let (message, code) = match refused {
        SignInRefused::NotInvited => (
            "Your issuer knows you, and nobody here has invited you. Ask an owner of the organization for an invite.",
            "not_invited",
        ),
        SignInRefused::Removed => (
            "You were removed from this organization. Ask one of its owners for an invite to come back.",
            "user_removed",
        ),
        SignInRefused::OtherPerson => (
            "Your email address belongs to somebody here whom your issuer knows as another person. Ask an owner of the \
             organization to remove that person and to invite you.",
            "other_person",
        ),
        SignInRefused::Changed => {
            ("The organization's sign-on was changed while you signed in. Begin again.", "sign_on_changed")
        }
        SignInRefused::BadCode => {
            ("This sign-in was finished already, or took too long. Run `atelier login` again.", "invalid_code")
        }
    };
    PlatformError::SignIn { message: message.to_owned(), code }
}

/// Why an issuer did not vouch for anybody, with a next step. Logged here, where the cause is known.
fn fault(error: SignOnError) -> PlatformError {
    let said = sentence(&error);
    match error {
        SignOnError::Busy => PlatformError::Overloaded {
            message: "Too many people sign in at once. Try again in a moment.",
            retry_after_ms: 1_000,
        },
        SignOnError::NotBegun => PlatformError::SignIn {
            message: "This browser did not begin this sign-in, or it took too long. Begin again.".to_owned(),
            code: "sign_in_not_begun",
        },
        SignOnError::Refused { .. } => PlatformError::SignIn {
            message: format!("{said} Begin again, or ask whoever runs your issuer."),
            code: "refused_by_issuer",
        },
        SignOnError::Token(_)
        | SignOnError::Person(_)
        | SignOnError::AnswerOfOther
        | SignOnError::CodeRefused { .. } => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an issuer was not believed");
            let message = format!("{said} Begin again; if it persists, give this to whoever runs your issuer.");
            PlatformError::SignIn { message, code: "issuer_not_believed" }
        }
        error => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an issuer cannot be used");
            let message = "Your organization's issuer cannot be used now. Try again; if it persists, an owner of the \
                           organization finds out why with `atelier tenant sign-on check`.";
            PlatformError::Conflict { message: message.to_owned(), code: "issuer_unusable" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_request_has_its_form() {
        let challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
        let check = |port, state: &str, challenge: &str, expected| {
            let made = Program::new(port, state.to_owned(), challenge.to_owned());
            assert_eq!(made.is_ok(), expected, "{port} {state} {challenge}");
        };
        check(50_000, "abc-_9", challenge, true);
        check(80, "abc", challenge, false);
        check(50_000, "", challenge, false);
        check(50_000, &"a".repeat(PROGRAM_STATE_CHARS_MAX + 1), challenge, false);
        check(50_000, "a&b=c", challenge, false);
        check(50_000, "a\r\nb", challenge, false);
        check(50_000, "abc", &challenge[1..], false);
        check(50_000, "abc", &challenge.replace('-', "+"), false);
        assert_eq!(Program::phrase(challenge).len(), PHRASE_CHARS + 1);
        assert_ne!(Program::phrase(challenge), Program::phrase("another"));
    }
}
