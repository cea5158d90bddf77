//! The keys that an embedded stack makes for itself at its first start, in `keys.toml` in the data folder.
//!
//! - A configured key goes before the file's. Only a key that is neither configured nor in the file is made.
//! - The file is readable by its owner alone, and is replaced whole: written beside, synced, renamed, and the
//!   folder synced. A power cut leaves the old file or the new one. That matters: without its pseudonym key a
//!   warehouse can never again be matched to its shoppers.
//! - [`complete`] is called while this process holds the data folder's log, so two first starts cannot make two
//!   sets of keys.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::sources::{Layers, Problem, Sources};
use super::{Keys, value};

/// The file's name in the data folder.
pub const NAME: &str = "keys.toml";

/// The settings that the file may hold, in the order of [`Keys::named`], each with what a made value starts with;
/// `ENV` stands for the environment.
const MADE: [(&str, &str); 4] = [
    ("public_key", "pk_ENV_"),
    ("server_key", "sk_ENV_"),
    ("pseudonym_key", "k1:"),
    ("user_token_key", "k1:"),
];

/// Why the keys could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("the key file {path} could not be {what}: {source}")]
    Io {
        path: PathBuf,
        what: &'static str,
        source: io::Error,
    },
    #[error("the key file {path} is not as it was written: {problem}")]
    Malformed { path: PathBuf, problem: String },
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Where a key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// A flag, a variable or the configuration file.
    Configured,
    /// The key file.
    File(PathBuf),
    /// Nowhere; an embedded `serve` will make it, any other will refuse to start.
    Absent,
}

impl fmt::Display for KeyOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyOrigin::Configured => f.write_str("configured"),
            KeyOrigin::File(path) => write!(f, "kept in {}", path.display()),
            KeyOrigin::Absent => f.write_str("none yet; an embedded `cartwright serve` makes it"),
        }
    }
}

/// Fills what `keys` lacks from the file at `path`, without making anything. An absent file has no keys.
///
/// # Errors
/// [`KeyFileError`] when the file is there and cannot be used.
pub fn read(keys: &mut Keys, path: &Path) -> Result<(), KeyFileError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(KeyFileError::Io {
                path: path.to_owned(),
                what: "read",
                source,
            });
        }
    };
    let mut layers = Layers::new(&Sources {
        file: Some((path.to_owned(), text)),
        ..Sources::default()
    });
    let public = layers.take("public_key", None, value::api_key);
    let server = layers.take("server_key", None, value::api_key);
    let pseudonym = layers.take("pseudonym_key", None, value::signing_key);
    let user_token = layers.take("user_token_key", None, value::signing_key);
    if let Some(Problem { message, key, origin }) = layers.problems.first() {
        return Err(KeyFileError::Malformed {
            path: path.to_owned(),
            problem: format!("{origin}: {key}: {message}"),
        });
    }
    keys.public = keys.public.take().or(public);
    keys.server = keys.server.take().or(server);
    keys.pseudonym = keys.pseudonym.take().or(pseudonym);
    keys.user_token = keys.user_token.take().or(user_token);
    Ok(())
}

/// Fills what `keys` lacks from the file at `path`, makes what is still lacking, and keeps it there. Returns
/// whether anything was made.
///
/// # Errors
/// [`KeyFileError`]; then nothing was made.
pub fn complete(keys: &mut Keys, path: &Path, environment: &str) -> Result<bool, KeyFileError> {
    let configured = keys.clone();
    let mut stored = Keys {
        public: None,
        server: None,
        pseudonym: None,
        user_token: None,
    };
    read(&mut stored, path)?;
    let mut lines = String::from(
        "# Made by cartwright at its first start. Keep a copy: without pseudonym_key, the warehouse's profiles\n\
         # can never again be matched to their shoppers.\n",
    );
    let mut made = false;
    let known = configured.named().into_iter().zip(stored.named());
    for ((name, prefix), ((_, configured), (_, stored))) in MADE.into_iter().zip(known) {
        let value = match stored {
            Some(value) => value,
            None if configured.is_some() => continue,
            None => {
                made = true;
                make(prefix, environment)?
            }
        };
        lines.push_str(&format!("{name} = \"{value}\"\n"));
    }
    if made {
        replace(path, &lines)?;
    }
    read(keys, path)?;
    Ok(made)
}

/// A new set of keys as settings and values, kept nowhere: for nodes that share their stores.
///
/// # Errors
/// [`KeyFileError::Random`].
pub fn generate(environment: &str) -> Result<Vec<(&'static str, String)>, KeyFileError> {
    let made = MADE.map(|(name, prefix)| Ok((name, make(prefix, environment)?)));
    made.into_iter().collect()
}

fn make(prefix: &str, environment: &str) -> Result<String, KeyFileError> {
    Ok(format!("{}{}", prefix.replace("ENV", environment), random()?))
}

/// 256 random bits as text.
fn random() -> Result<String, KeyFileError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(KeyFileError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn replace(path: &Path, text: &str) -> Result<(), KeyFileError> {
    let failed = |what| {
        move |source| KeyFileError::Io {
            path: path.to_owned(),
            what,
            source,
        }
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed("given a folder"))?;
    let beside = path.with_extension("toml.new");
    // A file left by a start that was cut off may have looser permissions than the ones asked for below.
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replaced")(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside).map_err(failed("made"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed("written"))?;
    std::fs::rename(&beside, path).map_err(failed("replaced"))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("made durable"))
}
