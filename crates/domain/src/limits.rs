//! Every bound of the program, with its unit and its reason. Relations between bounds are checked when this compiles.

use std::time::Duration;

const MIB: usize = 1 << 20;

// Names and keys.

/// Bytes of a tenant's name or a suffix: four of them and the separators stay below 200 bytes in a model name.
pub const SLUG_BYTES_MAX: usize = 40;
/// Bytes of a source's name: a path or a title, shown in lists.
pub const SOURCE_NAME_BYTES_MAX: usize = 256;
/// Bytes of an idempotency key, as the HTTP draft's implementations commonly allow.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Bytes of what people call a key, a project or a person: a line of a list.
pub const LABEL_BYTES_MAX: usize = 200;
/// Bytes of an email address, as mail systems have it.
pub const EMAIL_BYTES_MAX: usize = 254;
/// Bytes of an email address before its @, as mail systems have it.
pub const EMAIL_LOCAL_BYTES_MAX: usize = 64;
/// Living projects of one tenant: one for each repository of a large company.
pub const PROJECTS_PER_TENANT_MAX: usize = 1_000;
/// People of one tenant: one for each developer of a large company.
pub const USERS_PER_TENANT_MAX: usize = 10_000;
/// Invites of one tenant that wait: a department that moves in at once.
pub const INVITES_PER_TENANT_MAX: usize = 1_000;
/// Projects that one invite names.
pub const PROJECTS_PER_INVITE_MAX: usize = 20;
/// How long an invite waits: a holiday is no reason to be invited anew.
pub const INVITE_LIFETIME: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Service accounts of one tenant: as many as it may have keys.
pub const SERVICE_ACCOUNTS_PER_TENANT_MAX: usize = KEYS_PER_TENANT_MAX;
/// How long a key may be made for, as OpenAI's API has it: a year.
pub const KEY_LIFETIME_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How stale what a process remembers of keys may be: with [`STREAM_RECHECK_INTERVAL`] well inside the second in which
/// a revocation takes effect everywhere.
pub const KEY_CHANGES_INTERVAL: Duration = Duration::from_millis(400);
/// How often open streams are held against the keys that opened them.
pub const STREAM_RECHECK_INTERVAL: Duration = Duration::from_millis(200);
/// Looks at a stream's key that may fail in a row before the stream is cut: a second of a database that does not answer.
pub const STREAM_RECHECK_FAILURES_MAX: u32 = 5;
/// Living keys of one tenant: enough for every machine of a team, few enough to list in one page.
pub const KEYS_PER_TENANT_MAX: usize = 1_000;
/// Key records held in memory so that a request costs no read: about 300 bytes each.
pub const KEY_CACHE_RECORDS_MAX: usize = 10_000;
/// How stale a key's `last used` may be: one write a minute for a key in constant use.
pub const KEY_LAST_USED_INTERVAL: Duration = Duration::from_secs(60);

// Connections.

/// Connections open at once, each with a file handle and some 100 KiB of buffers; whoever comes then takes the place of
/// one that waits. A thousand editors, each of which keeps one.
pub const CONNECTIONS_MAX: usize = 1_024;
/// Connections beyond those while all are at work: in them the server's health can be asked for, and everybody else is
/// told to come back. As many as probes and their retries need.
pub const CONNECTIONS_SPARE: usize = 16;
/// How long a connection may wait for a head before it must give its place to another where none is free: a request is
/// on its way by then.
pub const CONNECTION_WAIT_MIN: Duration = Duration::from_secs(1);
/// How long a connection in a spare place may take to send its request's head.
pub const SPARE_HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a client that sends no more, and may be gone, is still answered: a short answer is on its way by then, and
/// of a long one not many tokens are made for nobody.
pub const HALF_CLOSE_GRACE: Duration = Duration::from_secs(2);
/// How long a TLS handshake may take: four messages, even over a satellite.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may take to send a request's head, and how long it may lie idle before the next: longer than
/// the pause between two words that somebody types, shorter than patience with a client that sends a byte a second.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Headers of a request: browsers and proxies send about thirty.
pub const REQUEST_HEADERS_MAX: usize = 64;
/// Bytes of a request's head, from its first line to the empty one: as proxies commonly allow.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// Bytes that a connection reads ahead: a head of any length within its limit, and steps in which a body comes in.
pub const CONNECTION_BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long a request's body may pause: a line that is lost for a moment sends again within seconds.
pub const REQUEST_BODY_PAUSE_MAX: Duration = Duration::from_secs(20);
/// How long a request's body may take: the largest archive over a line of 1 Mbit/s.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(600);
/// How long a client may leave sent bytes unacknowledged, be it gone or not reading, before its connection is closed.
pub const CLIENT_STALL_MAX: Duration = Duration::from_secs(60);
/// How often the files of certificate and key are looked at: a renewed certificate is served soon after it lies there.
pub const CERTIFICATE_CHECK_INTERVAL: Duration = Duration::from_secs(2);

// Requests.

/// Bytes of a JSON body: a prompt of the longest context in tokens of ten bytes each, escaped, fits easily.
pub const REQUEST_BODY_BYTES_MAX: usize = 4 * MIB;
/// Choices (`n`) of one completion request: each takes a slot of the batch.
pub const CHOICES_MAX: u32 = 8;
/// Prompts times choices of one completion request: half of the batch's slots.
pub const CHOICES_PER_REQUEST_MAX: usize = 32;
/// Tokens that one choice may generate: the context of the base that ships, and minutes of a small machine's time.
pub const COMPLETION_TOKENS_MAX: u32 = 2_048;
/// Temperature: above 2 the text is noise.
pub const TEMPERATURE_MAX: f32 = 2.0;
/// Completion requests of one tenant that run or wait at once: a team's editors, not a whole queue.
pub const TENANT_REQUESTS_MAX: usize = 64;
/// Streams of run events of one tenant at once: each asks the database four times a second.
pub const TENANT_FOLLOWERS_MAX: usize = 32;
/// Events of a stream that wait for a slow client; more wait in the engine, which keeps all that a request can have.
pub const STREAM_EVENTS_MAX: usize = 64;
/// How long streams may go on once the server is told to stop; then they are cut and settled.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// Stop strings of a request, as OpenAI's API has it.
pub const STOP_STRINGS_MAX: usize = 4;
/// Bytes of one stop string: the text held back while one may still match.
pub const STOP_STRING_BYTES_MAX: usize = 256;
/// Alternatives per token in `logprobs`, as OpenAI's completions API has it.
pub const LOGPROBS_MAX: u8 = 5;
/// Tokens generated when a request names no `max_tokens`, as OpenAI's completions API has it.
pub const COMPLETION_TOKENS_DEFAULT: usize = 16;
/// Rows of one page of a list.
pub const PAGE_ROWS_MAX: usize = 100;
/// Rows of a page of projects, people or their keys when a request names no `limit`, as OpenAI's API has it.
pub const PAGE_ROWS_DEFAULT: usize = 20;
/// Values of one filter of a list: as many as fit a readable address.
pub const FILTER_VALUES_MAX: usize = 100;

// Engine.

/// Rows (decode and prefill together) of one step: past this a step's arithmetic no longer gains from more rows.
pub const STEP_TOKEN_BUDGET: usize = 512;
/// Sequences that decode at once: one row each in every step.
pub const SLOTS_MAX: usize = 64;
/// Prompt tokens of one sequence in one step: bounds how long others wait for a long prompt.
pub const PREFILL_CHUNK_TOKENS: usize = 256;
/// Requests that wait for a slot: past this a client does better to try again later.
pub const QUEUE_LENGTH_MAX: usize = 1_024;
/// Blocks of the key/value cache: 65,536 tokens.
pub const KV_BLOCKS: usize = 4_096;
/// Bytes of adapters kept in memory, beside those in use.
pub const ADAPTER_BYTES_MAX: usize = 1_024 * MIB;

// Sources.

/// Bytes of an uploaded archive, compressed.
pub const SOURCE_ARCHIVE_BYTES_MAX: usize = 64 * MIB;
/// Bytes of an archive's content: stops archives that unpack without end.
pub const SOURCE_UNPACKED_BYTES_MAX: usize = 512 * MIB;
/// Bytes of one file that is learned from: larger ones are data or generated.
pub const SOURCE_FILE_BYTES_MAX: usize = MIB;
/// Files of one source.
pub const SOURCE_FILES_MAX: usize = 50_000;
/// Entries of an archive or a folder that are looked at, learned from or not: bounds the work on hostile ones.
pub const SOURCE_ENTRIES_MAX: usize = 200_000;
/// Bytes of a path inside a source.
pub const SOURCE_PATH_BYTES_MAX: usize = 1_024;
/// How many times its size an archive may unpack to: code does 3 to 20 times, repeated zeros do 1,000 times.
pub const SOURCE_COMPRESSION_RATIO_MAX: u64 = 200;
/// Unpacked bytes below which the ratio is not asked for: small archives of repeated code are honest.
pub const SOURCE_COMPRESSION_FREE_BYTES: u64 = 16 << 20;
/// Sources read and packed at once: each takes a core and up to twice an archive of memory.
pub const SOURCE_INSPECTIONS_MAX: usize = 2;
/// Sources of one tenant.
pub const SOURCES_PER_TENANT_MAX: usize = 1_000;

// Runs and jobs.

/// How long a claimed job is its worker's without a sign of life.
pub const JOB_LEASE: Duration = Duration::from_secs(30);
/// How often a worker gives a sign of life.
pub const JOB_HEARTBEAT: Duration = Duration::from_secs(10);
/// Failures that a job may report before it is given up.
pub const JOB_FAILURES_MAX: u32 = 3;
/// Workers that may die on a job in a row, no checkpoint between them, before it is quarantined as poison.
pub const JOB_CRASHES_MAX: u32 = 3;
/// How long a job waits after its first failure; doubled after each further one.
pub const JOB_RETRY_DELAY: Duration = Duration::from_secs(5);
/// How long a job of a suspended tenant is left alone before it is looked at again: when the tenant goes on, its jobs
/// are made due at once.
pub const JOB_SUSPENDED_DELAY: Duration = Duration::from_secs(600);
/// Runs of one tenant that wait or run: an adapter trained twice on the same code helps nobody.
pub const RUNS_OPEN_PER_TENANT_MAX: usize = 16;
/// Time between two events about training steps: as often as a progress bar needs.
pub const RUN_STEP_EVENT_INTERVAL: Duration = Duration::from_millis(500);
/// How often an idle worker looks for jobs that no signal told it of.
pub const JOB_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Progress events of one run; what says how it ended is always written.
pub const RUN_EVENTS_MAX: usize = 20_000;
/// Bytes of one run event.
pub const RUN_EVENT_BYTES_MAX: usize = 16 * 1_024;
/// Bytes of an error message kept with a run.
pub const RUN_ERROR_BYTES_MAX: usize = 4_096;
/// Bytes of a training checkpoint: adapter and optimiser state of rank 64 on a model of 1.5 B fit.
pub const CHECKPOINT_BYTES_MAX: usize = 1_024 * MIB;
/// Adapters that the engine may be asked to load: one entry of a map each.
pub const ADAPTER_GRANTS_MAX: usize = 100_000;
/// Bytes of an adapter's files.
pub const ADAPTER_FILE_BYTES_MAX: usize = 512 * MIB;

// Metering.

/// Rows of the ledger that one commit carries.
pub const USAGE_GROUP_ROWS_MAX: usize = 256;
/// Ledger rows that wait for their commit before writers must wait: sixteen groups.
pub const USAGE_QUEUE_ROWS_MAX: usize = 4_096;
/// Generated tokens between two checkpoints of a stream: the most that a crash leaves unbilled.
pub const USAGE_CHECKPOINT_TOKENS: u64 = 64;
/// Tokens that a stream may have made beyond what the ledger holds of it, while that cannot be written: then it is cut.
/// Two checkpoints' worth.
pub const USAGE_UNWRITTEN_TOKENS_MAX: u64 = 128;
/// Time between two checkpoints of a stream.
pub const USAGE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
/// Buckets of one minute in one usage answer, as OpenAI's API has it.
pub const USAGE_BUCKETS_MINUTE_MAX: usize = 1_440;
/// Buckets of one hour in one usage answer, as OpenAI's API has it.
pub const USAGE_BUCKETS_HOUR_MAX: usize = 168;
/// Buckets of one day in one usage answer, as OpenAI's API has it.
pub const USAGE_BUCKETS_DAY_MAX: usize = 31;

// Audit.

/// Events of one page of the trail, as OpenAI's API has it.
pub const AUDIT_PAGE_ROWS_MAX: usize = 100;
/// Events of a page when a request names no `limit`, as OpenAI's API has it.
pub const AUDIT_PAGE_ROWS_DEFAULT: usize = 20;
/// Events that a check of a chain reads at once.
pub const AUDIT_CHECK_ROWS: usize = 500;
/// Checks of audit trails at once: each reads and hashes whole chains.
pub const AUDIT_CHECKS_MAX: usize = 2;
/// Time between two events about one key that is refused the same thing again, or one operator who looks at the same
/// kind of thing of one tenant again; what lies between is counted. A minute: an attacker's loop writes 1,440 rows a day.
pub const AUDIT_NOTE_INTERVAL: Duration = Duration::from_secs(60);
/// Pairs of key and action that are told apart for that, about 300 bytes each; past it nothing new is noted until one is
/// a minute old, so that no more rows than these come in a minute whatever is sent.
pub const AUDIT_NOTES_MAX: usize = 4_096;
/// How many of them may be one tenant's: all actions by two keys, or a few by many.
pub const AUDIT_NOTES_PER_TENANT_MAX: usize = 64;
/// Notes that wait to be written.
pub const AUDIT_NOTES_QUEUE_MAX: usize = 256;
/// Values of one filter of the trail: as many as fit a readable address.
pub const AUDIT_FILTER_VALUES_MAX: usize = 100;

// Sign-on.

/// Bytes of an issuer's address, or of one that its document names.
pub const ISSUER_URL_BYTES_MAX: usize = 512;
/// Bytes of the id under which an issuer knows Atelier.
pub const CLIENT_ID_BYTES_MAX: usize = 512;
/// Bytes of the secret that goes with it.
pub const CLIENT_SECRET_BYTES_MAX: usize = 1_024;
/// Domains of email addresses from which people may come by themselves: those of a company and its daughters.
pub const SIGN_ON_DOMAINS_MAX: usize = 50;
/// Bytes of an issuer's document, which large ones fill with 10 KiB.
pub const ISSUER_DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Bytes of an issuer's keys: dozens, with certificates that nobody asked for.
pub const ISSUER_KEYS_BYTES_MAX: usize = 256 << 10;
/// Keys of one issuer: more than a rotation needs.
pub const ISSUER_KEYS_MAX: usize = 64;
/// Bytes of an issuer's answer to a code: three tokens, one of them with hundreds of groups.
pub const ISSUER_ANSWER_BYTES_MAX: usize = 128 << 10;
/// How long an issuer may take for one answer: somebody waits before a browser.
pub const ISSUER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what an issuer says of itself is believed without looking again.
pub const ISSUER_CACHE_TIME: Duration = Duration::from_secs(600);
/// Time between two looks for a key that an issuer did not have before.
pub const ISSUER_KEYS_REFETCH_INTERVAL: Duration = Duration::from_secs(30);
/// Issuers whose document and keys are remembered, about 20 KiB each.
pub const ISSUERS_CACHED_MAX: usize = 256;
/// Requests to all issuers at once.
pub const ISSUER_REQUESTS_MAX: usize = 32;
/// Requests to the issuers of one tenant at once: those that hang leave room for the others.
pub const ISSUER_REQUESTS_OF_TENANT_MAX: usize = 8;
/// How far an issuer's clock may be from ours.
pub const ISSUER_CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How long signing in may take: a forgotten password and a second factor.
pub const SIGN_IN_TIME_MAX: Duration = Duration::from_secs(600);
/// How long a program on somebody's machine may take to fetch its key: until a page was read and a button pressed.
pub const SIGN_IN_CODE_TIME_MAX: Duration = Duration::from_secs(300);
/// Refused sign-ins of one tenant that are written into its audit trail in a minute; the others are counted by metrics.
pub const SIGN_IN_REFUSALS_NOTED_MAX: u32 = 10;
/// How long a browser may do nothing before its session ends: a meeting and lunch.
pub const SESSION_IDLE_MAX: Duration = Duration::from_secs(2 * 60 * 60);
/// How long a browser's session lasts at most: a working day, until the issuer is asked again.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 60 * 60);
/// How long the key lives that signing in gives to a command line or an editor: asked for once a day.
pub const LOGIN_KEY_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Living sessions of one person, and as many keys by signing in: browsers and machines that one forgets; past it the
/// oldest ends.
pub const SESSIONS_PER_USER_MAX: usize = 20;
/// How long keys by signing in are still listed after their end: for whoever asks what they were.
pub const SIGN_IN_KEYS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

// Erasing.

/// Pauses between two tries to go on with an erasure that something stands in the way of: the first, and the longest.
pub const ERASURE_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

// Exports.

/// Exports of whole tenants at once, one of each: each holds a blob in memory and a thread.
pub const EXPORTS_MAX: usize = 4;
/// Bytes of an export that go out at once.
pub const EXPORT_CHUNK_BYTES: usize = 64 << 10;
/// Chunks of an export that wait for a slow client.
pub const EXPORT_CHUNKS_MAX: usize = 8;
/// How long a client may take for the next chunk of an export: whoever is slower than 2 KiB/s keeps others from theirs.
pub const EXPORT_CHUNK_TIME_MAX: Duration = Duration::from_secs(30);
/// Rows of one file of an export: a few MiB of lines.
pub const EXPORT_ROWS_PER_FILE: usize = 10_000;
/// Rows of the ledger that an export reads at once.
pub const EXPORT_PAGE_ROWS: usize = 500;

// Storage.

/// Tenants' database files open at once: each costs up to three threads and file handles.
pub const TENANT_DATABASES_OPEN_MAX: usize = 64;
/// Connections that read one database file beside its writer.
pub const DATABASE_READERS_MAX: u32 = 2;
/// Connections that read the control database beside its writer.
pub const CONTROL_READERS_MAX: u32 = 4;
/// Connections to a PostgreSQL database that all tenants share, beside the ledger's: as many as cores keep busy.
pub const POSTGRES_CONNECTIONS_MAX: u32 = 16;
/// Connections to a PostgreSQL database of one tenant's own.
pub const POSTGRES_TENANT_CONNECTIONS_MAX: u32 = 4;
/// Statements that a connection to PostgreSQL keeps prepared: more than there are.
pub const POSTGRES_STATEMENTS_MAX: usize = 256;
/// How long a transaction may do nothing before PostgreSQL ends it: storing the largest blob meanwhile takes less.
pub const POSTGRES_IDLE_TRANSACTION_MAX: Duration = Duration::from_secs(300);
/// Tenants whose place on PostgreSQL is remembered: about 300 bytes each.
pub const TENANT_PLACES_MAX: usize = 10_000;
/// Tenants whose data keys are kept unwrapped: some 200 bytes each.
pub const DATA_KEYS_CACHED_MAX: usize = 10_000;
/// Bytes of a blob past which sealing or opening it is no work for a thread that serves others meanwhile: a millisecond.
pub const SEAL_INLINE_BYTES_MAX: usize = MIB;
/// Bytes of a bucket's name, as S3 has it.
pub const BUCKET_NAME_BYTES_MIN: usize = 3;
/// Bytes of a bucket's name, as S3 has it.
pub const BUCKET_NAME_BYTES_MAX: usize = 63;
/// Bytes of the prefix in a bucket that is shared with others: with a blob's own name far below S3's 1,024.
pub const BUCKET_PREFIX_BYTES_MAX: usize = 256;
/// Bytes of one part of a blob on its way to a bucket: what is sent again when a line breaks, and more than the 5 MiB
/// that S3 asks of a part. A larger blob goes in parts.
pub const BLOB_PART_BYTES: usize = 16 * MIB;
/// Parts of one blob that are on their way at once.
pub const BLOB_PARTS_AT_ONCE: usize = 3;
/// Blobs that are removed at once, a request each.
pub const BLOB_REMOVALS_AT_ONCE: usize = 16;
/// How long a connection to the blob store may take to come about: a line that is there needs less than a second.
pub const BLOB_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the blob store may keep silent: the time in which a part comes in at 2 Mbit/s.
pub const BLOB_PAUSE_MAX: Duration = Duration::from_secs(64);
/// How often a request to the blob store is tried again when the line or the store fails.
pub const BLOB_RETRIES_MAX: usize = 4;
/// How long a request is tried again at most, its pauses included, before whoever asked is told.
pub const BLOB_RETRY_TIME_MAX: Duration = Duration::from_secs(30);
/// How long what is known of the blob store's readiness is good for: a load balancer that asks often costs little.
pub const BLOB_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long the blob store may take to answer that it is there.
pub const BLOB_CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows that are sealed at once when older data is brought under a key: a few MiB.
pub const SEALING_ROWS_MAX: usize = 200;
/// How often a group of the ledger is tried again when the database had others before it.
pub const LEDGER_ATTEMPTS_MAX: usize = 5;
/// How long the ledger waits before it tries again what could not be written; doubled each time, up to
/// [`LEDGER_RETRY_PAUSE_MAX`].
pub const LEDGER_RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// How long it waits at most: so soon after there is room again it is written, and new requests are taken.
pub const LEDGER_RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a statement waits for a lock or a connection before it fails.
pub const DATABASE_BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const _: () = {
    assert!(
        KEY_CHANGES_INTERVAL.as_millis() + STREAM_RECHECK_INTERVAL.as_millis() <= 750,
        "a revoked key's streams end within a second, and reading and settling take time too"
    );
    assert!(JOB_HEARTBEAT.as_secs() * 2 < JOB_LEASE.as_secs(), "one lost heartbeat must not lose the lease");
    assert!(PREFILL_CHUNK_TOKENS <= STEP_TOKEN_BUDGET);
    assert!(CHOICES_MAX as usize <= CHOICES_PER_REQUEST_MAX);
    assert!(CHOICES_PER_REQUEST_MAX <= QUEUE_LENGTH_MAX, "a lone request must fit the queue");
    assert!(SLOTS_MAX + PREFILL_CHUNK_TOKENS <= STEP_TOKEN_BUDGET, "decoding must not starve prefill");
    assert!(USAGE_GROUP_ROWS_MAX <= USAGE_QUEUE_ROWS_MAX);
    assert!(USAGE_UNWRITTEN_TOKENS_MAX >= USAGE_CHECKPOINT_TOKENS, "a stream is cut by a checkpoint that failed");
    assert!(AUDIT_NOTES_PER_TENANT_MAX * 16 <= AUDIT_NOTES_MAX, "one tenant's refusals leave room for others'");
    assert!(SOURCE_FILE_BYTES_MAX <= SOURCE_UNPACKED_BYTES_MAX);
    assert!(REQUEST_BODY_BYTES_MAX < SOURCE_ARCHIVE_BYTES_MAX);
    assert!(REQUEST_HEAD_BYTES_MAX < CONNECTION_BUFFER_BYTES_MAX, "a head is refused by its own limit");
    assert!(
        SOURCE_ARCHIVE_BYTES_MAX as u64 <= REQUEST_BODY_TIMEOUT.as_secs() * 125_000,
        "an archive comes in at 1 Mbit/s"
    );
    assert!(ISSUER_REQUESTS_OF_TENANT_MAX * 2 <= ISSUER_REQUESTS_MAX, "one tenant leaves room for others");
    assert!(SESSION_IDLE_MAX.as_secs() <= SESSION_LIFETIME.as_secs());
    assert!(KEY_LAST_USED_INTERVAL.as_secs() * 10 <= SESSION_IDLE_MAX.as_secs(), "a session in use never looks idle");
    assert!(BLOB_PART_BYTES >= 5 * MIB, "S3 takes no smaller part but the last");
    assert!(BLOB_PART_BYTES as u64 <= BLOB_PAUSE_MAX.as_secs() * 262_144, "a part comes in at 2 Mbit/s");
    assert!(CHECKPOINT_BYTES_MAX / BLOB_PART_BYTES < 10_000, "S3 takes ten thousand parts of a blob");
    assert!(TENANT_REQUESTS_MAX * 4 <= CONNECTIONS_MAX, "one tenant's streams leave room for others");
};
