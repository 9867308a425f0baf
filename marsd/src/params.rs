//! The parameters of this node: reads their files, the configuration and the tree, and says what holds
//! (`symlink-spec.md` section 13).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mars_core::param::{ParamError, Settings, parse_config, permanent};
use mars_core::{HostName, Param, Tree};
use mars_tree::{Env, param_file, params_dir};

/// Longest file that is looked at, in bytes.
const FILE_MAX: u64 = 64 * 1024;

/// All parameters of this node.
#[derive(Debug)]
pub struct Params {
    env: Env,
    config_path: PathBuf,
    /// What was read last, or why not.
    config_text: Option<Result<String, String>>,
    config: Settings,
    /// Values that were written to the files since the start.
    runtime: Settings,
    /// Content of the files as it was seen or written last.
    shown: BTreeMap<Param, String>,
    current: Settings,
}

/// What the file of a parameter says.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// What it said before, or nothing yet.
    Nothing,
    /// There is no such file.
    Missing,
    /// From now on this; `None`: what holds without the file.
    Value(Option<u64>),
    Bad(ParamError),
}

impl Params {
    /// The parameters at the start: what earlier files of marsd say does not count.
    pub fn new(env: Env, config_path: PathBuf) -> Self {
        Self {
            env,
            config_path,
            config_text: None,
            config: Settings::new(),
            runtime: Settings::new(),
            shown: BTreeMap::new(),
            current: Settings::new(),
        }
    }

    /// The value that holds.
    pub fn get(&self, param: Param) -> u64 {
        let value = self.current.get(&param).copied();
        value.unwrap_or(param.default_value())
    }

    /// Looks at all places. Returns whether a value changed; each problem is given to `tell` once, with its file.
    pub fn refresh(
        &mut self,
        tree: &Tree,
        me: &HostName,
        mut tell: impl FnMut(&Path, &str),
    ) -> bool {
        self.read_config(&mut tell);
        let is_first = self.shown.is_empty();
        let mut is_changed = false;
        for param in Param::ALL {
            let said = permanent(tree, me, &self.config, param);
            let path = param_file(&self.env, param.name());
            if is_first {
                self.begin(param, &path, said);
            } else {
                self.look(param, &path, &mut tell);
            }
            let base = said.unwrap_or(param.default_value());
            let value = self.runtime.get(&param).copied().unwrap_or(base);
            if let Err(e) = self.show(param, &path, value) {
                tell(&path, &format!("cannot be written: {e}"));
            }
            let old = self.current.insert(param, value);
            if old != Some(value) {
                is_changed = true;
                if old.is_some() || value != param.default_value() {
                    tracing::info!("{} is {value} now", param.name());
                }
            }
        }
        is_changed
    }

    /// A module that is loaded may have been told something before; files of marsd are what an earlier one left.
    fn begin(&mut self, param: Param, path: &Path, said: Option<u64>) {
        if said.is_none() && !path.starts_with(params_dir(&self.env)) {
            let text = load(path).ok().flatten().unwrap_or_default();
            if let Ok(value) = param.parse_value(&text) {
                self.runtime.insert(param, value);
            }
        }
    }

    fn look(&mut self, param: Param, path: &Path, tell: &mut impl FnMut(&Path, &str)) {
        let text = match load(path) {
            Ok(text) => text,
            Err(e) => return tell(path, &format!("cannot be read: {e}")),
        };
        let shown = self.shown.get(&param).map_or("", String::as_str);
        match said(param, shown, text.as_deref()) {
            Said::Nothing => {}
            Said::Missing => drop(self.shown.insert(param, String::new())),
            Said::Value(Some(value)) => {
                self.runtime.insert(param, value);
                self.shown.insert(param, text.unwrap_or_default());
            }
            Said::Value(None) => {
                self.runtime.remove(&param);
                self.shown.insert(param, text.unwrap_or_default());
            }
            Said::Bad(error) => {
                let value = self.get(param);
                tell(path, &format!("{error}; it stays {value}"));
                self.shown.insert(param, text.unwrap_or_default());
            }
        }
    }

    /// Lets the file say what holds.
    fn show(&mut self, param: Param, path: &Path, value: u64) -> io::Result<()> {
        let shown = self.shown.get(&param).map_or("", String::as_str);
        if param.parse_value(shown) == Ok(value) {
            return Ok(());
        }
        let text = format!("{value}\n");
        // Once, also if it cannot be written.
        self.shown.insert(param, text.clone());
        self.write(path, &text)
    }

    /// Replaces the text of a file of ours, or of the kernel module.
    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        if path.starts_with(params_dir(&self.env)) {
            store(path, text)
        } else {
            fs::write(path, text)
        }
    }

    /// Reads the configuration again if it is another one. A bad line leaves its parameter as it was.
    fn read_config(&mut self, tell: &mut impl FnMut(&Path, &str)) {
        let text = load(&self.config_path)
            .map(Option::unwrap_or_default)
            .map_err(|e| format!("cannot be read: {e}"));
        if self.config_text.as_ref() == Some(&text) {
            return;
        }
        match &text {
            Err(why) => tell(&self.config_path, why),
            Ok(text) => {
                let (mut settings, problems) = parse_config(text);
                for problem in problems {
                    let old = problem.param.and_then(|p| Some((p, *self.config.get(&p)?)));
                    settings.extend(old);
                    tell(&self.config_path, &problem.to_string());
                }
                self.config = settings;
            }
        }
        self.config_text = Some(text);
    }

    /// Publishes a measured value beside the parameters, for mars-status.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn publish(&self, name: &str, value: &str) -> io::Result<()> {
        self.write(&param_file(&self.env, name), &format!("{value}\n"))
    }
}

/// What a file means that holds `text`, and held `shown` before.
fn said(param: Param, shown: &str, text: Option<&str>) -> Said {
    let Some(text) = text else {
        return Said::Missing;
    };
    // An empty file is one that is just being written.
    if text == shown || text.trim().is_empty() {
        return Said::Nothing;
    }
    match param.parse_setting(text) {
        Ok(setting) => Said::Value(setting),
        Err(error) => Said::Bad(error),
    }
}

/// The text of a file; `None` if there is none.
fn load(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
        Ok(meta) if !meta.is_file() => return Err(io::Error::other("it is no regular file")),
        Ok(meta) if meta.len() > FILE_MAX => {
            return Err(io::Error::other("it is longer than 64 KiB"));
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Replaces a file at once, so that no reader finds it empty.
fn store(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let temp = path.with_extension("tmp");
    fs::write(&temp, text)?;
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o644))?;
    fs::rename(&temp, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mars_core::{LinkPath, Stamp};

    struct Node {
        _dir: tempfile::TempDir,
        sys: PathBuf,
        config: PathBuf,
        tree: Tree,
        params: Params,
    }

    impl Node {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let env = Env {
                dir: dir.path().join("mars"),
                host: HostName::new("A").unwrap(),
                run: dir.path().join("run"),
            };
            let config = dir.path().join("mars.conf");
            Self {
                sys: params_dir(&env),
                params: Params::new(env, config.clone()),
                _dir: dir,
                config,
                tree: Tree::default(),
            }
        }

        fn refresh(&mut self) -> (bool, Vec<String>) {
            let mut told = Vec::new();
            let me = HostName::new("A").unwrap();
            let tell = |path: &Path, why: &str| told.push(format!("{}: {why}", path.display()));
            let is_changed = self.params.refresh(&self.tree, &me, tell);
            (is_changed, told)
        }

        fn quiet(&mut self) -> bool {
            let (is_changed, told) = self.refresh();
            assert!(told.is_empty(), "{told:?}");
            is_changed
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.sys.join(name), text).unwrap();
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.sys.join(name)).unwrap()
        }
    }

    #[test]
    fn files_are_filled_at_the_start_and_hold_until_the_next() {
        let mut node = Node::new();
        fs::create_dir_all(&node.sys).unwrap();
        node.write("loadavg_limit", "9\n");
        assert!(node.quiet());
        for param in Param::ALL {
            assert_eq!(
                node.read(param.name()),
                format!("{}\n", param.default_value())
            );
        }
        assert!(!node.quiet());
        node.write("loadavg_limit", "5");
        assert!(node.quiet());
        assert_eq!(node.params.get(Param::LoadavgLimit), 5);
        assert_eq!(node.read("loadavg_limit"), "5");
        // Just being written.
        node.write("loadavg_limit", "");
        assert!(!node.quiet());
        node.write("loadavg_limit", "default\n");
        assert!(node.quiet());
        assert_eq!(node.read("loadavg_limit"), "0\n");
        fs::remove_file(node.sys.join("loadavg_limit")).unwrap();
        assert!(!node.quiet());
        assert_eq!(node.read("loadavg_limit"), "0\n");
    }

    #[test]
    fn a_bad_value_is_told_once_with_file_value_and_range_and_the_old_one_stays() {
        let mut node = Node::new();
        node.quiet();
        node.write("percent_mem_limit_kb", "50\n");
        node.quiet();
        node.write("percent_mem_limit_kb", "80\n");
        let (is_changed, told) = node.refresh();
        assert!(!is_changed);
        let path = node.sys.join("percent_mem_limit_kb");
        let wanted = format!(
            "{}: percent_mem_limit_kb cannot be '80': allowed are percent of the memory from 0 to 70; it stays 50",
            path.display()
        );
        assert_eq!(told, [wanted]);
        assert_eq!(node.read("percent_mem_limit_kb"), "50\n");
        node.quiet();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let (_, told) = node.refresh();
        assert!(told[0].contains("no regular file"), "{told:?}");
        assert_eq!(node.params.get(Param::PercentMemLimitKb), 50);
    }

    #[test]
    fn permanent_values_come_from_configuration_and_tree_and_follow_them() {
        let mut node = Node::new();
        let path = LinkPath::parse("defaults/network_traffic_limit_kb").unwrap();
        node.tree
            .put(path.clone(), "100", Stamp::default())
            .unwrap();
        fs::write(&node.config, "loadavg_limit = 7\n").unwrap();
        node.quiet();
        assert_eq!(node.read("network_traffic_limit_kb"), "100\n");
        assert_eq!(node.read("loadavg_limit"), "7\n");
        node.tree
            .put(path.clone(), "200", Stamp::default())
            .unwrap();
        assert!(node.quiet());
        assert_eq!(node.read("network_traffic_limit_kb"), "200\n");
        // What was written at run time stays in spite of the tree.
        node.write("network_traffic_limit_kb", "5\n");
        node.quiet();
        node.tree.put(path, "300", Stamp::default()).unwrap();
        assert!(!node.quiet());
        assert_eq!(node.params.get(Param::NetworkTrafficLimitKb), 5);
        fs::write(&node.config, "loadavg_limit = x\nfree_space_mb = 9\n").unwrap();
        let (is_changed, told) = node.refresh();
        assert!(is_changed);
        assert!(
            told.len() == 1 && told[0].contains("mars.conf: line 1: loadavg_limit"),
            "{told:?}"
        );
        assert_eq!(node.params.get(Param::LoadavgLimit), 7);
        assert_eq!(node.params.get(Param::FreeSpaceMb), 9);
        fs::remove_file(&node.config).unwrap();
        assert!(node.quiet());
        assert_eq!(node.params.get(Param::LoadavgLimit), 0);
    }
}
