//! Write load whose acknowledged writes are known, so that each can be looked for afterwards.
