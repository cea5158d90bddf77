//! The closed lists of label values.

/// The value of any label that is outside its closed list.
pub(super) const OTHER: &str = "other";

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident => $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            pub(super) const TEXTS: &'static [&'static str] = &[$($text),+];

            /// The label's value.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }
        }
    };
}

labels! {
    /// What a request asked for, whatever its path and query say.
    Route {
        GetPersonalize => "get_personalize",
        PostPersonalize => "post_personalize",
        PostEvents => "post_events",
        Ofrep => "ofrep",
        Health => "health",
        Openapi => "openapi",
        Metrics => "metrics",
        Admin => "admin",
        OperatorEvents => "operator_events",
        OperatorStatus => "operator_status",
        OperatorRuleset => "operator_ruleset",
        Preflight => "preflight",
        Other => "other",
    }
}

labels! {
    /// Where a profile came from.
    ReadSource { Near => "near", Hot => "hot", Warehouse => "warehouse", None => "none" }
}

labels! {
    /// A store that profiles are read from.
    Store { Hot => "hot", Warehouse => "warehouse" }
}

labels! {
    /// How an attempt ended.
    Outcome {
        Ok => "ok",
        /// The log is at its size limit.
        Full => "full",
        /// Nothing happened, and it may be tried again.
        Unavailable => "unavailable",
        /// It may or may not have happened.
        Unknown => "unknown",
        /// Another worker was first.
        Moved => "moved",
        /// Refused for good.
        Rejected => "rejected",
        /// The deadline passed first.
        Timeout => "timeout",
        Failed => "failed",
    }
}

labels! {
    /// What became of one event of a request.
    Receipt {
        Accepted => "accepted",
        Duplicate => "duplicate",
        Quarantined => "quarantined",
        Rejected => "rejected",
    }
}

labels! {
    /// What became of an event that nodes tell each other.
    Told {
        Told => "told",
        /// It waited while too much did, or the message could not be sent.
        Dropped => "dropped",
        Heard => "heard",
        /// A message of another build, or none; counts one, whatever is in it.
        Unreadable => "unreadable",
    }
}

labels! {
    /// A worker that turns the log into a view.
    Lane { Fast => "fast" }
}

labels! {
    /// What became of a decision record.
    Record {
        Recorded => "recorded",
        /// Left out by `decisions.record`.
        Unsampled => "unsampled",
        /// The log took no record, so no experiment took part either.
        Refused => "refused",
    }
}

/// HTTP statuses that this service sends; others are counted as `other`.
pub(super) const STATUSES: &[&str] = &[
    "200", "202", "204", "304", "400", "401", "403", "404", "405", "406", "408", "409", "413", "415", "422",
    "429", "500", "503", "504", OTHER,
];
/// The kinds of placement.
pub(super) const KINDS: &[&str] = &["content", "ranking", "recommendation", OTHER];
/// The closed list of reasons of a placement's answer.
pub(super) const REASONS: &[&str] = &[
    "targeting_match",
    "split",
    "bandit",
    "holdout",
    "capped",
    "ranked",
    "recommended",
    "popular",
    "no_match",
    "consent",
    "degraded",
    OTHER,
];
