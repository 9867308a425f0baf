//! What decides whether a scenario has succeeded: the content of disks and files.
