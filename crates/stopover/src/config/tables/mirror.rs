//! `[upstream.mirrors.NAME]`: another place that has a registry's content.

use oci::RepositoryName;

use super::{
    super::{
        field::{Field, LaneField},
        keys::{Key, table_key},
        lane::{Mirror, MirrorWhen},
        mistake::Mistake,
    },
    Entry, RESERVED, Table, check_names,
};

const SECTION: &str = "upstream.mirrors";

/// A mirror, as written.
#[derive(Clone, Default)]
pub(in super::super) struct MirrorTable {
    url: String,
    repository_prefix: Option<RepositoryName>,
    when: MirrorWhen,
    repositories: Vec<RepositoryName>,
}

static KEYS: &[Key<MirrorTable>] = &[
    table_key(
        SECTION,
        "url",
        Field::Url(|t| &mut t.url),
        "Where it is reached, as `upstream.url`. It has no account.",
    ),
    table_key(
        SECTION,
        "repository_prefix",
        Field::Repository(|t| &mut t.repository_prefix),
        "What stands before each repository's name there: `docker` at `https://public.ecr.aws`, which has `library/alpine` as \
         `docker/library/alpine`.",
    ),
    table_key(
        SECTION,
        "when",
        Field::Lane(LaneField::When(|t| &mut t.when)),
        "`low`: where the registry's quota runs low or it fails. `first`: before the registry.",
    ),
    table_key(
        SECTION,
        "repositories",
        Field::Lane(LaneField::Repositories(|t| &mut t.repositories)),
        "What it is asked for: names of repositories, or what they begin with, part by part, such as `library` for Docker \
         Hub's official images. Not set: all.",
    ),
];

impl Table for MirrorTable {
    const SECTION: &'static str = SECTION;
    const EXAMPLE: &'static str = "gcr";
    const DOC: &'static str = "A table for each other place that has the registry's content, such as `https://mirror.gcr.io` for \
         Docker Hub. It is asked by digest alone and without an account, and what it sends counts only if it is what the digest \
         says. NAME is what logs, metrics and `stopover quota` call it.";

    fn keys() -> &'static [Key<Self>] {
        KEYS
    }
}

/// Returns the mirrors that tables say of a registry that is reached at `url`.
pub(super) fn all(entries: &[Entry<MirrorTable>], url: &str, mistakes: &mut Vec<Mistake>) -> Vec<Mirror> {
    check_names(entries, &RESERVED, mistakes);
    let mut mirrors = Vec::new();
    for entry in entries {
        let Some(MirrorTable { url: at, repository_prefix, when, repositories }) = entry.value(mistakes)
        else {
            continue;
        };
        if at.is_empty() {
            mistakes.push(entry.mistake("", "expected url to be set, such as \"https://mirror.gcr.io\""));
        } else if at == url {
            mistakes.push(entry.mistake("url", "it is the registry itself; expected another place"));
        }
        mirrors.push(Mirror { name: entry.name.clone(), url: at, repository_prefix, repositories, when });
    }
    mirrors
}

impl From<&Mirror> for MirrorTable {
    fn from(mirror: &Mirror) -> Self {
        Self {
            url: mirror.url.clone(),
            repository_prefix: mirror.repository_prefix.clone(),
            when: mirror.when,
            repositories: mirror.repositories.clone(),
        }
    }
}
