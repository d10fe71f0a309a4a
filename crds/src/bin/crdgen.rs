//! Writes the custom resource definitions to a directory, or checks that what is there is current.
//!
//! `crdgen [--check] [DIR]`; DIR defaults to `crds/generated`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use spillway_crds::definitions;

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("unknown option {0}: use crdgen [--check] [DIR]")]
    UnknownOption(String),
    #[error("cannot serialize the definitions")]
    Json(#[from] serde_json::Error),
    #[error("cannot write the definitions as YAML")]
    Yaml(#[from] serde_yaml::Error),
    #[error("{path}: {source}", path = path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("not current, run `cargo run -p spillway-crds --bin crdgen`: {0}")]
    Drift(String),
}

fn main() -> ExitCode {
    match run(env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> Result<(), Error> {
    let mut check = false;
    let mut directory = PathBuf::from("crds/generated");
    for argument in arguments {
        match argument.as_str() {
            "--check" => check = true,
            option if option.starts_with('-') => return Err(Error::UnknownOption(argument)),
            _ => directory = PathBuf::from(argument),
        }
    }
    let wanted = definitions()?
        .iter()
        .map(|definition| Ok((format!("{}.yaml", definition.plural), definition.yaml()?)))
        .collect::<Result<BTreeMap<_, _>, Error>>()?;
    if check {
        compare(&directory, &wanted)
    } else {
        write(&directory, &wanted)
    }
}

fn write(directory: &Path, wanted: &BTreeMap<String, String>) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| Error::File {
        path: directory.to_owned(),
        source,
    })?;
    for (name, text) in wanted {
        let path = directory.join(name);
        fs::write(&path, text).map_err(|source| Error::File { path, source })?;
    }
    for name in present(directory)?
        .into_keys()
        .filter(|name| !wanted.contains_key(name))
    {
        let path = directory.join(name);
        fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
    }
    Ok(())
}

fn compare(directory: &Path, wanted: &BTreeMap<String, String>) -> Result<(), Error> {
    let present = present(directory)?;
    let drifted: Vec<_> = wanted
        .keys()
        .chain(present.keys())
        .filter(|name| wanted.get(*name) != present.get(*name))
        .map(|name| directory.join(name).display().to_string())
        .collect();
    if drifted.is_empty() {
        Ok(())
    } else {
        Err(Error::Drift(drifted.join(", ")))
    }
}

/// The YAML files of the directory, by name.
fn present(directory: &Path) -> Result<BTreeMap<String, String>, Error> {
    let error = |source| Error::File {
        path: directory.to_owned(),
        source,
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if let Some(name) = path.file_name().and_then(|name| name.to_str())
            && path
                .extension()
                .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(&path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            files.insert(name.to_owned(), text);
        }
    }
    Ok(files)
}
