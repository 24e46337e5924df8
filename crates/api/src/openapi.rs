//! `GET /v1/openapi.json`: made from the same list as the router; committed as `docs/openapi.json` and checked.

use std::collections::BTreeMap;

use axum::Json;
use serde_json::{Map, Value, json};

use crate::endpoint::{Access, Answer, Endpoint, NamedSchema};
use crate::matrix;
use crate::router::endpoints;

/// `GET /v1/openapi.json`.
pub async fn read_openapi() -> Json<Value> {
    Json(document())
}

/// The whole document, OpenAPI 3.1, keys in a stable order.
pub fn document() -> Value {
    let mut schemas = BTreeMap::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints() {
        let method = endpoint.method().to_owned();
        let path = endpoint.path;
        paths.entry(path).or_default().insert(method, operation(endpoint, &mut schemas));
    }
    schemas.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Atelier",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One shared base model for code and one small adapter per tenant, behind an \
                            OpenAI-compatible API. Send the key as a bearer token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}
        }
    })
}

fn operation(endpoint: Endpoint, schemas: &mut BTreeMap<String, Value>) -> Value {
    let mut operation = json!({
        "operationId": endpoint.operation,
        "summary": endpoint.summary,
        "x-access": match endpoint.access {
            Access::Anyone => "anyone",
            Access::Tenant => "tenant",
            Access::TenantAdmin => "tenant admin",
            Access::Operator => "operator",
            Access::Invited => "invited",
        },
        "x-roles": matrix::roles(&endpoint),
        "security": if endpoint.access == Access::Anyone { json!([]) } else { json!([{"key": []}]) },
        "parameters": parameters(&endpoint),
    });
    if let Some(schema) = endpoint.takes {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": refer(schema, schemas)}}});
    }
    let (status, success) = match endpoint.answer {
        Some(Answer::Json(status, schema)) => {
            (status.as_u16(), json!({"application/json": {"schema": refer(*schema, schemas)}}))
        }
        Some(Answer::Bytes(content_type)) => (200, json!({ content_type: {} })),
        None => (204, json!({})),
    };
    let failure = json!({"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}});
    operation["responses"] = json!({
        status.to_string(): {"description": "Success", "content": success},
        "default": {"description": "The error envelope", "content": failure},
    });
    operation
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let in_path = endpoint
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = endpoint.query.iter().map(|(name, meaning)| {
        json!({"name": name, "in": "query", "required": false, "description": meaning, "schema": {"type": "string"}})
    });
    in_path.chain(in_query).collect()
}

fn refer(named: NamedSchema, schemas: &mut BTreeMap<String, Value>) -> Value {
    let as_json = |schema| serde_json::to_value(schema).unwrap_or_default();
    for (name, schema) in named.referred {
        schemas.insert(name, as_json(schema));
    }
    let reference = format!("#/components/schemas/{}", named.name);
    schemas.insert(named.name, as_json(named.schema));
    json!({"$ref": reference})
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "What was wrong and what to do next"},
                "type": {"type": "string", "description": "The family of the error"},
                "param": {"type": ["string", "null"], "description": "The parameter at fault"},
                "code": {"type": ["string", "null"], "description": "A stable word for programs"}
            }
        }}
    })
}
