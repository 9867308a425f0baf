//! Workers: fetch, replay and sync, one per resource and kind.
