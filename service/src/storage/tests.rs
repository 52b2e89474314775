//! What the database promises: one schema, one writer, nothing half-written, on both kinds.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::clock::Rng;
use crate::domain::UserId;
use crate::domain::user::User;
use crate::fixture;

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

async fn open(uri: &str) -> Result<Storage, StorageError> {
    Storage::open(uri, 5, Duration::from_secs(20), NOW).await
}

fn some_user(username: &str) -> User {
    User {
        id: UserId::new(NOW, &Rng::system()),
        username: username.into(),
        display_name: None,
        can_request_admin: true,
        created_at: NOW,
        locked_at: None,
        deactivated_at: Some(NOW),
        provisioned_at: None,
    }
}

async fn add(storage: &Storage, username: &str, durability: Durability) -> Result<User, StorageError> {
    let user = some_user(username);
    let mut tx = storage.begin(durability).await?;
    user::insert(&mut tx, &user).await?;
    tx.commit().await?;
    Ok(user)
}

async fn usernames(storage: &Storage) -> Vec<String> {
    let users = user::list(&mut storage.read().await.unwrap(), "", 1000).await.unwrap();
    users.into_iter().map(|user| user.username).collect()
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&fixture::database(folder.path()).await).await.unwrap();
    let made = add(&storage, "alice", Durability::Full).await.unwrap();
    let mut connection = storage.read().await.unwrap();
    assert_eq!(user::by_username(&mut connection, "alice").await.unwrap(), Some(made.clone()));
    assert_eq!(user::by_id(&mut connection, &made.id).await.unwrap(), Some(made));
    assert_eq!(user::by_username(&mut connection, "bob").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_not_committed_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&fixture::database(folder.path()).await).await.unwrap();
    let mut tx = storage.begin(Durability::Full).await.unwrap();
    user::insert(&mut tx, &some_user("dropped")).await.unwrap();
    drop(tx);
    let mut tx = storage.begin(Durability::Relaxed).await.unwrap();
    user::insert(&mut tx, &some_user("undone")).await.unwrap();
    tx.rollback().await.unwrap();
    add(&storage, "kept", Durability::Relaxed).await.unwrap();
    assert_eq!(usernames(&storage).await, ["kept"]);
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_from_other_faults() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&fixture::database(folder.path()).await).await.unwrap();
    add(&storage, "alice", Durability::Full).await.unwrap();
    let again = add(&storage, "alice", Durability::Full).await;
    assert!(matches!(again, Err(StorageError::Exists(_))), "{again:?}");
}

#[tokio::test]
async fn a_schema_of_a_later_version_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let uri = fixture::database(folder.path()).await;
    let storage = open(&uri).await.unwrap();
    let mut tx = storage.begin(Durability::Full).await.unwrap();
    tx.execute("INSERT INTO schema_version (version, applied_at) VALUES (99, 0)").await.unwrap();
    tx.commit().await.unwrap();
    let refused = open(&uri).await;
    let Err(StorageError::NewerSchema { found: 99, known: 1 }) = refused else { panic!("{refused:?}") };
}

#[tokio::test]
async fn several_processes_may_start_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let uri = fixture::database(folder.path()).await;
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let uri = uri.clone();
            tokio::spawn(async move { open(&uri).await.map(drop) })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_in_two_processes_never_meet_a_locked_database() {
    let folder = tempfile::tempdir().unwrap();
    let uri = fixture::database(folder.path()).await;
    let processes = [open(&uri).await.unwrap(), open(&uri).await.unwrap()];
    let writers: Vec<_> = (0..80)
        .map(|number| {
            let storage = processes[number % 2].clone();
            let durability = if number % 3 == 0 { Durability::Full } else { Durability::Relaxed };
            tokio::spawn(async move {
                add(&storage, &format!("user{number}"), durability).await?;
                user::list(&mut *storage.read().await?, "", 10).await
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap().unwrap();
    }
    assert_eq!(usernames(&processes[0]).await.len(), 80);
}

#[tokio::test]
async fn the_file_is_ours_alone_and_so_is_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new folder/deeper/auth.db");
    let storage = open(&format!("sqlite://{}", file.display()).replace(' ', "%20")).await.unwrap();
    add(&storage, "alice", Durability::Full).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&file.with_file_name("auth.db-wal")), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
}

/// The files as they lie there when the process is killed: the committed is in them, the rest is not.
#[tokio::test]
async fn a_commit_survives_the_death_of_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&format!("sqlite://{}/auth.db", folder.path().display())).await.unwrap();
    add(&storage, "full", Durability::Full).await.unwrap();
    add(&storage, "relaxed", Durability::Relaxed).await.unwrap();
    let mut tx = storage.begin(Durability::Full).await.unwrap();
    user::insert(&mut tx, &some_user("uncommitted")).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["auth.db", "auth.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let after = open(&format!("sqlite://{}/auth.db", copy.path().display())).await.unwrap();
    assert_eq!(usernames(&after).await, ["full", "relaxed"]);
}

#[tokio::test]
async fn a_full_disk_is_told_and_gets_over_it() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&format!("sqlite://{}/auth.db", folder.path().display())).await.unwrap();
    limit_pages(&storage, "PRAGMA max_page_count = 1").await;
    let mut full = None;
    for number in 0..2000 {
        if let Err(error) = add(&storage, &format!("{number}{}", "x".repeat(200)), Durability::Relaxed).await
        {
            full = Some((number, error));
            break;
        }
    }
    let (number, error) = full.expect("the disk is never full");
    assert!(matches!(error, StorageError::Full(_)) && error.is_temporary(), "{error:?}");
    assert_eq!(usernames(&storage).await.len(), number.min(1000));
    limit_pages(&storage, "PRAGMA max_page_count = 1000000").await;
    add(&storage, "alice", Durability::Full).await.unwrap();
    assert_eq!(usernames(&storage).await.len(), number + 1);
}

/// On every connection there is.
async fn limit_pages(storage: &Storage, pragma: &'static str) {
    let mut connections = Vec::new();
    for _ in 0..5 {
        let mut connection = storage.read().await.unwrap();
        connection.execute(pragma).await.unwrap();
        connections.push(connection);
    }
}

#[tokio::test]
async fn whoever_waits_too_long_for_the_writer_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let uri = format!("sqlite://{}/auth.db", folder.path().display());
    let storage = Storage::open(&uri, 5, Duration::from_millis(100), NOW).await.unwrap();
    let held = storage.begin(Durability::Full).await.unwrap();
    let waited = storage.begin(Durability::Full).await;
    assert!(matches!(waited, Err(StorageError::Busy)), "{waited:?}");
    drop(held);
    storage.begin(Durability::Full).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_is_busy() {
    let nobody = "postgresql://127.0.0.1:1/x";
    let missing = Storage::open(nobody, 2, Duration::from_millis(300), NOW).await;
    assert!(matches!(missing, Err(StorageError::Unreachable(_))), "{missing:?}");
}

#[tokio::test]
async fn other_databases_are_refused() {
    for uri in ["mysql://localhost/x", "nonsense", ""] {
        assert!(matches!(open(uri).await, Err(StorageError::Scheme)), "{uri}");
    }
    assert!(matches!(open("sqlite:///proc/none/auth.db").await, Err(StorageError::File { .. })));
}

#[test]
fn the_path_in_a_uri_is_percent_decoded() {
    let check = |uri: &str, expected: Option<&str>| {
        assert_eq!(sqlite_path(uri), expected.map(PathBuf::from), "{uri}")
    };
    check("sqlite:///var/lib/auth.db", Some("/var/lib/auth.db"));
    check("sqlite:///with%20space?mode=rwc", Some("/with space"));
    check("sqlite:relative.db", Some("relative.db"));
    check("sqlite:///100%", Some("/100%"));
    check("sqlite::memory:", None);
    check("postgresql://x/y", None);
}

/// When the disk is full SQLite undoes a transaction behind the back of sqlx, which then takes it for open for ever.
#[tokio::test]
async fn a_transaction_that_ended_by_itself_spoils_no_connection() {
    let folder = tempfile::tempdir().unwrap();
    let storage = open(&format!("sqlite://{}/auth.db", folder.path().display())).await.unwrap();
    for _ in 0..10 {
        let mut tx = storage.begin(Durability::Full).await.unwrap();
        tx.execute("ROLLBACK").await.unwrap();
        assert!(tx.commit().await.is_err());
    }
    add(&storage, "alice", Durability::Full).await.unwrap();
}
