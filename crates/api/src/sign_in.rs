//! Signing in with a browser: `/sign-in`, to the issuer, back to `/sign-in/callback`, and out by `/sign-out`. And what is
//! left of it for programs: `/v1/sign_in/keys` and `/v1/session`.
//!
//! The pages are those of `page`: everything that was not written here is escaped, no script runs and nothing is loaded.

use std::fmt::Write as _;

use atelier_access::Caller;
use atelier_domain::limits::{SESSION_LIFETIME, SIGN_IN_TIME_MAX};
use atelier_platform::{Answer, BeginSignIn, FinishSignIn, Platform, PlatformError, Program, SignedIn};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::caller::{Authenticated, with_session};
use crate::error::ApiError;
use crate::extract::{WireJson, WireQuery};
use crate::keys::{CreatedKeyObject, created_key_object};
use crate::page::{self, escape, guard, sentence};
use crate::site::Site;
use crate::state::AppState;

/// Where a browser goes that is told nothing else.
const HOME: &str = "/sign-in";
/// Letters of a path that a browser is sent on to.
const RETURN_CHARS_MAX: usize = 512;
/// Query of `GET /sign-in`.
#[derive(Default, Deserialize)]
pub struct SignInQuery {
    organization: Option<String>,
    return_to: Option<String>,
    port: Option<u16>,
    state: Option<String>,
    challenge: Option<String>,
}

/// Query of `GET /sign-in/callback`: what the issuer sends along.
#[derive(Default, Deserialize)]
pub struct CallbackQuery {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

/// Body of `POST /v1/sign_in/keys`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateLoginKeyRequest {
    /// What the browser brought; good once, for some minutes.
    pub code: String,
    /// What the `challenge` was made of with which the sign-in began (RFC 7636, S256).
    pub verifier: String,
}

/// A key by signing in, in the one answer that shows its text.
#[derive(Serialize, ToSchema)]
pub struct LoginKeyObject {
    /// The key.
    #[serde(flatten)]
    pub key: CreatedKeyObject,
    /// Whose people it belongs to, as `org_…`.
    pub organization_id: String,
    /// The address of the person who signed in.
    pub email: String,
}

/// Who the caller is.
#[derive(Debug, Serialize, ToSchema)]
pub struct SessionObject {
    /// Always `session`.
    pub object: &'static str,
    /// The organization's id, `org_…`.
    pub organization_id: String,
    /// Its name.
    pub organization: String,
    /// The id of the session or key, `key_…`.
    pub key_id: Option<String>,
    /// `admin`, `member`, `service` or `reader`; null for an operator.
    pub role: Option<&'static str>,
    /// The project that its use is counted for.
    pub project_id: Option<String>,
    /// The person who signed in, or who holds the key.
    pub user_id: Option<String>,
    /// That person's address.
    pub email: Option<String>,
}

/// What signing out answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct SignedOutObject {
    /// Always `session.deleted`.
    pub object: &'static str,
    /// Whether something ended: a session, or a key by signing in. A key that was made otherwise stays.
    pub deleted: bool,
}

/// `GET /sign-in`: asks for the organization's name; with it, sends the browser to the organization's issuer.
pub async fn read_sign_in(
    State(state): State<AppState>,
    headers: HeaderMap,
    WireQuery(query): WireQuery<SignInQuery>,
) -> Response {
    let Some(organization) = query.organization.clone().filter(|name| !name.trim().is_empty()) else {
        return home(&state, &headers, &query).await;
    };
    if Site::is_sent_by_others(&headers) {
        // Otherwise any page could sign a browser in to an organization of its maker's, whose issuer asks nothing.
        let before = match session_of(&state, &headers).await {
            Some(session) => format!("{}<p>To go on from here ends that.</p>\n", who(&session)),
            None => String::new(),
        };
        return question(&query, &before);
    }
    match begin(&state, organization, query).await {
        Ok(response) => response,
        Err(error) => trouble(&state, &headers, error.into()).await,
    }
}

/// `GET /sign-in/callback`: what the issuer sends the browser back to.
pub async fn read_sign_in_answer(
    State(state): State<AppState>,
    headers: HeaderMap,
    WireQuery(query): WireQuery<CallbackQuery>,
) -> Response {
    let AppState { platform, site, .. } = &state;
    let CallbackQuery { state: named, code, iss, error } = query;
    let answer = Answer { state: named, code, issuer: iss, error };
    let name = Platform::sign_in_name(&answer);
    let kept = site.sign_in(&headers, &name).map(str::to_owned);
    let finish = FinishSignIn { redirect_uri: site.redirect_uri(), kept: kept.clone(), answer };
    let mut response = match platform.finish_sign_in(finish).await {
        Ok(SignedIn::Browser { session, return_to }) => {
            end_session(&state, &headers).await;
            let mut response = redirect(&return_to);
            let seconds = SESSION_LIFETIME.as_secs();
            add_cookie(&mut response, site.keep_session(&session, seconds));
            response
        }
        Ok(SignedIn::Program { url, phrase, email }) => confirmation(&url, &phrase, &email),
        Err(error) => trouble(&state, &headers, error.into()).await,
    };
    if kept.is_some() {
        // It is good once, whatever came of it.
        add_cookie(&mut response, site.keep_sign_in(&name, "", 0));
    }
    response
}

/// `POST /sign-out`: ends the browser's session.
pub async fn create_sign_out(State(state): State<AppState>, method: Method, headers: HeaderMap) -> Response {
    if state.site.session(&headers).is_some()
        && let Err(error) = state.site.must_be_own(&method, &headers)
    {
        return trouble(&state, &headers, error).await;
    }
    end_session(&state, &headers).await;
    let mut response = redirect(HOME);
    add_cookie(&mut response, state.site.keep_session("", 0));
    response
}

/// `POST /v1/sign_in/keys`.
pub async fn create_login_key(
    State(platform): State<Platform>,
    WireJson(body): WireJson<CreateLoginKeyRequest>,
) -> Result<(StatusCode, Json<LoginKeyObject>), ApiError> {
    let made = platform.create_login_key(&body.code, &body.verifier).await?;
    let object = LoginKeyObject {
        key: created_key_object(made.key),
        organization_id: made.tenant.to_string(),
        email: made.user.email.to_string(),
    };
    Ok((StatusCode::CREATED, Json(object)))
}

/// `GET /v1/session`.
pub async fn get_session(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SessionObject>, ApiError> {
    Ok(Json(session_object(&platform, &caller).await?))
}

/// `DELETE /v1/session`.
pub async fn delete_session(
    State(platform): State<Platform>,
    Authenticated(caller): Authenticated,
) -> Result<Json<SignedOutObject>, ApiError> {
    platform.whoami(&caller).await?;
    Ok(Json(SignedOutObject { object: "session.deleted", deleted: platform.sign_out(&caller).await? }))
}

async fn session_object(platform: &Platform, caller: &Caller) -> Result<SessionObject, PlatformError> {
    let (tenant, user) = platform.whoami(caller).await?;
    Ok(SessionObject {
        object: "session",
        organization_id: tenant.id.to_string(),
        organization: tenant.name.to_string(),
        key_id: caller.key().map(|key| key.to_string()),
        role: caller.role().map(|role| role.as_str()),
        project_id: caller.project().map(|project| project.to_string()),
        user_id: user.as_ref().map(|user| user.id.to_string()),
        email: user.map(|user| user.email.to_string()),
    })
}

async fn begin(state: &AppState, organization: String, query: SignInQuery) -> Result<Response, PlatformError> {
    let program = match (query.port, query.state, query.challenge) {
        (None, None, None) => None,
        (port, state, challenge) => {
            Some(Program::new(port.unwrap_or_default(), state.unwrap_or_default(), challenge.unwrap_or_default())?)
        }
    };
    let return_to = query.return_to.filter(|path| is_own_path(path)).unwrap_or_else(|| HOME.to_owned());
    let redirect_uri = state.site.redirect_uri();
    let begun = state.platform.begin_sign_in(BeginSignIn { organization, redirect_uri, return_to, program }).await?;
    let mut response = redirect(&begun.url);
    let seconds = SIGN_IN_TIME_MAX.as_secs();
    add_cookie(&mut response, state.site.keep_sign_in(&begun.name, &begun.kept, seconds));
    Ok(response)
}

/// Ends the session that the browser has, if it has one. What cannot be ended ends by itself.
async fn end_session(state: &AppState, headers: &HeaderMap) {
    let Some(session) = state.site.session(headers) else { return };
    let ended = async {
        let caller = state.platform.authenticate_session(session).await?;
        state.platform.sign_out(&caller).await
    };
    if let Err(error) = ended.await {
        tracing::debug!(error = &error as &dyn std::error::Error, "a session was not ended");
    }
}

/// A path of this server: a browser takes `//host` and `/\host` for another one.
fn is_own_path(path: &str) -> bool {
    path.len() <= RETURN_CHARS_MAX
        && path.starts_with('/')
        && !path.starts_with("//")
        && !path.contains('\\')
        && path.bytes().all(|byte| (0x21..0x7f).contains(&byte))
}

/// The page for whoever comes without a name: who he is, or the question.
async fn home(state: &AppState, headers: &HeaderMap, query: &SignInQuery) -> Response {
    if let Some(session) = session_of(state, headers).await {
        let body =
            format!("{}<form method=\"post\" action=\"/sign-out\"><button>Sign out</button></form>", who(&session));
        return page(StatusCode::OK, "Signed in", &body);
    }
    question(query, "")
}

/// The page that asks to which organization; what the query says already stands there, and nothing happens before
/// somebody goes on from here.
fn question(query: &SignInQuery, before: &str) -> Response {
    let mut body = format!("{before}<form method=\"get\" action=\"/sign-in\">\n");
    let return_to = query.return_to.clone().filter(|path| is_own_path(path));
    let (port, state) = (query.port.map(|port| port.to_string()), query.state.clone());
    let hidden = [("return_to", return_to), ("port", port), ("state", state), ("challenge", query.challenge.clone())];
    for (name, value) in hidden {
        let Some(value) = value else { continue };
        // Writing to a string does not fail.
        let _ = writeln!(body, "<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(&value));
    }
    let _ = write!(
        body,
        "<label>Organization <input name=\"organization\" value=\"{}\" autocomplete=\"organization\" \
         autocapitalize=\"none\" spellcheck=\"false\" maxlength=\"40\" required autofocus></label>\n\
         <p class=\"hint\">The name that your organization has here, such as acme. You sign in at its own sign-in \
         page.</p>\n<button>Continue</button>\n</form>",
        escape(query.organization.as_deref().unwrap_or_default().trim())
    );
    page(StatusCode::OK, "Sign in", &body)
}

fn who(session: &SessionObject) -> String {
    format!(
        "<p>You are signed in to <strong>{}</strong> as <strong>{}</strong>.</p>\n",
        escape(&session.organization),
        escape(session.email.as_deref().unwrap_or_default())
    )
}

/// The page that asks whether it was really this person's own program that began. A click is the answer: whoever was
/// led here by somebody else's link sees another phrase than his terminal shows, or has none.
fn confirmation(url: &str, phrase: &str, email: &str) -> Response {
    let body = format!(
        "<p>A program on this computer asks to work as <strong>{}</strong>.</p>\n\
         <p>Go on only if you have just run <code>atelier login</code>, and it shows this:</p>\n\
         <p class=\"phrase\">{}</p>\n\
         <a href=\"{}\" class=\"deed\">Continue</a>",
        escape(email),
        escape(phrase),
        escape(url)
    );
    page(StatusCode::OK, "Sign in a program", &body)
}

/// What went wrong, as a page, with a way on. Whoever comes by the back button, or twice, may be signed in all the same.
async fn trouble(state: &AppState, headers: &HeaderMap, error: ApiError) -> Response {
    let message = sentence(&error.body().error.message);
    let (title, still, on) = match session_of(state, headers).await {
        Some(session) => ("Nothing has changed", who(&session), "Go on"),
        None => ("Not signed in", String::new(), "Begin again"),
    };
    let body = format!("<p>{message}</p>\n{still}<a href=\"{HOME}\" class=\"deed\">{on}</a>");
    page(error.status(), title, &body)
}

/// The browser's session, if it has one that is good.
async fn session_of(state: &AppState, headers: &HeaderMap) -> Option<SessionObject> {
    let caller = with_session(state, headers).await?.ok()?;
    session_object(&state.platform, &caller).await.ok()
}

fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let mut response = (status, Html(page::html(title, body))).into_response();
    guard(response.headers_mut());
    response
}

fn redirect(to: &str) -> Response {
    let Ok(location) = HeaderValue::from_str(to) else {
        return ApiError::not_found("There is nowhere to go on to. Begin again.", "not_found").into_response();
    };
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response();
    guard(response.headers_mut());
    response
}

fn add_cookie(response: &mut Response, cookie: Option<HeaderValue>) {
    if let Some(cookie) = cookie {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_goes_on_to_this_server_only() {
        for (path, expected) in [
            ("/", true),
            ("/console/runs?after=x&y=%2F", true),
            ("", false),
            ("console", false),
            ("//evil.example.com", false),
            ("/\\evil.example.com", false),
            ("/a\\b", false),
            ("/a\r\nset-cookie: x=y", false),
            ("/a b", false),
            ("https://evil.example.com", false),
            ("/é", false),
        ] {
            assert_eq!(is_own_path(path), expected, "{path:?}");
        }
        assert!(!is_own_path(&format!("/{}", "a".repeat(RETURN_CHARS_MAX))));
    }
}
