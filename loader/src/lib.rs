//! Feeds shards to training.
//!
//! | module | what it is |
//! |---|---|
//! | [`order`] | which sample comes when: any position of any epoch, computed |

pub mod order;
