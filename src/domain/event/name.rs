//! The event names of the Segment E-commerce Spec V2, and one of our own: `Product Updated`, by which a shop's back end keeps the
//! catalogue.

macro_rules! known_events {
    ($($variant:ident => $text:literal,)*) => {
        /// An event whose properties are known and checked. Any other name is a custom event.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum KnownEvent { $($variant,)* }

        impl KnownEvent {
            pub const ALL: &'static [KnownEvent] = &[$(KnownEvent::$variant,)*];

            pub fn as_str(self) -> &'static str {
                match self { $(KnownEvent::$variant => $text,)* }
            }
        }
    };
}

known_events! {
    ProductsSearched => "Products Searched",
    ProductListViewed => "Product List Viewed",
    ProductListFiltered => "Product List Filtered",
    PromotionViewed => "Promotion Viewed",
    PromotionClicked => "Promotion Clicked",
    ProductClicked => "Product Clicked",
    ProductViewed => "Product Viewed",
    ProductAdded => "Product Added",
    ProductRemoved => "Product Removed",
    CartViewed => "Cart Viewed",
    CheckoutStarted => "Checkout Started",
    CheckoutStepViewed => "Checkout Step Viewed",
    CheckoutStepCompleted => "Checkout Step Completed",
    PaymentInfoEntered => "Payment Info Entered",
    OrderUpdated => "Order Updated",
    OrderCompleted => "Order Completed",
    OrderRefunded => "Order Refunded",
    OrderCancelled => "Order Cancelled",
    CouponEntered => "Coupon Entered",
    CouponApplied => "Coupon Applied",
    CouponDenied => "Coupon Denied",
    CouponRemoved => "Coupon Removed",
    ProductAddedToWishlist => "Product Added to Wishlist",
    ProductRemovedFromWishlist => "Product Removed from Wishlist",
    WishlistProductAddedToCart => "Wishlist Product Added to Cart",
    ProductShared => "Product Shared",
    CartShared => "Cart Shared",
    ProductReviewed => "Product Reviewed",
    ProductUpdated => "Product Updated",
}

impl KnownEvent {
    /// Case doesn't matter: `order completed` is the same event, and is stored under its official name.
    pub fn from_name(name: &str) -> Option<KnownEvent> {
        KnownEvent::ALL
            .iter()
            .copied()
            .find(|known| known.as_str().eq_ignore_ascii_case(name))
    }
}
