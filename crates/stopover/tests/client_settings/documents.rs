//! The pages in docs/clients: every block that shows what the command prints is what it prints.
//!
//! A block stands below a line such as `<!-- stopover client docker --mirror http://mirror.example:5000 -->`. With
//! BLESS=1 the pages are written anew.

use std::{collections::BTreeSet, fs, path::Path};

use crate::machine::{CERTIFICATE, Machine};

const BEGIN: &str = "<!-- stopover client ";
const FENCE: &str = "```";

#[test]
fn the_blocks_in_each_page_are_what_the_command_prints() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clients");
    let mut clients = BTreeSet::new();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let right = as_printed(&page, &mut clients);
        if right != page {
            if std::env::var_os("BLESS").is_some() {
                fs::write(&path, &right).unwrap();
            } else {
                let differs = |(old, new): &(&str, &str)| old != new;
                let line = page.lines().zip(right.lines()).find(differs);
                wrong.push(format!("{}: {line:?}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "BLESS=1 cargo test writes them anew:\n{}", wrong.join("\n"));
    let all = ["buildkit", "containerd", "crio", "docker", "docker-desktop", "k3s", "kaniko", "podman"];
    assert_eq!(clients, all.map(str::to_owned).into(), "the clients that have a block");
}

/// Returns the page with each block as the command prints it.
fn as_printed(page: &str, clients: &mut BTreeSet<String>) -> String {
    let mut out = String::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        out.push_str(line);
        out.push('\n');
        let Some(arguments) = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(" -->")) else {
            continue;
        };
        clients.extend(arguments.split(' ').next().map(str::to_owned));
        let fence = lines.next().expect("a block follows");
        assert!(fence.starts_with(FENCE), "{line}: found {fence:?}, expected a block");
        let _old = lines.by_ref().find(|line| *line == FENCE).expect("the block ends");
        out.push_str(&format!("{fence}\n{}{FENCE}\n", printed(arguments)));
    }
    out
}

/// Runs the command on a machine that has nothing.
fn printed(arguments: &str) -> String {
    let machine = Machine::new();
    machine.put_on_desk("ca.crt", CERTIFICATE);
    let arguments: Vec<&str> = arguments.split(' ').collect();
    machine.run(&arguments, &[("HOME", "/home/ann")]).right()
}

#[test]
fn every_page_is_in_the_index() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/clients");
    let index = fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name == "README.md" || index.contains(&format!("({name})")), "{name} is not in the index");
    }
}
