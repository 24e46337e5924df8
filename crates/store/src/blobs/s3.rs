//! S3-compatible stores: what an operator says about one, and the buckets that are opened with it.
//!
//! Credentials come in as settings, are handed to the client and printed nowhere; what a store answers when it refuses
//! is cut down to status and code, because some repeat what was signed.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use atelier_domain::limits::{
    BLOB_CONNECT_TIMEOUT, BLOB_PAUSE_MAX, BLOB_RETRIES_MAX, BLOB_RETRY_TIME_MAX, BUCKET_PREFIX_BYTES_MAX,
};
use atelier_domain::{BucketName, ParseError};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsCredentialProvider};
use object_store::path::Path as Location;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use parking_lot::Mutex;

use crate::error::StoreError;

/// The usual variables that say by which right a bucket is opened, and where.
pub const S3_SETTINGS: [&str; 14] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_ENDPOINT_URL_STS",
];
/// Those of them that say where, most particular first.
const ENDPOINT_SETTINGS: [&str; 2] = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
const SCHEME: &str = "s3://";
const SECURE: &str = "https://";
const PLAIN: &str = "http://";
/// Pauses between two tries: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// `s3://bucket/prefix`: where the blobs of all tenants are that have no bucket of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    bucket: BucketName,
    /// Without slashes at its ends; empty for the whole bucket.
    prefix: String,
}

impl S3Address {
    /// The bucket.
    #[must_use]
    pub fn bucket(&self) -> &BucketName {
        &self.bucket
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl FromStr for S3Address {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let wrong = |reason| ParseError { what: "address of blobs", reason };
        let rest = text.strip_prefix(SCHEME).ok_or(wrong("s3://bucket or s3://bucket/prefix"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_part = |part: &str| {
            !matches!(part, "" | "." | "..")
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        };
        if prefix.len() > BUCKET_PREFIX_BYTES_MAX || !(prefix.is_empty() || prefix.split('/').all(is_part)) {
            return Err(wrong("a prefix of letters, digits, '-', '_' and '.', its parts separated by one '/' each"));
        }
        Ok(Self { bucket: bucket.parse()?, prefix: prefix.to_owned() })
    }
}

/// Blobs on an S3-compatible store. The process must have cryptography for TLS installed. Prints without credentials.
#[derive(Clone)]
pub struct S3Options {
    /// Bucket and prefix.
    pub address: S3Address,
    /// Where the store is, as `https://host:port`; Amazon's in the region when absent here and in the settings.
    pub endpoint: Option<String>,
    /// The store's region; `us-east-1` when absent here and in the settings.
    pub region: Option<String>,
    /// Whether a bucket is named in the path, as small stores have it, rather than in the host.
    pub path_style: bool,
    /// Whether an endpoint without TLS will do.
    pub allow_http: bool,
    /// Credentials and where to get them: values of [`S3_SETTINGS`], by name. Without any, those of the machine.
    pub settings: Vec<(String, String)>,
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Options").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// A store, from which buckets are opened.
pub(crate) struct S3 {
    options: S3Options,
    endpoint: Option<String>,
    /// One source of credentials for all buckets, which renews them once for all.
    credentials: Mutex<Option<AwsCredentialProvider>>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.options.fmt(f)
    }
}

impl S3 {
    /// Takes what was said, unless it cannot be meant; asks nobody.
    pub(crate) fn new(options: S3Options) -> Result<Self, StoreError> {
        let setting = |name: &&str| options.settings.iter().find(|(known, _)| known == name).map(|(_, value)| value);
        let endpoint = options.endpoint.as_ref().or_else(|| ENDPOINT_SETTINGS.iter().find_map(setting));
        let endpoint =
            endpoint.map(|endpoint| check_endpoint(endpoint, options.allow_http, options.path_style)).transpose()?;
        Ok(Self { endpoint, options, credentials: Mutex::default() })
    }

    /// The bucket and prefix that tenants share.
    pub(crate) fn address(&self) -> &S3Address {
        &self.options.address
    }

    /// The shared bucket, at its prefix.
    pub(crate) fn home(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let objects = self.open(&self.options.address.bucket)?;
        match self.options.address.prefix.as_str() {
            "" => Ok(Arc::new(objects)),
            prefix => Ok(Arc::new(PrefixStore::new(objects, Location::from(prefix)))),
        }
    }

    /// A bucket of one tenant's own, whole.
    pub(crate) fn bucket(&self, name: &BucketName) -> Result<Arc<dyn ObjectStore>, StoreError> {
        Ok(Arc::new(self.open(name)?))
    }

    fn open(&self, bucket: &BucketName) -> Result<AmazonS3, StoreError> {
        let (first_pause, longest_pause) = RETRY_PAUSES;
        let backoff = BackoffConfig { init_backoff: first_pause, max_backoff: longest_pause, base: 2.0 };
        let retry = RetryConfig { backoff, max_retries: BLOB_RETRIES_MAX, retry_timeout: BLOB_RETRY_TIME_MAX };
        // A blob takes its time; what may not be is that nothing comes.
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_connect_timeout(BLOB_CONNECT_TIMEOUT)
            .with_read_timeout(BLOB_PAUSE_MAX)
            .with_http1_only();
        let mut builder = AmazonS3Builder::new();
        for (name, value) in &self.options.settings {
            let is_known = S3_SETTINGS.contains(&name.as_str()) && !ENDPOINT_SETTINGS.contains(&name.as_str());
            if let Some(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok().filter(|_| is_known) {
                builder = builder.with_config(key, value);
            }
        }
        builder = builder
            .with_bucket_name(bucket.as_str())
            .with_client_options(client)
            .with_allow_http(self.options.allow_http)
            .with_virtual_hosted_style_request(!self.options.path_style)
            .with_retry(retry)
            // A request for each: not every store knows the other, and none of ours has so many.
            .with_disable_bulk_delete(true);
        if let Some(region) = &self.options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(self.endpoint_of(endpoint, bucket));
        }
        let mut credentials = self.credentials.lock();
        if let Some(credentials) = &*credentials {
            builder = builder.with_credentials(Arc::clone(credentials));
        }
        let opened = builder.build().map_err(|error| refused(&error))?;
        credentials.get_or_insert_with(|| Arc::clone(opened.credentials()));
        Ok(opened)
    }

    /// Where a bucket is found: with its name in the host unless it belongs in the path.
    fn endpoint_of(&self, endpoint: &str, bucket: &BucketName) -> String {
        match endpoint.split_once("://").filter(|_| !self.options.path_style) {
            Some((scheme, host)) => format!("{scheme}://{bucket}.{host}"),
            None => endpoint.to_owned(),
        }
    }
}

fn check_endpoint(endpoint: &str, allow_http: bool, path_style: bool) -> Result<String, StoreError> {
    let wrong = |what: &str| Err(StoreError::BlobsMisnamed { what: what.to_owned() });
    let endpoint = endpoint.trim_end_matches('/');
    let Some(host) = endpoint.strip_prefix(SECURE).or_else(|| endpoint.strip_prefix(PLAIN)) else {
        return wrong("the endpoint is https://HOST or https://HOST:PORT");
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(is_host) {
        return wrong("the endpoint is https://HOST or https://HOST:PORT, without a path and without credentials");
    }
    if endpoint.starts_with(PLAIN) && !allow_http {
        return wrong(
            "the endpoint speaks plain HTTP, over which others can read and change what passes: use https://, or say \
             --blobs-allow-http where nobody else is on the line",
        );
    }
    if is_address(host) && !path_style {
        return wrong(
            "the endpoint is an address, before which no bucket's name can stand: give it a name, or say \
             --blobs-path-style",
        );
    }
    Ok(endpoint.to_owned())
}

/// Whether a host, with its port or without, is an IP address.
fn is_address(host: &str) -> bool {
    host.parse::<SocketAddr>().is_ok() || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok()
}

/// What a store said, or why it said nothing; without what may hold more than that.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{said}")]
pub(crate) struct S3Failure {
    said: String,
    code: Option<String>,
}

const NO_BUCKET: &str = "NoSuchBucket";

/// Whether the store said that there is no such bucket.
pub(crate) fn is_no_bucket(error: &StoreError) -> bool {
    let StoreError::BlobsUnreachable { source } = error else { return false };
    source.downcast_ref::<S3Failure>().is_some_and(|failure| failure.code.as_deref() == Some(NO_BUCKET))
}

/// Whether there is no such object, rather than no such bucket.
pub(crate) fn is_missing(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && code_in(&chain_of(error)) != Some(NO_BUCKET)
}

/// An error of ours.
pub(crate) fn refused(error: &object_store::Error) -> StoreError {
    let text = chain_of(error);
    let failure = S3Failure { said: said(&text), code: code_in(&text).map(str::to_owned) };
    StoreError::BlobsUnreachable { source: Arc::new(failure) }
}

/// The same in our own words.
pub(crate) fn failure(said: impl Into<String>) -> StoreError {
    StoreError::BlobsUnreachable { source: Arc::new(S3Failure { said: said.into(), code: None }) }
}

/// All that an error and its causes say, each once.
fn chain_of(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

/// The code in the document with which a store refuses.
fn code_in(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<Code>")?;
    let (code, _) = rest.split_once("</Code>")?;
    code.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(code)
}

/// Up to the status and no body, then the code.
fn said(text: &str) -> String {
    const STATUS: &str = "status code: ";
    const BODY: &str = "error response:";
    let end = match (text.find(STATUS), text.find(BODY)) {
        (Some(at), _) => text[at + STATUS.len()..].find(':').map_or(text.len(), |end| at + STATUS.len() + end),
        (None, Some(at)) => at + BODY.len() - 1,
        (None, None) => text.find('<').unwrap_or(text.len()),
    };
    let short = text[..end].trim_end();
    code_in(text).map_or_else(|| short.to_owned(), |code| format!("{short} ({code})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_address(text: &str, expected: Option<&str>) {
        let parsed = text.parse::<S3Address>().ok().map(|address| address.to_string());
        assert_eq!(parsed.as_deref(), expected, "{text:?}");
    }

    #[test]
    fn addresses_name_a_bucket_and_what_lies_below_it() {
        check_address("s3://code", Some("s3://code"));
        check_address("s3://code/", Some("s3://code"));
        check_address("s3://code/prod/eu-1/", Some("s3://code/prod/eu-1"));
        for wrong in ["", "code", "s3://", "s3://ab", "s3:///x", "s3://code//x", "s3://code/../x", "s3://code/a b"] {
            check_address(wrong, None);
        }
        check_address("https://code.s3.amazonaws.com", None);
        check_address(&format!("s3://code/{}", "x".repeat(BUCKET_PREFIX_BYTES_MAX + 1)), None);
    }

    #[track_caller]
    fn check_endpoint_is(endpoint: &str, allow_http: bool, taken: bool) {
        assert_eq!(check_endpoint(endpoint, allow_http, true).is_ok(), taken, "{endpoint:?}");
    }

    #[test]
    fn endpoints_speak_tls_unless_it_is_said_and_hold_no_credentials() {
        check_endpoint_is("https://s3.example.com", false, true);
        check_endpoint_is("https://s3.example.com:9000/", false, true);
        check_endpoint_is("http://127.0.0.1:9000", true, true);
        check_endpoint_is("http://127.0.0.1:9000", false, false);
        for address in ["http://127.0.0.1:9000", "https://10.0.0.1", "https://[::1]:9000", "https://[::1]"] {
            assert!(check_endpoint(address, true, false).is_err(), "a bucket's name before {address}");
        }
        assert!(check_endpoint("https://s3.example.com:9000", true, false).is_ok());
        for wrong in ["s3.example.com", "https://", "https://me:secret@host", "https://host/path", "https://host?x=1"] {
            check_endpoint_is(wrong, true, false);
        }
    }

    #[test]
    fn a_bucket_is_named_in_the_host_or_in_the_path() {
        let options = |path_style| S3Options {
            address: "s3://code/x".parse().unwrap(),
            endpoint: Some("https://s3.example.com:9000".to_owned()),
            region: None,
            path_style,
            allow_http: false,
            settings: Vec::new(),
        };
        let bucket: BucketName = "acme".parse().unwrap();
        let endpoint = |path_style| {
            let s3 = S3::new(options(path_style)).unwrap();
            s3.endpoint_of(s3.endpoint.as_deref().unwrap(), &bucket)
        };
        assert_eq!(endpoint(true), "https://s3.example.com:9000");
        assert_eq!(endpoint(false), "https://acme.s3.example.com:9000");
    }

    #[test]
    fn a_refusal_keeps_status_and_code_and_nothing_that_was_signed() {
        let answer = "Error performing PUT https://s3.example.com/b/k in 3ms - Server returned non-2xx status code: 403 \
            Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIDSECRET\
            </AWSAccessKeyId><StringToSign>x</StringToSign></Error>";
        let said = said(answer);
        assert!(said.ends_with("status code: 403 Forbidden (SignatureDoesNotMatch)"), "{said}");
        assert!(!said.contains("AKIDSECRET"), "{said}");
        assert_eq!(super::said("Server returned error response: <Error>AKIDSECRET"), "Server returned error response");
        assert_eq!(super::said("HTTP error: connection refused"), "HTTP error: connection refused");
    }

    #[test]
    fn options_print_no_credentials() {
        let settings = vec![("AWS_SECRET_ACCESS_KEY".to_owned(), "hush-hush".to_owned())];
        let options = S3Options {
            address: "s3://code".parse().unwrap(),
            endpoint: None,
            region: None,
            path_style: false,
            allow_http: false,
            settings,
        };
        assert!(!format!("{options:?}").contains("hush"));
    }
}
