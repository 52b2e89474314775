//! A [`Config`] as YAML again, in the words of the configuration file.
use crate::Config;

pub(crate) fn print(_config: &Config, _encryption_file: Option<&std::path::Path>) -> String {
    String::new()
}
