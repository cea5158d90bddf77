//! What a decision record keeps of a decision's input, and the decision made again from it.
//!
//! [`Facts`] are written and [`RecordedFacts`] read. Their fields are the same in the same order, since the log's encoding knows them
//! by their place; the warehouse keeps them as JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smallvec::SmallVec;

use super::{Decision, ProfileState, Request, Terms, decide};
use crate::domain::consent::{Choice, ConsentStatement};
use crate::domain::ids::{SubjectId, Timestamp};
use crate::domain::profile::{Cart, CartLine, Snapshot, Version};
use crate::domain::recommend::{Excerpt, ExcerptRef, Population};
use crate::domain::ruleset::Ruleset;

/// All facts of a record, to be serialised: the request as the decision saw it, with pseudonyms and without raw identifiers,
/// the profile's bytes as they were read, and what was consulted of the population.
#[derive(Debug, Serialize)]
pub struct Facts<'a, 'p> {
    request: RequestFacts<'a>,
    profile: Option<ProfileBytes<&'p [u8]>>,
    population: ExcerptRef<'a>,
}

#[derive(Debug, Serialize)]
struct RequestFacts<'a> {
    user: Option<&'a SubjectId>,
    anonymous: Option<&'a SubjectId>,
    session: Option<&'a str>,
    placements: Option<&'a [&'a str]>,
    cart: Option<SmallVec<[Line<'a>; 8]>>,
    currency: Option<&'a str>,
    country: Option<&'a str>,
    locale: Option<&'a str>,
    device: Option<&'a str>,
    candidates: &'a [(&'a str, &'a [&'a str])],
    #[serde(with = "WholeConsent")]
    consent: ConsentStatement,
    consent_default: Choice,
    profile_unavailable: bool,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    item: &'a str,
    quantity: i64,
    price_minor: Option<i64>,
}

/// Consent with what is unstated, too.
#[derive(Serialize, Deserialize)]
#[serde(remote = "ConsentStatement")]
struct WholeConsent {
    analytics: Option<Choice>,
    personalization: Option<Choice>,
}

/// A profile as it is stored: bytes, or Base64 where a format has texts only.
#[derive(Debug)]
struct ProfileBytes<B>(B);

impl<B: AsRef<[u8]>> Serialize for ProfileBytes<B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.as_ref();
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&STANDARD.encode(bytes)),
            false => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de> Deserialize<'de> for ProfileBytes<Vec<u8>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return STANDARD.decode(text).map(ProfileBytes).map_err(de::Error::custom);
        }
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(ProfileBytes(bytes.to_vec()))
    }
}

impl<'a, 'p> Facts<'a, 'p> {
    /// With `named` false the request's facts name nobody, since the shopper denied analytics, or may have done so as far as could
    /// be read. `profile` is what was decided with.
    pub fn new(
        request: &Request<'a>,
        named: bool,
        terms: &Terms,
        profile_unavailable: bool,
        profile: Option<&'p [u8]>,
        population: ExcerptRef<'a>,
    ) -> Facts<'a, 'p> {
        fn line<'a>(line: &CartLine<'a>) -> Line<'a> {
            Line {
                item: line.item,
                quantity: line.quantity,
                price_minor: line.price_minor,
            }
        }
        Facts {
            request: RequestFacts {
                user: request.user.filter(|_| named),
                anonymous: request.anonymous.filter(|_| named),
                session: request.session.filter(|_| named),
                placements: request.placements,
                cart: request.cart.map(|cart| cart.lines.iter().map(line).collect()),
                currency: request.currency,
                country: request.country,
                locale: request.locale,
                device: request.device,
                candidates: request.candidates,
                consent: request.consent,
                consent_default: terms.consent_default,
                profile_unavailable,
            },
            profile: profile.map(ProfileBytes),
            population,
        }
    }

    /// About how long they are in the log, in bytes.
    pub fn size_hint(&self) -> usize {
        768 + self.profile.as_ref().map_or(0, |profile| profile.0.len())
    }
}

/// Facts read back.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedFacts {
    request: Asked,
    profile: Option<ProfileBytes<Vec<u8>>>,
    population: Excerpt,
}

/// Why a decision cannot be made again.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the facts are not those of a decision: {0}")]
    Facts(serde_json::Error),
    #[error("the profile in the record cannot be read: {0}")]
    Profile(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    user: Option<SubjectId>,
    anonymous: Option<SubjectId>,
    session: Option<String>,
    placements: Option<Vec<String>>,
    cart: Option<Vec<AskedLine>>,
    currency: Option<String>,
    country: Option<String>,
    locale: Option<String>,
    device: Option<String>,
    candidates: Vec<(String, Vec<String>)>,
    #[serde(with = "WholeConsent")]
    consent: ConsentStatement,
    consent_default: Choice,
    profile_unavailable: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct AskedLine {
    item: String,
    quantity: i64,
    price_minor: Option<i64>,
}

impl RecordedFacts {
    /// As the warehouse keeps them.
    pub fn to_json(&self) -> String {
        // Strings, numbers and maps by name always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A decision's input, ready to decide again.
#[derive(Debug)]
pub struct PastInput {
    asked: Asked,
    profile: Option<Snapshot>,
    population: Population,
}

impl PastInput {
    /// Reads what [`RecordedFacts::to_json`] wrote.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(facts: &str) -> Result<PastInput, RecordError> {
        let facts: RecordedFacts = serde_json::from_str(facts).map_err(RecordError::Facts)?;
        let profile = facts
            .profile
            .map(|profile| Snapshot::read(profile.0.into()))
            .transpose();
        Ok(PastInput {
            asked: facts.request,
            profile: profile.map_err(|error| RecordError::Profile(error.to_string()))?,
            population: Population::of_excerpt(&facts.population),
        })
    }

    /// Of the profile that was read.
    pub fn profile_version(&self) -> Option<Version> {
        self.profile.as_ref().map(Snapshot::version)
    }

    /// Decides again, under `ruleset` as of `decided_at`, and hands the decision to `see`.
    pub fn decide_again<T>(
        &self,
        ruleset: &Ruleset,
        decided_at: Timestamp,
        explain: bool,
        see: impl FnOnce(&Decision<'_>) -> T,
    ) -> T {
        let asked = &self.asked;
        let cart = asked.cart.as_deref().map(cart);
        let placements: Option<Vec<&str>> = asked
            .placements
            .as_ref()
            .map(|names| names.iter().map(String::as_str).collect());
        let offers: Vec<(&str, Vec<&str>)> = asked
            .candidates
            .iter()
            .map(|(name, list)| (name.as_str(), list.iter().map(String::as_str).collect()))
            .collect();
        let offers: Vec<(&str, &[&str])> = offers.iter().map(|(name, list)| (*name, &**list)).collect();
        let request = Request {
            user: asked.user.as_ref(),
            anonymous: asked.anonymous.as_ref(),
            session: asked.session.as_deref(),
            placements: placements.as_deref(),
            cart: cart.as_ref(),
            currency: asked.currency.as_deref(),
            country: asked.country.as_deref(),
            locale: asked.locale.as_deref(),
            device: asked.device.as_deref(),
            candidates: &offers,
            forced: &[],
            consent: asked.consent,
        };
        let terms = Terms {
            consent_default: asked.consent_default,
            // Without one there would be no record.
            record_permit: true,
            explain,
        };
        let profile = match &self.profile {
            _ if asked.profile_unavailable => ProfileState::Unavailable,
            Some(profile) => ProfileState::Known(profile),
            None => ProfileState::Absent,
        };
        see(&decide(
            ruleset,
            &self.population,
            profile,
            &request,
            decided_at,
            &terms,
        ))
    }
}

fn cart(lines: &[AskedLine]) -> Cart<'_> {
    let mut cart = Cart::default();
    for line in lines {
        let amount = line.price_minor.unwrap_or(0).saturating_mul(line.quantity);
        cart.total_minor = cart.total_minor.saturating_add(amount);
        cart.count = cart.count.saturating_add(line.quantity);
        cart.lines.push(CartLine {
            item: &line.item,
            quantity: line.quantity,
            price_minor: line.price_minor,
        });
    }
    cart
}
