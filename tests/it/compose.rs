//! compose.yaml as far as it can be tested without a container engine: its settings are ours, its secrets are asked
//! for, and its commands start on local servers under the environment that it gives them.

use std::collections::{BTreeMap, HashMap};

use cartwright::config::settings::SETTINGS;
use cartwright::config::{self, Sources};
use saphyr_parser::{Event, Parser};

const COMPOSE: &str = include_str!("../../compose.yaml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");

/// A YAML value, aliases and merge keys resolved.
#[derive(Debug, Clone)]
enum Yaml {
    Text(String),
    List(Vec<Yaml>),
    Map(BTreeMap<String, Yaml>),
}

impl Yaml {
    fn parse(text: &str) -> Yaml {
        let mut events = Parser::new_from_str(text)
            .map(|event| event.unwrap().0)
            .collect::<Vec<_>>()
            .into_iter();
        let mut anchors = HashMap::new();
        loop {
            match events.next().unwrap() {
                Event::StreamStart | Event::DocumentStart(_) => {}
                first => return Yaml::build(first, &mut events, &mut anchors),
            }
        }
    }

    fn build<'a>(
        first: Event<'a>,
        events: &mut impl Iterator<Item = Event<'a>>,
        anchors: &mut HashMap<usize, Yaml>,
    ) -> Yaml {
        let (anchor, value) = match first {
            Event::Scalar(text, _, anchor, _) => (anchor, Yaml::Text(text.into_owned())),
            Event::Alias(anchor) => return anchors[&anchor].clone(),
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match events.next().unwrap() {
                        Event::SequenceEnd => break (anchor, Yaml::List(list)),
                        item => list.push(Yaml::build(item, events, anchors)),
                    }
                }
            }
            Event::MappingStart(anchor, _) => {
                let (mut merged, mut own) = (BTreeMap::new(), BTreeMap::new());
                loop {
                    let key = match events.next().unwrap() {
                        Event::MappingEnd => break,
                        Event::Scalar(key, ..) => key.into_owned(),
                        other => panic!("a key that is no text: {other:?}"),
                    };
                    let value = events.next().unwrap();
                    match (&*key, Yaml::build(value, events, anchors)) {
                        ("<<", Yaml::Map(map)) => merged.extend(map),
                        (_, value) => assert!(own.insert(key, value).is_none(), "a key twice"),
                    }
                }
                merged.extend(own);
                (anchor, Yaml::Map(merged))
            }
            other => panic!("unexpected {other:?}"),
        };
        if anchor > 0 {
            anchors.insert(anchor, value.clone());
        }
        value
    }

    fn get(&self, key: &str) -> Option<&Yaml> {
        match self {
            Yaml::Map(map) => map.get(key),
            _ => None,
        }
    }

    fn map(&self) -> &BTreeMap<String, Yaml> {
        match self {
            Yaml::Map(map) => map,
            other => panic!("no map: {other:?}"),
        }
    }

    fn text(&self) -> &str {
        match self {
            Yaml::Text(text) => text,
            other => panic!("no text: {other:?}"),
        }
    }

    fn words(&self) -> Vec<&str> {
        match self {
            Yaml::List(list) => list.iter().map(Yaml::text).collect(),
            other => panic!("no list: {other:?}"),
        }
    }
}

/// `${NAME:?reason}`, `${NAME:-default}` in `text`: as compose fills them in from `given`.
fn filled(text: &str, given: &BTreeMap<&str, String>) -> String {
    let Some((before, rest)) = text.split_once("${") else {
        return text.to_owned();
    };
    let (inner, after) = rest.split_once('}').unwrap();
    let name = inner.split(':').next().unwrap();
    let value = match (given.get(name), inner.split_once(":-")) {
        (Some(value), _) => value.clone(),
        (None, Some((_, default))) => default.to_owned(),
        (None, None) => panic!("{name} is required and was not given"),
    };
    format!("{before}{value}{}", filled(after, given))
}

/// What compose asks for, made up.
fn given() -> BTreeMap<&'static str, String> {
    let mut given = BTreeMap::from([
        ("CARTWRIGHT_REDIS_PASSWORD", "redis-secret".to_owned()),
        ("CARTWRIGHT_POSTGRES_PASSWORD", "postgres-secret".to_owned()),
    ]);
    let keys = config::key_file::generate("live").unwrap();
    for (name, value) in [
        "CARTWRIGHT_PUBLIC_KEY",
        "CARTWRIGHT_SERVER_KEY",
        "CARTWRIGHT_PSEUDONYM_KEY",
        "CARTWRIGHT_USER_TOKEN_KEY",
    ]
    .into_iter()
    .zip(keys)
    {
        given.insert(name, value.1);
    }
    given
}

/// Our services: name, command and environment.
fn services() -> Vec<(String, Vec<String>, BTreeMap<String, String>)> {
    let given = given();
    let compose = Yaml::parse(COMPOSE);
    let services = compose.get("services").unwrap().map().iter();
    let ours = services.filter(|(_, service)| service.get("build").is_some());
    ours.map(|(name, service)| {
        let environment = service.get("environment").unwrap().map().iter();
        let environment = environment
            .map(|(name, value)| (name.clone(), filled(value.text(), &given)))
            .collect();
        let command = service.get("command").unwrap().words();
        (
            name.clone(),
            command.into_iter().map(str::to_owned).collect(),
            environment,
        )
    })
    .collect()
}

#[test]
fn every_variable_is_a_setting_and_makes_a_configuration() {
    let known: Vec<String> = SETTINGS.iter().map(|setting| setting.env()).collect();
    let services = services();
    let names: Vec<&str> = services.iter().map(|(name, ..)| &**name).collect();
    assert_eq!(names, ["api-1", "api-2", "drain-1", "drain-2", "migrate"]);
    for (name, command, environment) in services {
        for variable in environment.keys() {
            assert!(known.contains(variable), "{name}: {variable} is no setting");
        }
        let sources = Sources {
            env: environment.into_iter().collect(),
            ..Sources::default()
        };
        let loaded = config::resolve(&sources).unwrap();
        assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
        let roles = (loaded.config.roles.api, loaded.config.roles.drain);
        match &*name {
            "migrate" => assert_eq!(command, ["migrate"]),
            api if api.starts_with("api") => {
                assert_eq!((command, roles), (vec!["serve".to_owned()], (true, false)))
            }
            _ => assert_eq!((command, roles), (vec!["serve".to_owned()], (false, true))),
        }
    }
}

#[test]
fn no_secret_is_committed_and_none_has_a_default() {
    for line in COMPOSE.lines() {
        let secret = ["PASSWORD", "_KEY", "AUTH"]
            .iter()
            .any(|word| line.contains(word))
            && !line.trim().starts_with('#');
        assert!(!secret || line.contains(":?"), "{line}");
    }
    assert!(!DOCKERFILE.contains("_KEY") && !DOCKERFILE.contains("PASSWORD"));
}

#[test]
fn containers_can_do_little() {
    let compose = Yaml::parse(COMPOSE);
    for (name, service) in compose.get("services").unwrap().map() {
        if service.get("build").is_none() {
            assert!(service.get("ports").is_none(), "{name} is reached from outside");
            continue;
        }
        assert_eq!(service.get("read_only").unwrap().text(), "true", "{name}");
        assert_eq!(service.get("cap_drop").unwrap().words(), ["ALL"], "{name}");
    }
    let redis = compose.get("services").unwrap().get("redis").unwrap();
    let command = redis.get("command").unwrap().words();
    for pair in [
        ["--appendonly", "yes"],
        ["--appendfsync", "always"],
        ["--maxmemory-policy", "noeviction"],
    ] {
        assert!(command.windows(2).any(|two| two == pair), "{command:?}");
    }
    for line in [
        "USER 65532:65532",
        "ENTRYPOINT [\"/usr/local/bin/cartwright\"]",
        "CMD [\"serve\"]",
    ] {
        assert!(DOCKERFILE.lines().any(|found| found == line), "{line}");
    }
    assert!(DOCKERFILE.contains("CMD [\"/usr/local/bin/cartwright\", \"health\"]"));
}
