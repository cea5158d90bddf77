//! The command line from outside: what `check` says, and that every problem is said at once.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::postgres::Database;
use crate::support::redis::RedisServer;

fn cartwright(folder: &Path, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cartwright"))
        .args(args)
        .env_remove("REDIS_URL")
        .env_remove("DATABASE_URL")
        .envs(env.iter().copied())
        .env("CARTWRIGHT_LISTEN", "127.0.0.1:0")
        .env("CARTWRIGHT_OPERATOR_LISTEN", "127.0.0.1:0")
        .current_dir(folder)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn check_of_a_fresh_folder_finds_nothing_wrong_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let output = cartwright(folder.path(), &["check"], &[]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("`cartwright serve` can start."), "{said}");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "check made something"
    );
}

#[test]
fn every_problem_is_said_at_once_with_its_place_and_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("cartwright.toml"),
        "queue.ulr = \"disk:x\"\nserver_key = \"sesame\"\n",
    )
    .unwrap();
    let env = [
        ("CARTWRIGHT_GRACE_MS", "long"),
        ("CARTWRIGHT_WAREHOUSE_URL", "mysql://u:hunter2@db/x"),
    ];
    let output = cartwright(folder.path(), &["check", "--roles", "cook"], &env);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in [
        "the configuration has 5 problems:",
        "cartwright.toml:1: queue.ulr: is not a known key; did you mean queue.url?",
        "cartwright.toml:2: server_key: expected",
        "CARTWRIGHT_GRACE_MS: grace_ms: expected milliseconds",
        "CARTWRIGHT_WAREHOUSE_URL: warehouse.url: expected sqlite:PATH or postgres://",
        "--roles: roles: \"cook\" is not a role",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in\n{said}");
    }
    assert!(!said.contains("sesame") && !said.contains("hunter2"), "{said}");
}

#[test]
fn check_reports_every_failing_connection() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    std::fs::write(folder.path().join("r.yaml"), "placements: 7\n").unwrap();
    let env = [
        ("CARTWRIGHT_QUEUE_URL", "disk:file"),
        ("CARTWRIGHT_RULESET", "r.yaml"),
    ];
    let output = cartwright(folder.path(), &["check"], &env);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("PROBLEM  log"), "{said}");
    assert!(
        said.contains("PROBLEM  ruleset") && said.contains("r.yaml:1:"),
        "{said}"
    );
}

#[test]
fn unknown_variables_are_warned_of_with_the_nearest_name() {
    let folder = tempfile::tempdir().unwrap();
    let output = cartwright(folder.path(), &["check"], &[("CARTWRIGHT_DEDLINE_MS", "9")]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("did you mean CARTWRIGHT_DEADLINE_MS?"), "{said}");

    // Also beside a problem, of which it may be the cause.
    let variables = [("CARTWRIGHT_DEDLINE_MS", "9"), ("CARTWRIGHT_GRACE_MS", "soon")];
    let output = cartwright(folder.path(), &["serve"], &variables);
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("grace_ms") && said.contains("did you mean CARTWRIGHT_DEADLINE_MS?"),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_warehouse_and_keys_that_are_not_there_yet_name_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(
        folder.path().join("data/warehouse.db"),
        "a shopping list\n".repeat(100),
    )
    .unwrap();
    let output = cartwright(
        folder.path(),
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--operator-listen",
            "127.0.0.1:0",
        ],
        &[],
    );
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("is not a warehouse") && said.contains("name another file in warehouse.url"),
        "{said}"
    );

    let empty = tempfile::tempdir().unwrap();
    let output = cartwright(empty.path(), &["keys", "user-token", "jane"], &[]);
    let said = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("cartwright serve") && said.contains("cartwright keys generate"),
        "{said}"
    );
}

#[test]
fn a_ruleset_is_applied_without_a_server_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let ruleset = "version: 1\ncurrency: GBP\nplacements:\n  hero:\n    kind: content\n    fallback: {}\n";
    std::fs::write(folder.path().join("r.yaml"), ruleset).unwrap();
    std::fs::write(
        folder.path().join("broken.yaml"),
        "version: 1\ncurrency: GBP\nplacements: 7\n",
    )
    .unwrap();
    // A port on which nobody listens.
    let apply = |file| {
        cartwright(
            folder.path(),
            &[
                "apply",
                "--yes",
                "--file",
                file,
                "--operator-listen",
                "127.0.0.1:1",
            ],
            &[],
        )
    };
    let (first, again, broken) = (apply("r.yaml"), apply("r.yaml"), apply("broken.yaml"));
    let said = text(&first.stdout);
    assert!(
        said.contains("+    kind: content\n") && said.ends_with("r.yaml is in force as version 1\n"),
        "{said}{}",
        text(&first.stderr)
    );
    assert_eq!(text(&again.stdout), "r.yaml is in force as version 1 already\n");
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        text(&broken.stderr).contains("broken.yaml:3:"),
        "{}",
        text(&broken.stderr)
    );
}

#[test]
fn rulesets_are_compared_listed_rolled_back_and_experiences_paused_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("r.yaml"), text).unwrap();
    let run = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--operator-listen", "127.0.0.1:1"]);
        cartwright(folder.path(), &all, &[])
    };
    let one = "version: 1\ncurrency: GBP\nplacements: {hero: {kind: content, fallback: 1}}\nexperiences: [{id: x-1, placement: hero, payload: 2}]\n";
    write(one);
    assert!(run(&["apply", "-f", "r.yaml", "--yes"]).status.success());
    let two = one.replace("fallback: 1", "fallback: 7");
    write(&two);
    // Nobody is there to be asked.
    let unasked = run(&["apply", "-f", "r.yaml"]);
    assert!(!unasked.status.success());
    assert!(text(&unasked.stdout).contains("+placements: {hero: {kind: content, fallback: 7}}"));
    assert!(
        text(&unasked.stderr).contains("`--yes`"),
        "{}",
        text(&unasked.stderr)
    );
    assert!(run(&["apply", "-f", "r.yaml", "--yes"]).status.success());
    let back = text(&run(&["rollback", "1", "--yes"]).stdout);
    assert!(
        back.contains("-placements: {hero: {kind: content, fallback: 7}}")
            && back.ends_with("version 1 is in force as version 3\n"),
        "{back}"
    );
    let listed = text(&run(&["rulesets"]).stdout);
    let marked: Vec<&str> = listed.lines().filter(|line| line.ends_with("in force")).collect();
    assert!(
        listed.lines().count() == 4 && marked.len() == 1 && marked[0].trim_start().starts_with("3 "),
        "{listed}"
    );
    assert!(text(&run(&["rollback", "9", "--yes"]).stderr).contains("`cartwright rulesets`"));

    assert!(text(&run(&["pause", "x-1"]).stdout).starts_with("x-1 is paused"));
    let unknown = text(&run(&["pause", "x"]).stderr);
    assert!(
        unknown.contains("has no experience `x`; there is x-1"),
        "{unknown}"
    );
    assert!(run(&["resume", "x-1"]).status.success());
    assert!(!run(&["pause", "../x"]).status.success());
    let dry = text(&run(&["apply", "-f", "r.yaml", "--dry-run"]).stderr);
    assert!(dry.contains("cartwright serve"), "{dry}");
}

#[test]
fn keys_are_shown_only_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let env = [("CARTWRIGHT_SERVER_KEY", "sk_live_0123456789abcdef")];
    let shown = text(&cartwright(folder.path(), &["keys"], &env).stdout);
    assert!(
        shown.contains("server_key       configured") && !shown.contains("0123456789abcdef"),
        "{shown}"
    );
    let revealed = text(&cartwright(folder.path(), &["keys", "--reveal"], &env).stdout);
    assert!(revealed.contains("sk_live_0123456789abcdef"), "{revealed}");
    let token = cartwright(folder.path(), &["keys", "user-token", "u1"], &[]);
    assert_eq!(token.status.code(), Some(1), "there is no user token key yet");
    let env = [("CARTWRIGHT_USER_TOKEN_KEY", "k9:0123456789abcdef")];
    let token = text(&cartwright(folder.path(), &["keys", "user-token", "u1"], &env).stdout);
    assert!(
        token.starts_with("k9.") && token.trim().split('.').count() == 3,
        "{token}"
    );
}

#[test]
fn new_keys_are_printed_as_variables_and_kept_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let generate = || text(&cartwright(folder.path(), &["keys", "generate"], &[]).stdout);
    let (first, second) = (generate(), generate());
    let names: Vec<_> = first
        .lines()
        .map(|line| line.split_once('=').unwrap().0)
        .collect();
    assert_eq!(
        names,
        [
            "CARTWRIGHT_PUBLIC_KEY",
            "CARTWRIGHT_SERVER_KEY",
            "CARTWRIGHT_PSEUDONYM_KEY",
            "CARTWRIGHT_USER_TOKEN_KEY"
        ]
    );
    assert!(first.lines().zip(second.lines()).all(|(one, other)| one != other));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let env: Vec<_> = first.lines().map(|line| line.split_once('=').unwrap()).collect();
    let shown = text(&cartwright(folder.path(), &["keys"], &env).stdout);
    assert_eq!(shown.matches("configured").count(), 4, "{shown}");
}

#[test]
fn health_is_an_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = crate::support::process::free_addr().to_string();
    let output = cartwright(folder.path(), &["health", "--operator-listen", &nobody], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("nobody listens"));
    let process = crate::support::process::Process::start(folder.path());
    let everywhere = format!("0.0.0.0:{}", process.operator.port());
    let output = cartwright(folder.path(), &["health", "--operator-listen", &everywhere], &[]);
    assert_eq!(
        (output.status.code(), &*text(&output.stdout)),
        (Some(0), "ready\n")
    );
}

#[test]
fn check_says_what_shared_stores_would_lose_or_lack() {
    let folder = tempfile::tempdir().unwrap();
    let lossy = RedisServer::start(&[
        "--requirepass",
        "hunter2",
        "--maxmemory",
        "64mb",
        "--maxmemory-policy",
        "allkeys-lru",
    ]);
    let url = lossy.url().replace("redis://", "redis://:hunter2@");
    let nobody = crate::support::process::free_addr();
    let absent = format!("postgres://u:hunter2@{nobody}/shop?sslmode=disable");
    let key = "k1:0123456789abcdef";
    let env = [
        ("REDIS_URL", &*url),
        ("DATABASE_URL", &absent),
        ("CARTWRIGHT_ROLES", "drain"),
        ("CARTWRIGHT_PSEUDONYM_KEY", key),
    ];
    let said = text(&cartwright(folder.path(), &["check"], &env).stdout);
    assert!(
        said.contains("evicts any key") && !said.contains("cartwright:taken"),
        "{said}"
    );
    redis::Client::open(&*url)
        .and_then(|client| client.get_connection())
        .and_then(|mut admin| {
            redis::cmd("ACL")
                .arg(&["SETUSER", "default", "resetchannels"])
                .exec(&mut admin)
        })
        .unwrap();
    let output = cartwright(folder.path(), &["check"], &env);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for expected in [
        "appendonly is off",
        "maxmemory-policy allkeys-lru evicts any key",
        "its user may not publish on cartwright:taken:*",
        "PROBLEM  keys             user_token_key missing",
        "PROBLEM  warehouse",
        "does not answer",
        "2 problems.",
    ] {
        assert!(said.contains(expected), "{expected:?} is missing in\n{said}");
    }
    assert!(!said.contains("hunter2"), "{said}");
    drop(lossy);
    let env = [env[0], env[1], env[2], env[3], ("CARTWRIGHT_USER_TOKEN_KEY", key)];
    let said = text(&cartwright(folder.path(), &["check"], &env).stdout);
    assert!(
        said.contains("PROBLEM  log") && said.contains("3 problems."),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn migrate_and_check_know_how_far_a_schema_is() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::empty().await;
    let url = database.url();
    let key = "k1:0123456789abcdef";
    let env = [
        ("CARTWRIGHT_WAREHOUSE_URL", &*url),
        ("CARTWRIGHT_PSEUDONYM_KEY", key),
        ("CARTWRIGHT_USER_TOKEN_KEY", key),
        ("CARTWRIGHT_PUBLIC_KEY", "pk_live_0123456789abcdef"),
        ("CARTWRIGHT_SERVER_KEY", "sk_live_0123456789abcdef"),
        ("CARTWRIGHT_LISTEN", "127.0.0.1:0"),
        ("CARTWRIGHT_OPERATOR_LISTEN", "127.0.0.1:0"),
    ];
    let behind = text(&cartwright(folder.path(), &["check"], &env).stdout);
    assert!(
        behind.contains("PROBLEM  warehouse") && behind.contains("run `cartwright migrate`"),
        "{behind}"
    );
    let serve = cartwright(folder.path(), &["serve"], &env);
    let said = text(&serve.stderr);
    assert!(
        serve.status.code() == Some(1) && said.contains("run `cartwright migrate`"),
        "{said}"
    );
    let migrated = cartwright(folder.path(), &["migrate"], &env);
    assert!(migrated.status.success(), "{}", text(&migrated.stderr));
    let current = cartwright(folder.path(), &["check"], &env);
    assert!(current.status.success(), "{}", text(&current.stdout));
}
