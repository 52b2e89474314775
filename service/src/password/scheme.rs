//! The hash functions, as plain blocking functions: argon2id for new passwords, bcrypt and PBKDF2 for imported ones.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use conf::{HashAlgorithm, Hasher};
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;

use super::Stored;

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Parameters that the function does not take.
    #[error("the parameters of the current password scheme are out of range")]
    Parameters,
    /// bcrypt ignores what follows; a new password must not end there.
    #[error("the password is longer than the 72 bytes that bcrypt looks at")]
    TooLong,
    /// Not text of any scheme.
    #[error("a stored password hash is damaged or of an unknown form")]
    Damaged,
    /// The thread did not come back.
    #[error("the thread that hashes has failed")]
    Worker,
}

/// Hashes with the hasher's function and parameters.
pub(super) fn hash(hasher: &Hasher, password: &str, salt: [u8; 16]) -> Result<Stored, HashError> {
    let hash = match hasher.algorithm {
        HashAlgorithm::Argon2id { memory_kib, iterations, parallelism } => {
            let params =
                Params::new(memory_kib, iterations, parallelism, None).map_err(|_| HashError::Parameters)?;
            let salt = SaltString::encode_b64(&salt).map_err(|_| HashError::Parameters)?;
            let password = normalize(hasher, password);
            let hash = argon2id(hasher, params)?.hash_password(password.as_bytes(), &salt);
            hash.map_err(|_| HashError::Parameters)?.to_string()
        }
        HashAlgorithm::Bcrypt { cost } => {
            let password = append_pepper(hasher, password);
            if password.len() > BCRYPT_BYTES {
                return Err(HashError::TooLong);
            }
            bcrypt::hash_with_salt(&password, cost, salt).map_err(|_| HashError::Parameters)?.to_string()
        }
        HashAlgorithm::Pbkdf2 { iterations } => {
            let mut out = [0; 32];
            pbkdf2::pbkdf2_hmac::<Sha256>(&append_pepper(hasher, password), &salt, iterations, &mut out);
            let (length, salt, out) = (out.len(), PHC_BASE64.encode(salt), PHC_BASE64.encode(out));
            format!("$pbkdf2-sha256$i={iterations},l={length}${salt}${out}")
        }
    };
    Ok(Stored { version: hasher.version, hash })
}

/// Whether `stored` was made of `password`; the function is told from the text, pepper and normalization from the hasher.
pub(super) fn verify(hasher: &Hasher, password: &str, stored: &str) -> Result<bool, HashError> {
    let function = stored.split('$').nth(1).unwrap_or_default();
    match function {
        "argon2id" | "argon2i" | "argon2d" => {
            let parsed = PasswordHash::new(stored).map_err(|_| HashError::Damaged)?;
            let argon2 = argon2id(hasher, Params::default())?;
            let password = normalize(hasher, password);
            Ok(argon2.verify_password(password.as_bytes(), &parsed).is_ok())
        }
        "2a" | "2b" | "2x" | "2y" => {
            bcrypt::verify(append_pepper(hasher, password), stored).map_err(|_| HashError::Damaged)
        }
        "pbkdf2-sha256" | "pbkdf2-sha512" => {
            let parsed = Pbkdf2::parse(stored).ok_or(HashError::Damaged)?;
            let password = append_pepper(hasher, password);
            let mut out = vec![0; parsed.hash.len()];
            if function == "pbkdf2-sha256" {
                pbkdf2::pbkdf2_hmac::<Sha256>(&password, &parsed.salt, parsed.iterations, &mut out);
            } else {
                pbkdf2::pbkdf2_hmac::<Sha512>(&password, &parsed.salt, parsed.iterations, &mut out);
            }
            Ok(out.ct_eq(&parsed.hash).into())
        }
        _ => Err(HashError::Damaged),
    }
}

/// Whether `stored` has the function and the parameters that `hasher` would use today.
pub(super) fn is_current(hasher: &Hasher, stored: &str) -> bool {
    match hasher.algorithm {
        HashAlgorithm::Argon2id { memory_kib, iterations, parallelism } => {
            let Ok(hash) = PasswordHash::new(stored) else { return false };
            let Ok(params) = Params::try_from(&hash) else { return false };
            hash.algorithm == ARGON2ID_IDENT
                && (params.m_cost(), params.t_cost(), params.p_cost())
                    == (memory_kib, iterations, parallelism)
        }
        HashAlgorithm::Bcrypt { cost } => {
            let mut parts = stored.split('$').skip(1);
            parts.next().is_some_and(|function| function.starts_with('2'))
                && parts.next().and_then(|cost| cost.parse().ok()) == Some(cost)
        }
        HashAlgorithm::Pbkdf2 { iterations } => {
            Pbkdf2::parse(stored).is_some_and(|parsed| parsed.iterations == iterations)
        }
    }
}

struct Pbkdf2 {
    iterations: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl Pbkdf2 {
    /// `$pbkdf2-sha256$i=600000,l=32$salt$hash` as MAS writes it, or `$pbkdf2-sha256$29000$salt$hash` as passlib does, whose base64
    /// has `.` for `+`.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('$').skip(2);
        let (parameters, salt, hash) = (parts.next()?, parts.next()?, parts.next()?);
        let iterations = parameters
            .split(',')
            .find_map(|parameter| parameter.strip_prefix("i=").or_else(|| parameter.strip_prefix("rounds=")))
            .unwrap_or(parameters);
        let decode = |text: &str| PHC_BASE64.decode(text.replace('.', "+")).ok();
        let parsed = Self { iterations: iterations.parse().ok()?, salt: decode(salt)?, hash: decode(hash)? };
        let sane = parts.next().is_none() && parsed.iterations > 0 && (16..=128).contains(&parsed.hash.len());
        sane.then_some(parsed)
    }
}

fn append_pepper(hasher: &Hasher, password: &str) -> Vec<u8> {
    let mut bytes = normalize(hasher, password).into_bytes();
    bytes.extend_from_slice(pepper(hasher));
    bytes
}

fn normalize(hasher: &Hasher, password: &str) -> String {
    if hasher.unicode_normalization { password.nfkc().collect() } else { password.to_owned() }
}

fn argon2id(hasher: &Hasher, params: Params) -> Result<Argon2<'_>, HashError> {
    Argon2::new_with_secret(pepper(hasher), Algorithm::Argon2id, Version::V0x13, params)
        .map_err(|_| HashError::Parameters)
}

fn pepper(hasher: &Hasher) -> &[u8] {
    hasher.secret.as_ref().map_or(&[], |secret| secret.expose().as_bytes())
}

/// What bcrypt looks at.
const BCRYPT_BYTES: usize = 72;

/// The standard alphabet, padded or not.
const PHC_BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
