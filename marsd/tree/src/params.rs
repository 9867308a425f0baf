//! Where the parameters of this node and what is published beside them stand (`symlink-spec.md` section 11.7).

use std::path::{Path, PathBuf};

use crate::Env;

/// Where a kernel module publishes parameters, rates and messages.
const MODULE_DIR: &str = "/proc/sys/mars";

/// The directory of parameters that marsd makes and fills: `MARS_RUN/sys`. Files of a kernel module stand elsewhere:
/// see [`param_file`].
pub fn params_dir(env: &Env) -> PathBuf {
    env.run.join("sys")
}

/// The directory of the kernel module's files; it exists while the module is loaded.
pub fn module_params_dir() -> PathBuf {
    MODULE_DIR.into()
}

/// The file of a parameter, of a rate or of messages: that of the kernel module where it has one of this name, else the
/// one in [`params_dir`], which may not exist.
pub fn param_file(env: &Env, name: &str) -> PathBuf {
    choose(Path::new(MODULE_DIR), &params_dir(env), name)
}

fn choose(module: &Path, own: &Path, name: &str) -> PathBuf {
    let of_module = module.join(name);
    if of_module.exists() {
        of_module
    } else {
        own.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_module_comes_before_the_own_one() {
        let dir = tempfile::tempdir().unwrap();
        let (module, own) = (dir.path().join("module"), dir.path().join("own"));
        assert_eq!(choose(&module, &own, "a"), own.join("a"));
        std::fs::create_dir(&module).unwrap();
        std::fs::write(module.join("a"), "1\n").unwrap();
        assert_eq!(choose(&module, &own, "a"), module.join("a"));
        assert_eq!(choose(&module, &own, "b"), own.join("b"));
    }
}
