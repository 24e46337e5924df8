//! One endpoint: what the router mounts and the OpenAPI document describes, told once.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::MethodRouter;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::state::AppState;

/// The least standing an endpoint asks for. What a caller may really do is decided by `access`; this is what the
/// document says, and a test holds the two together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// No key.
    Anyone,
    /// Any key of the tenant.
    Tenant,
    /// A key of the tenant with the admin role.
    TenantAdmin,
    /// The operator's key.
    Operator,
    /// The secret of an invite.
    Invited,
}

/// A JSON schema and the ones that it refers to.
pub(crate) struct NamedSchema {
    pub(crate) name: String,
    pub(crate) schema: RefOr<Schema>,
    pub(crate) referred: Vec<(String, RefOr<Schema>)>,
}

impl NamedSchema {
    fn of<T: ToSchema>() -> Self {
        let mut referred = Vec::new();
        T::schemas(&mut referred);
        Self { name: T::name().into_owned(), schema: <T as PartialSchema>::schema(), referred }
    }
}

/// What a successful answer carries.
pub(crate) enum Answer {
    Json(StatusCode, Box<NamedSchema>),
    Bytes(&'static str),
}

/// One endpoint of the server.
pub struct Endpoint {
    pub(crate) operation: &'static str,
    pub(crate) access: Access,
    pub(crate) path: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) query: Vec<(&'static str, &'static str)>,
    pub(crate) takes: Option<NamedSchema>,
    pub(crate) answer: Option<Answer>,
    body_bytes_max: Option<usize>,
    handler: MethodRouter<AppState>,
}

impl Endpoint {
    /// An endpoint; `operation` is the handler's name and the operation id.
    pub fn new(operation: &'static str, access: Access, handler: MethodRouter<AppState>, path: &'static str) -> Self {
        Self {
            operation,
            access,
            path,
            summary: "",
            query: Vec::new(),
            takes: None,
            answer: None,
            body_bytes_max: None,
            handler,
        }
    }

    /// One line on what it does.
    pub fn about(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// A query parameter and what it means.
    pub fn query(mut self, name: &'static str, meaning: &'static str) -> Self {
        self.query.push((name, meaning));
        self
    }

    /// The JSON body.
    pub fn takes<T: ToSchema>(mut self) -> Self {
        self.takes = Some(NamedSchema::of::<T>());
        self
    }

    /// Another limit than the server's usual one on the body, in bytes.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_bytes_max = Some(bytes);
        self
    }

    /// The JSON of a successful answer.
    pub fn gives<T: ToSchema>(mut self, status: StatusCode) -> Self {
        self.answer = Some(Answer::Json(status, Box::new(NamedSchema::of::<T>())));
        self
    }

    /// A successful answer that is not one of our JSON objects.
    pub fn gives_bytes(mut self, content_type: &'static str) -> Self {
        self.answer = Some(Answer::Bytes(content_type));
        self
    }

    /// The operation id.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The path pattern.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// The least standing asked for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// HTTP method, from the word that the operation id begins with: the naming rule of this crate.
    pub fn method(&self) -> &'static str {
        match self.operation.split('_').next().unwrap_or_default() {
            "create" | "cancel" | "rotate" | "modify" | "archive" | "accept" => "post",
            "update" => "patch",
            "move" | "set" => "put",
            "delete" => "delete",
            _ => "get",
        }
    }

    pub(crate) fn mount(router: Router<AppState>, endpoint: Self) -> Router<AppState> {
        let handler = match endpoint.body_bytes_max {
            Some(bytes) => endpoint.handler.layer(DefaultBodyLimit::max(bytes)),
            None => endpoint.handler,
        };
        router.route(endpoint.path, handler)
    }
}
