//! Why a placement was filled the way it was: a closed list, part of the public contract.

/// The reason of one placement's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// An experience of a single variant applied.
    TargetingMatch,
    /// A variant of an experiment applied.
    Split,
    /// A variant that a bandit chose.
    Bandit,
    /// The fallback, since the shopper is kept from what would apply, to compare with.
    Holdout,
    /// The fallback, since the experience that would have applied has reached its frequency cap.
    Capped,
    /// Ranked by the shopper's own affinity, smoothed with the population's.
    Ranked,
    /// Recommended from what goes with the shopper's items.
    Recommended,
    /// By what all customers do, since nothing of the shopper's own says more.
    Popular,
    /// The fallback, since nothing applied.
    NoMatch,
    /// Without the profile, since personalization is denied.
    Consent,
    /// Without the profile, since it could not be read, or without an experiment that could not be recorded.
    Degraded,
}

impl Reason {
    pub const ALL: [Reason; 11] = [
        Reason::TargetingMatch,
        Reason::Split,
        Reason::Bandit,
        Reason::Holdout,
        Reason::Capped,
        Reason::Ranked,
        Reason::Recommended,
        Reason::Popular,
        Reason::NoMatch,
        Reason::Consent,
        Reason::Degraded,
    ];

    /// The name on the wire, in decision records and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::TargetingMatch => "targeting_match",
            Reason::Split => "split",
            Reason::Bandit => "bandit",
            Reason::Holdout => "holdout",
            Reason::Capped => "capped",
            Reason::Ranked => "ranked",
            Reason::Recommended => "recommended",
            Reason::Popular => "popular",
            Reason::NoMatch => "no_match",
            Reason::Consent => "consent",
            Reason::Degraded => "degraded",
        }
    }
}
