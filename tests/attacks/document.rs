//! The committed OpenAPI document as a list of things that can be asked.

use serde_json::Value;

/// One operation of the document.
#[derive(Debug)]
pub struct Operation {
    pub id: String,
    pub method: String,
    pub path: String,
    /// The least standing that it asks for, in the document's words.
    pub access: String,
    /// The roles that it lets in.
    pub roles: Vec<String>,
    /// Every parameter: of the path, of the query, and the fields of a JSON body.
    pub parameters: Vec<Parameter>,
}

#[derive(Debug)]
pub struct Parameter {
    pub name: String,
    pub place: Place,
    pub required: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Path,
    Query,
    Body,
}

impl Operation {
    pub fn is_open(&self) -> bool {
        self.access == "anyone"
    }

    /// A body with what is required and nothing else, out of these values.
    pub fn required_body(&self, values: &Value) -> Value {
        let required = self.parameters.iter().filter(|parameter| parameter.place == Place::Body && parameter.required);
        required.map(|parameter| (parameter.name.clone(), values[&parameter.name].clone())).collect()
    }

    pub fn has_body(&self) -> bool {
        self.parameters.iter().any(|parameter| parameter.place == Place::Body)
    }
}

/// All operations, in the document's order.
pub fn operations() -> Vec<Operation> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let document: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            found.push(Operation {
                id: text("operationId"),
                method: method.to_uppercase(),
                path: path.clone(),
                access: text("x-access"),
                roles: operation["x-roles"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|role| role.as_str().unwrap().to_owned())
                    .collect(),
                parameters: parameters(&document, operation),
            });
        }
    }
    found
}

fn parameters(document: &Value, operation: &Value) -> Vec<Parameter> {
    let listed = operation["parameters"].as_array().unwrap().iter().map(|parameter| Parameter {
        name: parameter["name"].as_str().unwrap().to_owned(),
        place: match parameter["in"].as_str().unwrap() {
            "path" => Place::Path,
            "query" => Place::Query,
            other => panic!("a parameter in {other}: the attack suite must learn of it"),
        },
        required: parameter["required"] == true,
    });
    let mut all: Vec<Parameter> = listed.collect();
    if let Some(content) = operation["requestBody"]["content"].as_object() {
        for body in content.values().filter(|body| !body["schema"].is_null()) {
            fields(document, &body["schema"], &mut all);
        }
    }
    all
}

/// The fields of an object, and of what it is put together from.
fn fields(document: &Value, schema: &Value, found: &mut Vec<Parameter>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        return fields(document, document.pointer(pointer).expect("what is referred to is there"), found);
    }
    for part in ["allOf", "oneOf", "anyOf"].iter().filter_map(|way| schema[*way].as_array()).flatten() {
        fields(document, part, found);
    }
    let required = schema["required"].as_array();
    for name in schema["properties"].as_object().into_iter().flat_map(|properties| properties.keys()) {
        let is_required = required.is_some_and(|names| names.iter().any(|other| other == name));
        if !found.iter().any(|known| known.place == Place::Body && known.name == *name) {
            found.push(Parameter { name: name.clone(), place: Place::Body, required: is_required });
        }
    }
}
