//! The house rules that a compiler does not check: which room may import which, how long a file may get, what no
//! module may be called, and that no migration is forgotten. A rule that no check enforces is a wish.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Rooms that every other may import, `domain` excepted.
const LEAVES: &[&str] = &["clock", "config", "deadline", "redis_link", "telemetry"];

/// Who may import whom, besides itself. `app` alone may import everything.
const ROOMS: &[(&str, &[&str])] = &[
    // Pure: no I/O, clock, randomness, environment, logging or HTTP.
    ("domain", &[]),
    ("config", &[]),
    ("deadline", &[]),
    ("redis_link", &[]),
    ("telemetry", &[]),
    ("listener", &[]),
    ("clock", &["domain"]),
    ("keys", &["domain"]),
    // Pure as well, but for the bytes it is given.
    ("import", &["domain"]),
    // Adapters: the domain and leaves, never each other.
    ("queue", &["domain", LEAF]),
    ("hot", &["domain", LEAF]),
    ("warehouse", &["domain", LEAF]),
    ("lake", &["domain", LEAF]),
    ("broadcast", &["domain", LEAF]),
    // Use cases.
    ("profiles", &["domain", "hot", "warehouse", LEAF]),
    ("rulesets", &["domain", "warehouse", LEAF]),
    ("population", &["domain", "warehouse", "rulesets", LEAF]),
    ("decisions", &["domain", "warehouse", LEAF]),
    ("experiments", &["domain", "warehouse", "rulesets", LEAF]),
    ("ingest", &["domain", "queue", "profiles", "broadcast", LEAF]),
    ("recorder", &["domain", "queue", "profiles", "ingest", LEAF]),
    (
        "operations",
        &["domain", "queue", "warehouse", "rulesets", "ingest", LEAF],
    ),
    ("drain", &["domain", "queue", "lake", "warehouse", "hot", LEAF]),
    // The API: use cases, never a store.
    (
        "http",
        &[
            "domain",
            "profiles",
            "rulesets",
            "population",
            "experiments",
            "decisions",
            "ingest",
            "recorder",
            "operations",
            "keys",
            "queue",
            LEAF,
        ],
    ),
    // Commands work through `app` and the wire.
    ("cli", &["app", "import", "domain", LEAF]),
];

/// Stands for [`LEAVES`] in the table.
const LEAF: &str = "(leaf)";

/// What would make the domain depend on anything but its arguments.
const IMPURE: &[&str] = &[
    "tokio::",
    "axum::",
    "hyper::",
    "sqlx::",
    "tracing::",
    "getrandom",
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "Uuid::new_v4",
    "Uuid::now_v7",
];

/// Lines of a file, tests left out. Longer files hide a second subject.
const FILE_CEILING: usize = 400;
const MAIN_CEILING: usize = 40;

/// A source file: its path below `src`, and its text without tests and comments.
struct Source {
    path: PathBuf,
    lines: usize,
    code: String,
}

impl Source {
    /// The room that the file belongs to; empty for `lib.rs` and `main.rs`.
    fn room(&self) -> String {
        let first = self
            .path
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        match first {
            "lib.rs" | "main.rs" => String::new(),
            other => other.trim_end_matches(".rs").to_owned(),
        }
    }

    /// How many `super::` lead from the file's module to the crate's root.
    fn depth(&self) -> usize {
        let count = self.path.components().count();
        if self.path.ends_with("mod.rs") {
            count - 1
        } else {
            count
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let test_files = test_files(&files);
    files
        .iter()
        .filter(|file| !test_files.iter().any(|tests| file.starts_with(tests)))
        .map(|file| {
            let text = std::fs::read_to_string(file).unwrap();
            let own = without_tests(&text);
            let code: Vec<&str> = own.lines().map(without_comment).collect();
            Source {
                path: file.strip_prefix(&root).unwrap().to_owned(),
                lines: own.lines().count(),
                code: code.join("\n"),
            }
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Files and folders that are declared as `#[cfg(test)] mod name;`.
fn test_files(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let folder = match file.file_name().unwrap().to_str().unwrap() {
            "mod.rs" | "lib.rs" => file.parent().unwrap().to_owned(),
            _ => file.with_extension(""),
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2) {
            let name = pair[1]
                .trim_start_matches("pub ")
                .trim_start_matches("pub(super) ")
                .strip_prefix("mod ");
            if let (true, Some(name)) = (
                pair[0].starts_with("#[cfg(test)]"),
                name.and_then(|n| n.strip_suffix(';')),
            ) {
                found.push(folder.join(format!("{name}.rs")));
                found.push(folder.join(name));
            }
        }
    }
    found
}

/// The text up to its inline test module.
fn without_tests(text: &str) -> &str {
    let inline = text.match_indices("\n#[cfg(test)]\n").find(|(at, mark)| {
        let rest = &text[at + mark.len()..];
        rest.lines()
            .find(|line| !line.starts_with('#'))
            .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    inline.map_or(text, |(at, _)| &text[..at])
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        ""
    } else {
        line
    }
}

/// The rooms that a file names, by `crate::room` or by as many `super::` as lead there.
fn named(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let up = "super::".repeat(source.depth());
    for prefix in ["crate::", up.as_str()] {
        for (at, _) in source.code.match_indices(prefix) {
            let before = source.code[..at].chars().next_back();
            if before.is_some_and(|c| c == '$' || c == ':' || c.is_alphanumeric() || c == '_') {
                continue;
            }
            let rest = &source.code[at + prefix.len()..];
            assert!(
                !rest.starts_with('{') || prefix != "crate::",
                "{}: one `use` per room",
                source.path.display()
            );
            let room: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if !room.is_empty() && room != "super" && room != "self" {
                found.insert(room);
            }
        }
    }
    found
}

#[test]
fn rooms_import_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = ROOMS.iter().copied().collect();
    let rooms: BTreeSet<String> = sources().iter().map(Source::room).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let room = source.room();
        if room.is_empty() || room == "app" {
            continue;
        }
        let Some(allowed) = table.get(room.as_str()) else {
            wrong.push(format!(
                "{}: the room `{room}` has no row in the table",
                source.path.display()
            ));
            continue;
        };
        for other in named(&source).intersection(&rooms) {
            let leaf = allowed.contains(&LEAF) && LEAVES.contains(&other.as_str());
            if *other != room && !leaf && !allowed.contains(&other.as_str()) {
                wrong.push(format!(
                    "{}: `{room}` may not import `{other}`",
                    source.path.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_domain_depends_on_its_arguments_alone() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.room() == "domain") {
        for word in IMPURE.iter().filter(|word| source.code.contains(**word)) {
            wrong.push(format!("{}: {word}", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_stay_below_the_ceiling() {
    let mut wrong = Vec::new();
    for source in sources() {
        let ceiling = if source.path == Path::new("main.rs") {
            MAIN_CEILING
        } else {
            FILE_CEILING
        };
        if source.lines > ceiling {
            wrong.push(format!(
                "{}: {} lines, at most {ceiling}",
                source.path.display(),
                source.lines
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_has_a_name_that_says_nothing() {
    let empty = ["utils", "util", "common", "helpers", "types"];
    for source in sources() {
        for part in &source.path {
            let name = Path::new(part).file_stem().unwrap().to_str().unwrap();
            assert!(
                !empty.contains(&name),
                "{}: `{name}` says nothing",
                source.path.display()
            );
        }
    }
}

/// One that is only a file is never applied, and nothing else would say so.
#[test]
fn every_migration_is_in_the_binary() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for database in ["postgres", "sqlite"] {
        let list = root.join("src/warehouse").join(database).join("migrations.rs");
        let list = std::fs::read_to_string(list).unwrap();
        let mut files = 0;
        for entry in std::fs::read_dir(root.join("migrations").join(database)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let (number, _) = name.split_once('_').unwrap();
            let number: u32 = number.parse().unwrap();
            let is_listed = list.contains(&format!("migrations/{database}/{name}"));
            assert!(
                is_listed && list.contains(&format!("        {number},\n")),
                "{database}: {name} is not in the list"
            );
            files += 1;
        }
        assert_eq!(list.matches("include_str!").count(), files, "{database}");
    }
}

#[test]
fn the_reader_of_sources_sees_what_it_must() {
    let source = |path: &str, code: &str| Source {
        path: path.into(),
        lines: 0,
        code: code.to_owned(),
    };
    let rooms = |source: &Source| named(source).into_iter().collect::<Vec<_>>();
    assert_eq!(
        rooms(&source(
            "hot/mod.rs",
            "use crate::queue::Event;\nlet x = crate::drain::y();"
        )),
        ["drain", "queue"]
    );
    assert_eq!(rooms(&source("keys.rs", "use super::http::State;")), ["http"]);
    assert_eq!(
        rooms(&source(
            "hot/memory.rs",
            "use super::HotError; super::super::queue::open()"
        )),
        ["queue"]
    );
    assert_eq!(
        rooms(&source(
            "hot/memory.rs",
            "use super::mod_of_ours::X; $crate::queue"
        )),
        Vec::<String>::new()
    );
    assert_eq!(
        without_tests("a\n#[cfg(test)]\nmod tests;\nb"),
        "a\n#[cfg(test)]\nmod tests;\nb"
    );
    assert_eq!(without_tests("a\n#[cfg(test)]\nmod tests {\nb"), "a");
}
