//! Reason codes: stable words of the public contract. A code is never renamed or reused.

/// Declares a closed enum with its stable text.
macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident => $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];

            /// The stable code, as receipts and the warehouse show it.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

codes! {
    /// Why an event was not stored. All are permanent: sending the same event again changes nothing.
    RejectCode {
        /// Not an object, or a field of the envelope has the wrong type.
        MalformedEvent => "malformed_event",
        EventTooLarge => "event_too_large",
        TooDeep => "too_deep",
        TooManyMembers => "too_many_members",
        StringTooLong => "string_too_long",
        MissingName => "missing_name",
        InvalidName => "invalid_name",
        /// The name belongs to records that Cartwright makes itself.
        ReservedName => "reserved_name",
        /// Only a server key may send this event.
        ServerOnly => "server_only",
        /// A server's identity event lacks one of the two identities.
        MissingIdentity => "missing_identity",
        InvalidEventId => "invalid_event_id",
        InvalidUserId => "invalid_user_id",
        InvalidAnonymousId => "invalid_anonymous_id",
        InvalidSessionId => "invalid_session_id",
        InvalidTimestamp => "invalid_timestamp",
        InvalidSentAt => "invalid_sent_at",
    }
}

codes! {
    /// Why an event was stored without being folded: its envelope is fine, but a property that its name
    /// promises is missing or has the wrong type.
    QuarantineCode {
        InvalidProperties => "invalid_properties",
        MissingProductId => "missing_product_id",
        InvalidProductId => "invalid_product_id",
        InvalidProducts => "invalid_products",
        TooManyProducts => "too_many_products",
        MissingOrderId => "missing_order_id",
        InvalidOrderId => "invalid_order_id",
        InvalidPrice => "invalid_price",
        InvalidQuantity => "invalid_quantity",
        InvalidTotal => "invalid_total",
        InvalidCurrency => "invalid_currency",
        /// An amount without a currency.
        MissingCurrency => "missing_currency",
        InvalidStep => "invalid_step",
        InvalidText => "invalid_text",
        /// A number that a double cannot hold.
        NumberOutOfRange => "number_out_of_range",
        /// An internal record that this build cannot read.
        InvalidRecord => "invalid_record",
    }
}
