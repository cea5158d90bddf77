use super::*;

fn sources(flags: &[(&'static str, &str)], env: &[(&str, &str)], file: Option<&str>) -> Sources {
    Sources {
        flags: flags
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect(),
        env: env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        file: file.map(|text| (PathBuf::from("cartwright.toml"), text.to_owned())),
    }
}

fn problems(sources: &Sources) -> Vec<String> {
    resolve(sources)
        .unwrap_err()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_bare_start_has_a_whole_configuration() {
    let loaded = resolve(&Sources::default()).unwrap();
    assert!(loaded.warnings.is_empty());
    let config = loaded.config;
    assert_eq!(config.listen, "127.0.0.1:8080");
    assert_eq!(config.queue.url.expose(), "disk:./data/queue");
    assert_eq!(config.hot.url.expose(), "memory:");
    assert_eq!(config.warehouse.url.expose(), "sqlite:./data/warehouse.db");
    assert_eq!(
        config.roles,
        Roles {
            api: true,
            drain: true
        }
    );
    assert_eq!(config.decisions_record, RecordPolicy::Experiments);
    assert!(config.keys.public.is_none() && config.ruleset.is_none());
}

#[test]
fn every_default_of_the_table_parses() {
    let file: String = settings::SETTINGS
        .iter()
        .filter(|setting| !setting.default.is_empty())
        .map(|setting| format!("{} = {:?}\n", setting.key, setting.default))
        .collect();
    resolve(&sources(&[], &[], Some(&file))).unwrap();
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let file = "listen = \"file:1\"\nshop = \"from-file\"\n[queue]\nretain = \"2h\"";
    let env = [("CARTWRIGHT_LISTEN", "env:2"), ("CARTWRIGHT_SHOP", "from-env")];
    let loaded = resolve(&sources(&[("listen", "flag:3")], &env, Some(file))).unwrap();
    assert_eq!(loaded.config.listen, "flag:3");
    assert_eq!(loaded.config.shop, "from-env");
    assert_eq!(loaded.config.queue.retain, Duration::from_secs(7_200));
    let origin = |key| {
        loaded
            .settings
            .iter()
            .find(|s| s.key == key)
            .unwrap()
            .origin
            .to_string()
    };
    assert_eq!(origin("listen"), "--listen");
    assert_eq!(origin("shop"), "CARTWRIGHT_SHOP");
    assert_eq!(origin("queue.retain"), "cartwright.toml:4");
    assert_eq!(origin("log"), "default");
}

#[test]
fn the_data_folder_moves_what_is_in_it() {
    let loaded = resolve(&sources(&[("data_dir", "/srv/c")], &[], None)).unwrap();
    assert_eq!(loaded.config.queue.url.expose(), "disk:/srv/c/queue");
    assert_eq!(loaded.config.warehouse.url.expose(), "sqlite:/srv/c/warehouse.db");
    assert_eq!(loaded.config.key_file(), PathBuf::from("/srv/c/keys.toml"));
}

#[test]
fn every_problem_of_every_source_is_reported_at_once() {
    let file = "lisen = \"x:1\"\nshop = \"Not Legal\"\n[queue]\nretain = true\nlimit_bytes = \"1MiB\"\n";
    let env = [
        ("CARTWRIGHT_DEADLINE_MS", "soon"),
        ("CARTWRIGHT_WAREHOUSE_URL", "mysql://u:hunter2@h/db"),
    ];
    let found = problems(&sources(&[("roles", "api,cook")], &env, Some(file)));
    let text = found.join("\n");
    for expected in [
        "cartwright.toml:1: lisen: is not a known key; did you mean listen?",
        "cartwright.toml:2: shop: expected 1 to 64",
        "cartwright.toml:4: queue.retain: expected a string, a number",
        "CARTWRIGHT_DEADLINE_MS: deadline_ms: expected milliseconds",
        "CARTWRIGHT_WAREHOUSE_URL: warehouse.url: expected sqlite:PATH or postgres://",
        "--roles: roles: \"cook\" is not a role",
        "default: queue.segment_bytes: must be at most half of queue.limit_bytes",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn a_file_that_is_no_toml_is_reported_by_line_and_without_its_text() {
    let found = problems(&sources(
        &[],
        &[],
        Some("shop = \"a\"\nserver_key = \"sk_live_secretsecret\n"),
    ));
    assert!(
        found
            .iter()
            .any(|problem| problem.starts_with("cartwright.toml:2:")),
        "{found:?}"
    );
    assert!(!found.join("").contains("sk_live"), "{found:?}");
}

#[test]
fn unknown_variables_are_warned_of_and_others_left_alone() {
    let env = [
        ("CARTWRIGHT_LISTN", "x"),
        ("HOME", "/"),
        ("CARTWRIGHT_CONFIG", ""),
    ];
    let warnings = resolve(&sources(&[], &env, None)).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].contains("did you mean CARTWRIGHT_LISTEN?"),
        "{warnings:?}"
    );
}

#[test]
fn what_a_platform_sets_stands_in_where_no_url_is_given() {
    let platform = [
        ("REDIS_URL", "redis://:hunter2@cache:6379"),
        ("DATABASE_URL", "postgres://u:hunter2@db/shop"),
    ];
    let loaded = resolve(&sources(&[], &platform, None)).unwrap();
    let config = &loaded.config;
    assert_eq!(config.queue.url.expose(), "redis://:hunter2@cache:6379");
    assert_eq!(config.hot.url, config.queue.url);
    assert_eq!(config.warehouse.url.expose(), "postgres://u:hunter2@db/shop");
    assert!(!config.is_embedded());
    let shown = format!("{loaded:?}");
    assert!(
        !shown.contains("hunter2") && shown.contains("REDIS_URL"),
        "{shown}"
    );

    // Our own names go before it, in the file as well.
    let file = "[queue]\nurl = \"disk:here\"\n[hot]\nurl = \"memory:\"";
    let own = [
        platform[0],
        platform[1],
        ("CARTWRIGHT_WAREHOUSE_URL", "sqlite:own.db"),
    ];
    let config = resolve(&sources(&[], &own, Some(file))).unwrap().config;
    assert_eq!(config.queue.url.expose(), "disk:here");
    assert_eq!(config.hot.url.expose(), "memory:");
    assert_eq!(config.warehouse.url.expose(), "sqlite:own.db");
    assert!(config.is_embedded());

    let foreign = problems(&sources(
        &[],
        &[("DATABASE_URL", "mysql://u:hunter2@db/shop")],
        None,
    ));
    assert!(
        foreign[0].starts_with("DATABASE_URL: warehouse.url: expected") && !foreign[0].contains("hunter2")
    );
}

#[test]
fn a_shared_log_wants_a_shared_warehouse() {
    let found = problems(&sources(&[("queue.url", "redis://cache")], &[], None));
    assert!(
        found[0].contains("must be a postgres:// URL where the log is shared"),
        "{found:?}"
    );
    let flags = [
        ("queue.url", "redis://cache"),
        ("warehouse.url", "postgres://db/shop"),
    ];
    let loaded = resolve(&sources(&flags, &[], None)).unwrap();
    assert!(
        loaded.warnings.join("").contains("hot.url is memory:"),
        "{:?}",
        loaded.warnings
    );
}

#[test]
fn a_variable_that_is_set_but_empty_counts_as_not_set() {
    let loaded = resolve(&sources(&[], &[("CARTWRIGHT_LISTEN", "")], None)).unwrap();
    assert_eq!(loaded.config.listen, "127.0.0.1:8080");
}

#[test]
fn what_is_wrong_in_combination_is_refused() {
    let key = "0123456789abcdef";
    let found = problems(&sources(
        &[
            ("public_key", key),
            ("server_key", key),
            ("listen", "h:1"),
            ("operator_listen", "h:1"),
        ],
        &[],
        None,
    ));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(!found.join("").contains(key));
}

#[test]
fn secrets_are_printed_by_nothing() {
    let key = "sk_live_0123456789abcdef";
    let loaded = resolve(&sources(
        &[("server_key", key), ("pseudonym_key", "k2:0123456789abcdef")],
        &[],
        None,
    ))
    .unwrap();
    let debug = format!("{loaded:?}");
    assert!(!debug.contains("0123456789abcdef"), "{debug}");
}

#[test]
fn lists_may_be_written_as_lists() {
    let file = "allowed_origins = [\"https://a.example\", \"https://b.example\"]\ndeadline_ms = 80";
    let config = resolve(&sources(&[], &[], Some(file))).unwrap().config;
    assert_eq!(config.allowed_origins.len(), 2);
    assert_eq!(config.deadline, Duration::from_millis(80));
}

mod keys {
    use super::*;

    fn none() -> Keys {
        Keys {
            public: None,
            server: None,
            pseudonym: None,
            user_token: None,
        }
    }

    #[test]
    fn missing_keys_are_made_once_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join(key_file::NAME);
        let mut first = none();
        assert!(key_file::complete(&mut first, &path, "live").unwrap());
        assert!(first.public.as_ref().unwrap().expose().starts_with("pk_live_"));
        assert!(first.server.as_ref().unwrap().expose().starts_with("sk_live_"));
        let mut second = none();
        assert!(!key_file::complete(&mut second, &path, "live").unwrap());
        assert_eq!(
            format!("{:?}", first.pseudonym),
            format!("{:?}", second.pseudonym)
        );
        assert_eq!(
            (first.public, first.user_token),
            (second.public, second.user_token)
        );
    }

    #[test]
    fn a_configured_key_goes_before_the_files_and_is_not_written_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(key_file::NAME);
        let configured = Secret::new("sk_live_configured_key");
        let mut keys = Keys {
            server: Some(configured.clone()),
            ..none()
        };
        assert!(key_file::complete(&mut keys, &path, "live").unwrap());
        assert_eq!(keys.server, Some(configured));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("server_key"));
        let mut later = none();
        assert!(
            key_file::complete(&mut later, &path, "live").unwrap(),
            "the server key is made when it is needed"
        );
        assert_eq!(keys.pseudonym, later.pseudonym);
    }

    #[cfg(unix)]
    #[test]
    fn the_key_file_is_readable_by_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(key_file::NAME);
        std::fs::write(path.with_extension("toml.new"), "left over").unwrap();
        key_file::complete(&mut none(), &path, "test").unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn a_damaged_key_file_is_an_error_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(key_file::NAME);
        std::fs::write(&path, "pseudonym_key = \"short\"").unwrap();
        let error = key_file::complete(&mut none(), &path, "live")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("pseudonym_key") && !error.contains("short"),
            "{error}"
        );
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "pseudonym_key = \"short\""
        );
    }
}
