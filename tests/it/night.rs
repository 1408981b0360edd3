//! A simulated night of observing, held against the page.
