//! The root key: it wraps the data keys of all tenants, and lies outside the database.
//!
//! A new data folder gets one in a file; an operator may keep it elsewhere. The database knows the right one by a
//! fingerprint, and a store without it does not open: nothing is ever made anew over data that is sealed.

use std::fmt;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use atelier_domain::{ParseError, Timestamp};
use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use zeroize::{Zeroize, Zeroizing};

use crate::audit::Unrecorded;
use crate::error::StoreError;
use crate::open::SECRET_FILE_MODE;
use crate::places::sync_folder_of;
use crate::sql::{Database, Transaction, values};
use atelier_seal::{KEY_BYTES, SecretKey};

/// The file of the data folder that holds the root key unless it is elsewhere.
pub const ROOT_KEY_FILE: &str = "root-key";
/// What follows the file's name while a new key is taking the old one's place.
const NEXT_SUFFIX: &str = ".next";
/// More than a key's text ever has: a file that is longer is another one.
const KEY_TEXT_BYTES_MAX: u64 = 256;
const FINGERPRINT_PURPOSE: &str = "atelier 2026-11-27 fingerprint of the root key v1";
const WRAPPING_PURPOSE: &str = "atelier 2026-11-27 wrapping of data keys v1";
/// Base64 with or without its padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
const PARSE_ERROR: ParseError = ParseError { what: "root key", reason: "32 bytes in base64 or hexadecimal" };

/// The root key. It prints as nothing and is overwritten when it is dropped.
#[derive(Clone)]
pub struct RootKey(SecretKey);

impl RootKey {
    pub(crate) fn generate() -> Result<Self, StoreError> {
        Ok(Self(SecretKey::generate()?))
    }

    /// What the database knows the key by. It says nothing about the key.
    pub(crate) fn fingerprint(&self) -> [u8; KEY_BYTES] {
        *self.0.derive(FINGERPRINT_PURPOSE).expose()
    }

    /// The key that data keys are wrapped with.
    pub(crate) fn wrapping(&self) -> SecretKey {
        self.0.derive(WRAPPING_PURPOSE)
    }

    fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0.expose()))
    }
}

impl FromStr for RootKey {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let bytes = if text.len() == 2 * KEY_BYTES && text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            let pairs = (0..KEY_BYTES).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16));
            pairs.collect::<Result<Vec<u8>, _>>().map_err(|_| PARSE_ERROR)?
        } else {
            LENIENT.decode(text).map_err(|_| PARSE_ERROR)?
        };
        let bytes = Zeroizing::new(bytes);
        let mut key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| PARSE_ERROR)?;
        let made = Self(SecretKey::new(key));
        key.zeroize();
        Ok(made)
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// Where the root key is.
#[derive(Debug, Clone, Default)]
pub enum RootKeyOptions {
    /// In a file of the data folder, [`ROOT_KEY_FILE`]; made with the folder.
    #[default]
    InFolder,
    /// In this file, which must be there.
    File(PathBuf),
    /// Here: the operator keeps it.
    Given(RootKey),
}

impl RootKeyOptions {
    /// The file that holds the key, where one does.
    pub(crate) fn file(&self, folder: &Path) -> Option<PathBuf> {
        match self {
            Self::InFolder => Some(folder.join(ROOT_KEY_FILE)),
            Self::File(file) => Some(file.clone()),
            Self::Given(_) => None,
        }
    }

    /// What errors call the place.
    fn place(&self, folder: &Path) -> String {
        self.file(folder).map_or_else(|| "ATELIER_ROOT_KEY".to_owned(), |file| file.display().to_string())
    }

    fn read(&self, folder: &Path) -> Result<Option<RootKey>, StoreError> {
        match self {
            Self::Given(key) => Ok(Some(key.clone())),
            Self::InFolder | Self::File(_) => self.file(folder).map_or(Ok(None), |file| read_file(&file)),
        }
    }
}

/// The key that a file holds; none when there is no file.
///
/// # Errors
/// [`StoreError::RootKeyMalformed`].
pub(crate) fn read_file(path: &Path) -> Result<Option<RootKey>, StoreError> {
    let failed = |error| StoreError::io(format!("read {}", path.display()), error);
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
        Ok(metadata) if metadata.len() > KEY_TEXT_BYTES_MAX => return Err(malformed(path)),
        Ok(_) => {}
    }
    let bytes = Zeroizing::new(fs::read(path).map_err(failed)?);
    let key = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
    key.map(Some).ok_or_else(|| malformed(path))
}

fn malformed(path: &Path) -> StoreError {
    StoreError::RootKeyMalformed { place: path.display().to_string() }
}

/// Writes a key to a file that only the server's user may read, durably; whatever was there is replaced.
fn write_file(path: &Path, key: &RootKey) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("write {}", path.display()), error);
    let draft = with_suffix(path, ".new");
    let _ = fs::remove_file(&draft);
    let mut file = File::options().write(true).create_new(true).mode(SECRET_FILE_MODE).open(&draft).map_err(failed)?;
    let text = key.to_text();
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&draft, path).map_err(failed)?;
    sync_folder_of(path).map_err(failed)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The root key of this database: the one that its data keys are wrapped with, or, where there are none yet, the one
/// that is to wrap them.
///
/// # Errors
/// [`StoreError::RootKeyMissing`], [`StoreError::RootKeyWrong`], [`StoreError::RootKeyMalformed`].
pub(crate) async fn settle(
    control: &Database,
    folder: &Path,
    options: &RootKeyOptions,
    now: Timestamp,
) -> Result<RootKey, StoreError> {
    const SET: &str = "INSERT INTO root_key (one, fingerprint, set_at) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    if let Some(fingerprint) = read_fingerprint(control).await? {
        return find(folder, options, &fingerprint);
    }
    if control.fetch_optional("SELECT tenant_id FROM data_keys LIMIT 1", values![]).await?.is_some() {
        return Err(StoreError::corrupt("the database has data keys, and does not say of which root key"));
    }
    let key = match (options.read(folder)?, options) {
        (Some(key), _) => key,
        (None, RootKeyOptions::InFolder) => {
            let key = RootKey::generate()?;
            write_file(&folder.join(ROOT_KEY_FILE), &key)?;
            key
        }
        (None, _) => return Err(StoreError::RootKeyMissing { place: options.place(folder) }),
    };
    let mut transaction = control.begin().await?;
    transaction.execute(SET, values![key.fingerprint().as_slice(), now]).await?;
    transaction.commit(Unrecorded::Keys.permit()).await?;
    // Another server may have been first.
    match read_fingerprint(control).await? {
        Some(fingerprint) => find(folder, options, &fingerprint),
        None => Err(StoreError::corrupt("the root key's fingerprint is not there after it was written")),
    }
}

/// Whether the database has a root key, and the options name it. None where there is none yet.
///
/// # Errors
/// As [`settle`].
pub(crate) async fn check(
    control: &Database,
    folder: &Path,
    options: &RootKeyOptions,
) -> Result<Option<String>, StoreError> {
    let Some(fingerprint) = read_fingerprint(control).await? else { return Ok(None) };
    let place = options.place(folder);
    match options.read(folder)? {
        Some(key) if key.fingerprint() == fingerprint => Ok(Some(place)),
        Some(_) => Err(StoreError::RootKeyWrong { place }),
        None => Err(StoreError::RootKeyMissing { place }),
    }
}

async fn read_fingerprint(control: &Database) -> Result<Option<[u8; KEY_BYTES]>, StoreError> {
    let row = control.fetch_optional("SELECT fingerprint FROM root_key WHERE one = 1", values![]).await?;
    row.map(|row| row.bytes("fingerprint")).transpose()
}

/// The key of this fingerprint: where the options say, or beside it when a change of keys was cut short after the
/// database had changed.
fn find(folder: &Path, options: &RootKeyOptions, fingerprint: &[u8; KEY_BYTES]) -> Result<RootKey, StoreError> {
    let place = options.place(folder);
    let found = options.read(folder);
    if let Ok(Some(key)) = &found
        && key.fingerprint() == *fingerprint
    {
        return Ok(key.clone());
    }
    if let Some(file) = options.file(folder)
        && let Ok(Some(next)) = read_file(&with_suffix(&file, NEXT_SUFFIX))
        && next.fingerprint() == *fingerprint
    {
        finish_replacing(&file)?;
        return Ok(next);
    }
    match found? {
        Some(_) => Err(StoreError::RootKeyWrong { place }),
        None => Err(StoreError::RootKeyMissing { place }),
    }
}

/// Puts a new key beside a file whose key it will replace. Until the database changes to it, it means nothing.
pub(crate) fn begin_replacing(file: &Path) -> Result<RootKey, StoreError> {
    let key = RootKey::generate()?;
    write_file(&with_suffix(file, NEXT_SUFFIX), &key)?;
    Ok(key)
}

/// The new key takes the old one's place. The database has changed to it: whatever happens here, the next start ends it.
pub(crate) fn finish_replacing(file: &Path) -> Result<(), StoreError> {
    let failed = |error| StoreError::io(format!("replace {}", file.display()), error);
    fs::rename(with_suffix(file, NEXT_SUFFIX), file).map_err(failed)?;
    sync_folder_of(file).map_err(failed)
}

/// From the end of this transaction on, the database is of this root key.
pub(crate) async fn set(transaction: &mut Transaction, key: &RootKey, now: Timestamp) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE root_key SET fingerprint = $1, set_at = $2 WHERE one = 1";
    transaction.execute(SQL, values![key.fingerprint().as_slice(), now]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_parse(text: &str, expected: Option<[u8; KEY_BYTES]>) {
        let parsed = text.parse::<RootKey>();
        assert_eq!(parsed.map(|key| *key.0.expose()).ok(), expected, "{text}");
    }

    #[test]
    fn a_root_key_is_read_in_base64_or_hexadecimal() {
        let mut key = [0xab; KEY_BYTES];
        key[0] = 0x01;
        let hexadecimal = format!("01{}", "ab".repeat(KEY_BYTES - 1));
        check_parse(&hexadecimal, Some(key));
        check_parse(&format!("  {}\n", hexadecimal.to_uppercase()), Some(key));
        let text = STANDARD.encode(key);
        check_parse(&text, Some(key));
        check_parse(text.trim_end_matches('='), Some(key));
        for wrong in ["", "key", &hexadecimal[2..], &text[4..], &format!("{text}AAAA"), &format!("{hexadecimal}00")] {
            check_parse(wrong, None);
        }
    }

    #[test]
    fn a_written_key_is_read_again_and_prints_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(read_file(&path).unwrap().is_none());
        let key = RootKey::generate().unwrap();
        write_file(&path, &key).unwrap();
        assert_eq!(read_file(&path).unwrap().unwrap().fingerprint(), key.fingerprint());
        assert_eq!(format!("{key:?}"), "RootKey(..)");
        fs::write(&path, "x".repeat(1_000)).unwrap();
        assert!(matches!(read_file(&path), Err(StoreError::RootKeyMalformed { .. })));
        fs::write(&path, [0xff; 32]).unwrap();
        assert!(matches!(read_file(&path), Err(StoreError::RootKeyMalformed { .. })));
    }
}
