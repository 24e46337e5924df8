//! The two shapes that every resource shares.

use serde::Serialize;
use utoipa::ToSchema;

/// What a deletion answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Deleted {
    /// What was removed.
    pub id: String,
    /// `<kind>.deleted`.
    pub object: &'static str,
    /// Always true.
    pub deleted: bool,
}

impl Deleted {
    /// The answer to removing `id`, where `object` is `<kind>.deleted`.
    pub fn new(id: impl ToString, object: &'static str) -> Self {
        Self { id: id.to_string(), object, deleted: true }
    }
}

/// Whether there may be more than this page of the store's.
pub fn page_has_more<T>(page: &[T]) -> bool {
    page.len() >= atelier_domain::limits::PAGE_ROWS_MAX
}

/// Declares a resource's list object: `{"object": "list", "data": […], "has_more": false}`.
macro_rules! list_object {
    ($(#[$doc:meta])* $name:ident of $item:ty) => {
        $(#[$doc])*
        #[derive(Debug, serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            /// Always `list`.
            pub object: &'static str,
            /// The items.
            pub data: Vec<$item>,
            /// Whether there are more than these.
            pub has_more: bool,
        }

        impl $name {
            /// A list that is complete.
            pub fn whole(data: Vec<$item>) -> Self {
                Self { object: "list", data, has_more: false }
            }
        }
    };
}
pub(crate) use list_object;
