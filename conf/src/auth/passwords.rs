//! `passwords`: how they are hashed.

use super::{HashAlgorithm, Hasher, Passwords};
use crate::reader::{Item, Section};
use crate::secret::secret;
use crate::source::Span;

/// Reads `passwords`, or makes the default.
pub(crate) fn read(item: Option<&Item<'_>>) -> Option<Passwords> {
    let Some(item) = item else {
        return Some(Passwords { enabled: true, minimum_complexity: 3, schemes: default_schemes() });
    };
    let mut section = item.section()?;
    let enabled = section.take("enabled").map_or(Some(true), |item| item.truth());
    let minimum_complexity = section.take("minimum_complexity").map_or(Some(3), |item| item.whole(0, 4));
    let schemes = match section.take("schemes") {
        Some(item) => read_schemes(&item),
        None => Some(default_schemes()),
    };
    section.finish();
    Some(Passwords { enabled: enabled?, minimum_complexity: minimum_complexity?, schemes: schemes? })
}

fn default_schemes() -> Vec<Hasher> {
    vec![Hasher { version: 1, algorithm: ARGON2ID, unicode_normalization: false, secret: None }]
}

/// The schemes, highest version first.
fn read_schemes(item: &Item<'_>) -> Option<Vec<Hasher>> {
    let mut seen: Vec<(u16, Span)> = Vec::new();
    let mut schemes: Vec<Hasher> = Vec::new();
    let mut complete = true;
    for item in item.filled_list()? {
        match read_scheme(&item, &mut seen) {
            Some(scheme) => schemes.push(scheme),
            None => complete = false,
        }
    }
    schemes.sort_by_key(|scheme| std::cmp::Reverse(scheme.version));
    complete.then_some(schemes)
}

fn read_scheme(item: &Item<'_>, seen: &mut Vec<(u16, Span)>) -> Option<Hasher> {
    let mut section = item.section()?;
    let version_item = section.require("version", "number the scheme, the highest hashes new passwords");
    let version = version_item.as_ref().and_then(|item| item.whole(1, u16::MAX));
    let algorithm_item = section.require("algorithm", "write argon2id, bcrypt or pbkdf2");
    let algorithm = algorithm_item.and_then(|item| item.choice(&ALGORITHMS));
    let algorithm = algorithm.and_then(|algorithm| read_parameters(&mut section, algorithm));
    let unicode_normalization =
        section.take("unicode_normalization").map_or(Some(false), |item| item.truth());
    let given = ["secret", "secret_file"].into_iter().any(|key| section.take(key).is_some());
    let secret = secret(&mut section, "secret", "secret_file");
    section.finish();
    if let (Some(version), Some(item)) = (version, &version_item) {
        match seen.iter().find(|(known, _)| *known == version) {
            Some((_, first)) => {
                item.error_with(format!("the version {version} is given twice"), *first, "first given here")
            }
            None => seen.push((version, item.span())),
        }
    }
    if given && secret.is_none() {
        return None;
    }
    Some(Hasher {
        version: version?,
        algorithm: algorithm?,
        unicode_normalization: unicode_normalization?,
        secret,
    })
}

/// The parameters that the algorithm has; others are unknown keys.
fn read_parameters(section: &mut Section<'_>, algorithm: HashAlgorithm) -> Option<HashAlgorithm> {
    let mut whole =
        |key, least, most, default| section.take(key).map_or(Some(default), |item| item.whole(least, most));
    Some(match algorithm {
        HashAlgorithm::Argon2id { memory_kib, iterations, parallelism } => {
            let memory_kib = whole("memory_kib", 8, 4 << 20, memory_kib);
            let iterations = whole("iterations", 1, 1000, iterations);
            let parallelism = whole("parallelism", 1, 64, parallelism);
            HashAlgorithm::Argon2id {
                memory_kib: memory_kib?,
                iterations: iterations?,
                parallelism: parallelism?,
            }
        }
        HashAlgorithm::Bcrypt { cost } => HashAlgorithm::Bcrypt { cost: whole("cost", 4, 31, cost)? },
        HashAlgorithm::Pbkdf2 { iterations } => {
            HashAlgorithm::Pbkdf2 { iterations: whole("iterations", 1, 100_000_000, iterations)? }
        }
    })
}

/// OWASP's second choice of parameters, and the defaults of most libraries.
const ARGON2ID: HashAlgorithm = HashAlgorithm::Argon2id { memory_kib: 19_456, iterations: 2, parallelism: 1 };

/// The words for [`HashAlgorithm`], with the default parameters.
const ALGORITHMS: [(&str, HashAlgorithm); 3] = [
    ("argon2id", ARGON2ID),
    ("bcrypt", HashAlgorithm::Bcrypt { cost: 12 }),
    ("pbkdf2", HashAlgorithm::Pbkdf2 { iterations: 600_000 }),
];
