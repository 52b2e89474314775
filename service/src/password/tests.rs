//! Known answers of other implementations, upgrades, bounds.

use std::time::Instant;

use conf::{HashAlgorithm, Secret};

use super::*;

const CHEAP: HashAlgorithm = HashAlgorithm::Argon2id { memory_kib: 64, iterations: 1, parallelism: 1 };

fn hasher(version: u16, algorithm: HashAlgorithm) -> Hasher {
    Hasher { version, algorithm, unicode_normalization: false, secret: None }
}

fn passwords(schemes: Vec<Hasher>) -> Passwords {
    let config = conf::Passwords { enabled: true, minimum_complexity: 3, schemes };
    Passwords::new(&config, Slots::new(1), Rng::seeded(1)).unwrap()
}

fn stored(version: u16, hash: &str) -> Option<Stored> {
    Some(Stored { version, hash: hash.to_owned() })
}

#[test]
fn hashes_of_other_implementations_verify() {
    let plain = hasher(1, CHEAP);
    let check = |hasher: &Hasher, password: &str, hash: &str| {
        assert!(scheme::verify(hasher, password, hash).unwrap(), "{hash}");
        assert!(!scheme::verify(hasher, &format!("X{password}"), hash).unwrap(), "{hash}");
    };
    // argon2-cffi, passlib, Python's hashlib, bcrypt of PyCA.
    check(
        &plain,
        "correct horse",
        "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MjZP1+1U9JUbDWvDvtLyEsZiNXOKEUxfi6O2oe46uxA",
    );
    check(
        &plain,
        "correct horse",
        "$pbkdf2-sha256$1000$8PHy8/T19vf4.fr7/P3./w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
    );
    check(
        &plain,
        "correct horse",
        "$pbkdf2-sha256$i=1000,l=32$8PHy8/T19vf4+fr7/P3+/w$JwgcbJZlHBoE0uPBMy9SZsCsIJXsYLx/8XwH97PVwMU",
    );
    check(
        &plain,
        "correct horse",
        "$pbkdf2-sha512$1000$8PHy8/T19vf4.fr7/P3./w$xqu1f3FSdHbs02z9AocIk0UpBf6S9uqlRTfcS56zkPqTxPMhm.kj4D.e8E9DRlH/uXf/Pe1g59vHIM0MwcvtiA",
    );
    // Synapse: NFKC, then the pepper appended, then bcrypt.
    let synapse =
        Hasher { unicode_normalization: true, secret: Some(Secret::new("pepper")), ..hasher(1, CHEAP) };
    let hash = "$2b$04$k0h3LI5E3if7fafU3eifI.lOM91R6gOuRjemFzY4lbX4tk0LRCFYi";
    check(&synapse, "\u{fb01}ne\u{e5}ngstr\u{f6}m", hash);
    check(&synapse, "fine\u{e5}ngstro\u{308}m", hash);
    assert!(!scheme::verify(&plain, "\u{fb01}ne\u{e5}ngstr\u{f6}m", hash).unwrap());
}

#[test]
fn bcrypt_looks_at_72_bytes_and_a_new_password_may_not_be_longer() {
    let bcrypt = hasher(1, HashAlgorithm::Bcrypt { cost: 4 });
    let of_72_x = "$2b$04$7GRjL.YbYfhtGkd2ppAB4OqzzYeuQbRh1Ae30Pst1urlMrQl8mHmC";
    assert!(scheme::verify(&bcrypt, &"x".repeat(72), of_72_x).unwrap());
    assert!(scheme::verify(&bcrypt, &"x".repeat(90), of_72_x).unwrap());
    assert!(!scheme::verify(&bcrypt, &"x".repeat(71), of_72_x).unwrap());
    assert!(scheme::hash(&bcrypt, &"x".repeat(72), [1; 16]).is_ok());
    assert!(matches!(scheme::hash(&bcrypt, &"x".repeat(73), [1; 16]), Err(HashError::TooLong)));
}

#[test]
fn every_scheme_verifies_what_it_hashed_and_knows_it_as_current() {
    for algorithm in [CHEAP, HashAlgorithm::Bcrypt { cost: 4 }, HashAlgorithm::Pbkdf2 { iterations: 10 }] {
        let peppered = Hasher {
            unicode_normalization: true,
            secret: Some(Secret::new("salt of the earth")),
            ..hasher(7, algorithm)
        };
        let made = scheme::hash(&peppered, "A\u{308}pfel", [3; 16]).unwrap();
        assert_eq!(made.version, 7);
        assert!(scheme::verify(&peppered, "\u{c4}pfel", &made.hash).unwrap(), "{algorithm:?}");
        assert!(scheme::is_current(&peppered, &made.hash), "{algorithm:?}");
        let stranger = hasher(7, algorithm);
        assert!(!scheme::verify(&stranger, "\u{c4}pfel", &made.hash).unwrap(), "{algorithm:?}");
    }
    let stronger = HashAlgorithm::Argon2id { memory_kib: 128, iterations: 1, parallelism: 1 };
    let made = scheme::hash(&hasher(1, CHEAP), "a", [3; 16]).unwrap();
    assert!(!scheme::is_current(&hasher(1, stronger), &made.hash));
}

#[tokio::test]
async fn an_old_hash_is_replaced_at_login() {
    let passwords = passwords(vec![hasher(2, CHEAP), hasher(1, HashAlgorithm::Bcrypt { cost: 4 })]);
    let old = scheme::hash(&hasher(1, HashAlgorithm::Bcrypt { cost: 4 }), "secret", [5; 16]).unwrap();
    let Verdict::Right(Some(new)) = passwords.verify("secret".into(), Some(old.clone())).await.unwrap()
    else {
        panic!("no upgrade");
    };
    assert_eq!(new.version, 2);
    assert_eq!(passwords.verify("secret".into(), Some(new)).await.unwrap(), Verdict::Right(None));
    assert_eq!(passwords.verify("wrong".into(), Some(old)).await.unwrap(), Verdict::Wrong);
}

#[tokio::test]
async fn nothing_and_nonsense_are_wrong() {
    let passwords = passwords(vec![hasher(1, CHEAP)]);
    assert_eq!(passwords.verify("decoy".into(), None).await.unwrap(), Verdict::Wrong);
    assert_eq!(passwords.verify(String::new(), stored(1, "$argon2id$x")).await.unwrap(), Verdict::Wrong);
    assert_eq!(passwords.verify("a".into(), stored(1, "{SHA}oops")).await.unwrap(), Verdict::Wrong);
    assert_eq!(passwords.verify("a".into(), stored(9, "$2b$04$x")).await.unwrap(), Verdict::Wrong);
}

#[tokio::test]
async fn an_unknown_user_costs_as_much_as_a_wrong_password() {
    let dear = HashAlgorithm::Argon2id { memory_kib: 8192, iterations: 2, parallelism: 1 };
    let passwords = passwords(vec![hasher(1, dear)]);
    let known = passwords.hash("secret".into()).await.unwrap();
    let mut fastest = [u128::MAX; 2];
    for _ in 0..10 {
        for (index, stored) in [None, Some(known.clone())].into_iter().enumerate() {
            let start = Instant::now();
            passwords.verify("wrong".into(), stored).await.unwrap();
            fastest[index] = fastest[index].min(start.elapsed().as_micros());
        }
    }
    // One-sided and generous, for a machine that is busy with other tests: it is the missing hash that would show.
    let [unknown, wrong] = fastest;
    assert!(unknown * 3 > wrong, "unknown {unknown} us, wrong {wrong} us");
    assert!(scheme::is_current(&passwords.schemes[0], &passwords.decoy.hash));
}

#[tokio::test]
async fn a_flood_is_turned_away_and_not_queued_without_bound() {
    let passwords = passwords(vec![hasher(1, CHEAP)]);
    let held = passwords.slots.computing.clone().try_acquire_owned().unwrap();
    let waiting: Vec<_> =
        (0..=WAITING_PER_WORKER).map(|_| Box::pin(passwords.verify("a".into(), None))).collect();
    let mut waiting = waiting.into_iter();
    let mut pending = Vec::new();
    for mut one in waiting.by_ref() {
        assert!(std::future::poll_fn(|cx| std::task::Poll::Ready(one.as_mut().poll(cx))).await.is_pending());
        pending.push(one);
    }
    assert!(matches!(passwords.verify("a".into(), None).await, Err(PasswordError::Busy)));
    drop(held);
    assert_eq!(pending.swap_remove(0).await.unwrap(), Verdict::Wrong);
}

#[test]
fn a_new_password_has_to_be_hard_to_guess_and_not_endless() {
    let passwords = passwords(vec![hasher(1, CHEAP)]);
    assert!(matches!(passwords.check_new("password1", &[]), Err(WeakPassword::Guessable { .. })));
    assert!(matches!(passwords.check_new("", &[]), Err(WeakPassword::Guessable { .. })));
    assert!(matches!(
        passwords.check_new("wolfsheimer", &["wolfsheimer"]),
        Err(WeakPassword::Guessable { .. })
    ));
    assert_eq!(passwords.check_new("rüttel-plätzchen 7 Tauben", &[]), Ok(()));
    assert_eq!(passwords.check_new(&"a1!".repeat(400), &[]), Err(WeakPassword::TooLong));
}

proptest::proptest! {
    #[test]
    fn no_stored_text_panics(text in "\\$?(argon2id|2b|pbkdf2-sha256|x)?\\$?.{0,60}") {
        let hasher = hasher(1, CHEAP);
        let _ = scheme::verify(&hasher, "password", &text);
        let _ = scheme::is_current(&hasher, &text);
    }
}
