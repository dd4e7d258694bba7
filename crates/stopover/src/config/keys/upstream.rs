//! The keys of a registry: those of `[upstream]`, and of each table below `[upstreams]` but its name.

use super::{super::field::LaneField, Field, Key, key, wait};

const REQUESTS_MAX: usize = 100_000;
const STREAMS_MAX: usize = 64;

/// Every one of them.
pub(super) static KEYS: &[Key] = &[
    key(
        "upstream",
        "registry",
        Field::Host(|c| &mut c.upstream.registry),
        "The registry's name for clients, logs and metrics. With `docker.io`, names without a slash mean `library/<name>`, \
         wherever `url` points.",
    ),
    key(
        "upstream",
        "url",
        Field::Url(|c| &mut c.upstream.url),
        "Where the registry is reached: `http` or `https`. A path is what stands before `/v2/`, as in Artifactory's \
         `https://host/artifactory/api/docker/hub`. Of `url` and `registry`, the one of a well-known registry gives the other.",
    )
    .registry("REGISTRY_PROXY_REMOTEURL"),
    key(
        "upstream",
        "repository_prefix",
        Field::Repository(|c| &mut c.upstream.repository_prefix),
        "What stands before each repository's name at the registry and not in the names that clients use: a project of \
         Harbor's, a pull-through rule of ECR's.",
    ),
    key(
        "upstream",
        "aliases",
        Field::Names(|c| &mut c.upstream.aliases),
        "Other names for the registry: `[\"hub\"]` makes `<this mirror>/hub/org/app` an image of it, as a proxy project of Harbor \
         does, and `http://<this mirror>/hub` the URL of a mirror for it. An alias hides a namespace of that name at the default \
         registry.",
    ),
    key(
        "upstream",
        "hosts",
        Field::HostNames(|c| &mut c.upstream.hosts),
        "Names of this mirror, such as `[\"ghcr.mirror.example\"]`, by which it is a mirror of this registry alone. Ports and upper \
         case do not count.",
    ),
    key(
        "upstream",
        "username",
        Field::Text(|c| &mut c.upstream.username),
        "The account to pull with. Not set, or empty, is anonymous. Whoever reaches the mirror can pull what the account can. \
         `[upstream.accounts.NAME]` is for further ones.",
    )
    .registry("REGISTRY_PROXY_USERNAME"),
    key(
        "upstream",
        "password",
        Field::Secret(|c| &mut c.upstream.password),
        "The account's password or, better, a read-only access token.",
    )
    .registry("REGISTRY_PROXY_PASSWORD"),
    key(
        "upstream",
        "credential_helper",
        Field::Text(|c| &mut c.upstream.credential_helper),
        "A program that gives the account, by Docker's protocol for credential helpers: a path, a name in PATH, or the short \
         name of a helper, such as `ecr-login` for `docker-credential-ecr-login`. It is run without a shell or arguments of \
         yours. Not together with `username`. It is asked for \
         `https://index.docker.io/v1/` where the registry is docker.io, as `docker login` files it, else for the host in \
         `url`. Where it fails, the account that it gave last is used on, or none.",
    )
    .registry("REGISTRY_PROXY_EXEC_COMMAND"),
    key(
        "upstream",
        "credential_lifetime",
        Field::DurationIfSet(|c| &mut c.upstream.credential_lifetime),
        "How long what the helper gave is used. Not set: until the registry refuses it. 0: the helper is run for each login.",
    )
    .registry("REGISTRY_PROXY_EXEC_LIFETIME"),
    key(
        "upstream",
        "realms",
        Field::Hosts(|c| &mut c.upstream.realms),
        "Further hosts that may be given the account for a token. The registry's own host and those of well-known registries, \
         such as `auth.docker.io` for `docker.io`, need not be named. Always encrypted, unless `url` is not.",
    ),
    key(
        "upstream",
        "ca",
        Field::File(|c| &mut c.upstream.ca),
        "A file with certificates, in PEM form, that are trusted besides the system's: for a registry whose certificate was \
         made by a company's own authority.",
    ),
    key(
        "upstream",
        "client_certificate",
        Field::File(|c| &mut c.upstream.client_certificate),
        "A file with the certificate, in PEM form, that the registry wants to see, and the chain above it. It is shown to the \
         registry itself and to nobody else.",
    ),
    key(
        "upstream",
        "client_key",
        Field::File(|c| &mut c.upstream.client_key),
        "The file of that certificate's key, in PEM form.",
    ),
    key(
        "upstream",
        "anonymous",
        Field::Flag(|c| &mut c.upstream.anonymous),
        "Whether it is asked without an account too, where there are accounts: for what no account's `repositories` name, and to \
         spend the quota that each address has by itself. `false` needs an account.",
    ),
    key(
        "upstream",
        "egresses",
        Field::Lane(LaneField::Ways(|c| &mut c.upstream.egresses)),
        "The ways out to it: names of `[egresses.NAME]`, addresses of this machine, URLs of proxies (`http`, `https`, `socks5`), \
         and `default`, the system's own way with the proxies that the environment names. Not set: all of `[egresses.NAME]`, or \
         else `default`.",
    ),
    key(
        "upstream",
        "quota_reserve",
        Field::Lane(LaneField::Share(|c| &mut c.upstream.quota_reserve)),
        "How much of the pull quota is kept for what is not cached: a share of the limits of all accounts and ways out \
         together, or a number of GETs of manifests. At or below it no GET is spent on a tag that is cached, and cached tags \
         are checked less often. 0 keeps nothing.",
    ),
    key(
        "upstream",
        "bandwidth",
        Field::Lane(LaneField::Rate(|c| &mut c.upstream.bandwidth)),
        "How many bytes a second (not bits) its content may come at, all transfers together, each with an equal part. What is \
         in the cache goes out at full speed.",
    ),
    key(
        "upstream",
        "streams_max",
        Field::Count { of: |c| &mut c.upstream.streams_max, min: 1, max: STREAMS_MAX },
        "Connections at once that its blobs may be fetched by, so that a large one comes in parts beside one another. Each blob \
         has one whatever this is; 1 means no more.",
    ),
    key(
        "upstream",
        "requests_max",
        Field::Count { of: |c| &mut c.upstream.pace.requests_max, min: 0, max: REQUESTS_MAX },
        "Requests at once that wait for the registry's answer; further ones wait here. 0 is no limit. quay.io has 16.",
    ),
    key(
        "upstream",
        "requests_per_second",
        Field::Count { of: |c| &mut c.upstream.pace.requests_per_second, min: 0, max: REQUESTS_MAX },
        "Requests a second, twice as many at once after a pause. 0 is no limit. quay.io has 10.",
    ),
    key(
        "upstream",
        "pulls_per_second",
        Field::Count { of: |c| &mut c.upstream.pace.pulls_per_second, min: 0, max: REQUESTS_MAX },
        "GETs of manifests a second, twice as many at once after a pause. 0 is no limit. public.ecr.aws has 1, and 10 with an \
         account.",
    ),
    key(
        "upstream",
        "connect_timeout",
        wait(|c| &mut c.upstream.connect_timeout),
        "How long connecting to the registry may take, TLS included.",
    ),
    key(
        "upstream",
        "answer_timeout",
        wait(|c| &mut c.upstream.answer_timeout),
        "How long the registry may take to begin its answer.",
    ),
    key(
        "upstream",
        "stall_timeout",
        wait(|c| &mut c.upstream.stall_timeout),
        "A transfer that brings nothing for this long is broken off and resumed from where it stands.",
    ),
];
