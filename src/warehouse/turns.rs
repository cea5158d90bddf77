//! Rows and requests by turns.
//!
//! What is read to learn from has hundreds of thousands of rows, and where they come faster than they are taken in, nothing makes the
//! task let go of its thread, on which a node of one core answers everybody.

/// Taken in at once: some 0.2 ms. More: requests wait for longer. Fewer: more turns than rows.
const ROWS: u32 = 64;

/// Counts the rows of one reading.
#[derive(Debug, Default)]
pub(super) struct Turns(u32);

impl Turns {
    /// After each row.
    pub(super) async fn row(&mut self) {
        self.0 += 1;
        if self.0 == ROWS {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn others_have_their_turn_while_rows_are_taken_in() {
        static OTHERS: AtomicU32 = AtomicU32::new(0);
        let other = tokio::spawn(async {
            loop {
                OTHERS.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        let mut turns = Turns::default();
        for _ in 0..10 * ROWS {
            turns.row().await;
        }
        other.abort();
        assert!(OTHERS.load(Ordering::Relaxed) >= 9);
    }
}
