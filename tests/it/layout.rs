//! What each module may import, so that data flows one way. The map in src/lib.rs is the same in words.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

/// A top-level module of the crate, the modules that it may import, and the crates beside the standard library.
struct Module {
    name: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
}

const MODULES: [Module; 11] = [
    Module { name: "cli", modules: &[], crates: &["clap", "strsim"] },
    Module { name: "config", modules: &["cli", "model"], crates: &["humantime"] },
    Module { name: "model", modules: &[], crates: &["shlex"] },
    Module {
        name: "redis",
        modules: &["config", "model"],
        crates: &["futures_util", "itoa", "redis", "rustls", "rustls_native_certs", "socket2", "tokio", "tokio_rustls"],
    },
    Module {
        name: "exporter",
        modules: &["exposition", "model", "process", "redis"],
        crates: &["futures_util", "tokio", "tracing"],
    },
    Module { name: "exposition", modules: &["model", "process"], crates: &["itoa", "zmij"] },
    Module { name: "report", modules: &["model"], crates: &["serde"] },
    Module {
        name: "status",
        modules: &["cli", "model", "redis", "report"],
        crates: &["comfy_table", "crossterm", "serde_json", "tokio"],
    },
    Module { name: "process", modules: &[], crates: &["procfs"] },
    Module {
        name: "web",
        modules: &["config", "exposition", "model", "report"],
        crates: &[
            "base64",
            "bcrypt",
            "flate2",
            "futures_util",
            "http_body_util",
            "hyper",
            "hyper_util",
            "maud",
            "ring",
            "rustls",
            "serde",
            "serde_path_to_error",
            "socket2",
            "tokio",
            "tokio_rustls",
            "tracing",
            "yaml_serde",
        ],
    },
    // Built only for the fuzz targets and for tests.
    Module { name: "fuzzing", modules: &["cli", "config", "redis", "web"], crates: &[] },
];

#[test]
fn each_module_imports_only_what_the_table_allows() {
    let found: BTreeMap<String, BTreeSet<String>> = imports();
    let mut wrong = BTreeSet::new();
    for (name, imported) in &found {
        let module = MODULES.iter().find(|module| module.name == name);
        let module = module.unwrap_or_else(|| panic!("{name} has no line in the table"));
        let may = |what: &str| match what.strip_prefix("crate::") {
            Some(other) => other == name || module.modules.contains(&other),
            None => module.crates.contains(&what),
        };
        wrong.extend(imported.iter().filter(|what| !may(what)).map(|what| (name.as_str(), what.as_str())));
    }
    assert_eq!(wrong, BTreeSet::new(), "imports that break the table");
    for module in &MODULES {
        assert!(found.contains_key(module.name), "there is no module {}", module.name);
    }
}

#[test]
fn the_map_in_lib_rs_allows_no_more_than_the_table() {
    let map = fs::read_to_string(source().join("lib.rs")).unwrap();
    for module in &MODULES {
        let starts = [format!("//! | [`{}`] |", module.name), format!("//! | `{}` |", module.name)];
        let row = map.lines().find(|line| starts.iter().any(|start| line.starts_with(start)));
        let row = row.unwrap_or_else(|| panic!("the map in src/lib.rs has no row for {}", module.name));
        let may_know = row.trim_end_matches('|').rsplit('|').next().unwrap();
        for named in may_know.split("[`").skip(1).map(|rest| rest.split('`').next().unwrap()) {
            assert!(module.modules.contains(&named), "src/lib.rs lets {} know {named}", module.name);
        }
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::{cli, web::{self, tls as files}};
        use ::hyper::Method;
        use super::super::process::Process;
        use super::replies;
        fn f() -> redis::Value { let _ = crate::exposition::NAME; cli::f(); tracing::debug!(\"\") }
        #[cfg(test)]
        mod tests { use proptest::prelude::*; }";
    let expected = ["crate::cli", "crate::exposition", "crate::process", "crate::redis", "crate::web"];
    let expected: BTreeSet<_> = expected.into_iter().chain(["hyper", "redis", "tracing"]).map(str::to_owned).collect();
    assert_eq!(imports_of(code, &["redis", "collect"]), expected);
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// For each top-level module what its files import. The two roots, lib.rs and main.rs, put everything together.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let place = path.strip_prefix(source()).unwrap().with_extension("");
            let place: Vec<_> = place.iter().map(|part| part.to_str().unwrap()).filter(|part| *part != "mod").collect();
            if !matches!(place[..], ["lib" | "main"]) {
                let imported = imports_of(&fs::read_to_string(&path).unwrap(), &place);
                found.entry(place[0].to_owned()).or_default().extend(imported);
            }
        }
    }
    found
}

/// Modules as `crate::name`, crates by their name.
fn imports_of(code: &str, place: &[&str]) -> BTreeSet<String> {
    let file = syn::parse_file(code).unwrap_or_else(|error| panic!("{place:?}: {error}"));
    let mut imports = Imports { place: place.iter().map(|part| (*part).to_owned()).collect(), ..Imports::default() };
    imports.visit_file(&file);
    // A name that was imported is no crate, even if a crate has the same name.
    let of_crate = |path: &&Vec<String>| !imports.names.contains(&path[0]) && dependencies().contains(&path[0]);
    let crates: Vec<_> = imports.paths.iter().filter(of_crate).map(|path| path[0].clone()).collect();
    imports.found.into_iter().chain(crates).collect()
}

/// The crates in Cargo.toml, by the names that code knows them by.
fn dependencies() -> BTreeSet<String> {
    let manifest = include_str!("../../Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).unwrap().split("[dev-dependencies]").next().unwrap();
    let named = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_"));
    named.filter(|name| !name.contains(['#', ' '])).collect()
}

#[derive(Default)]
struct Imports {
    place: Vec<String>,
    found: BTreeSet<String>,
    /// The names that `use` brings in.
    names: BTreeSet<String>,
    /// Paths that may begin with a crate's name.
    paths: Vec<Vec<String>>,
}

impl Imports {
    /// What comes with `use` and begins with no word of the language is a crate.
    fn take(&mut self, path: &[String], imported: bool) {
        let ups = path.iter().take_while(|part| *part == "super").count();
        match (path[0].as_str(), path.get(ups)) {
            ("crate", _) => self.found.extend(path.get(1).map(|module| format!("crate::{module}"))),
            ("super", Some(next)) => {
                let above = &self.place[..self.place.len().saturating_sub(ups)];
                let module = above.first().unwrap_or(next);
                self.found.insert(format!("crate::{module}"));
            }
            ("super" | "self" | "Self" | "std" | "core" | "alloc", _) => {}
            (first, _) if imported && first.starts_with(char::is_lowercase) => {
                self.found.insert(first.to_owned());
            }
            _ => self.paths.push(path.to_vec()),
        }
    }

    fn flatten(&mut self, tree: &UseTree, before: &[String]) {
        let with = |ident: &syn::Ident| [before, &[ident.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.flatten(&path.tree, &with(&path.ident)),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.flatten(item, before)),
            UseTree::Glob(_) => self.take(before, true),
            UseTree::Name(name) => self.bind(&with(&name.ident), &name.ident.to_string()),
            UseTree::Rename(rename) => self.bind(&with(&rename.ident), &rename.rename.to_string()),
        }
    }

    fn bind(&mut self, path: &[String], name: &str) {
        self.take(path, true);
        let name = if name == "self" { &path[path.len() - 2] } else { name };
        self.names.insert(name.to_owned());
    }
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.flatten(&item.tree, &[]);
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if !item.attrs.iter().any(is_for_tests) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if parts.len() > 1 {
            self.take(&parts, false);
        }
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}
