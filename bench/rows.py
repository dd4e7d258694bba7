"""What is measured, one function a row. Each yields lines for the table.

All of a row's servers run at the same time and are measured in turns, so that what disturbs the machine strikes all
alike. A figure that must be reached is the median of the ratios within one turn.
"""

import concurrent.futures
import dataclasses
import json
import os
import re
import statistics
import sys

from stand import ACCEPT, Failed, get, wait_for

MB = 1_000_000
BLOB = "/v2/{}/blobs/{}"


@dataclasses.dataclass
class Line:
    """A line of the table, and a group of bars."""

    what: str
    unit: str
    # By who: "nginx" or "bare line", "docker-registry", "Stopover".
    values: dict
    # The figure that must be reached, as text, and what it must be.
    figure: str = ""
    must: str = ""
    is_reached: bool | None = None


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured."""

    turns: int = 5
    wrk_seconds: int = 3
    warm_blob: str = "256MiB"
    warm_requests: int = 32
    # The lines of row "cold", in MB a second and None for one without limit, each with the MB that go over it.
    cold_lines: tuple = ((40, 120), (125, 375), (None, 500))
    crowd_mb: int = 80
    crowds_of_registry: tuple = (16, 100)
    memory_mb: int = 100


QUICK = Scale(
    turns=3,
    wrk_seconds=1,
    warm_requests=8,
    cold_lines=((40, 40), (125, 125), (None, 250)),
    crowd_mb=40,
    crowds_of_registry=(16,),
    memory_mb=10,
)


def manifests(stand, scale):
    """Warm manifests a second, by wrk with 32 connections. By tag each mirror does what it does with its defaults:
    Stopover believes a tag for 60 s, docker-registry asks upstream each time.
    """
    hub, repository = stand.hub(), "/v2/prom/prometheus/manifests/"
    hub.image("prom/prometheus:latest=many-layers")
    servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
    index = get(servers["Stopover"].url + repository + "latest")
    platform = json.loads(index)["manifests"][0]["digest"]
    paths = {"by digest": repository + platform, "by tag": repository + "latest"}
    files = {}
    for how, path in paths.items():
        bodies = {get(server.url + path) for server in servers.values()}
        if len(bodies) != 1:
            raise Failed(f"the mirrors do not serve the same bytes {how}")
        files[path] = f"{stand.folder}/manifest.{how}"
        with open(files[path], "wb") as file:
            file.write(bodies.pop())
    servers = {"nginx": stand.nginx(files), **servers}
    for how, path in paths.items():
        turns = [
            {who: wrk(stand, scale, server, path) for who, server in servers.items()} for _ in range(scale.turns)
        ]
        size = os.path.getsize(files[path])
        rates = pick(turns, 0)
        yield at_least(f"warm manifests {how} ({size:,} bytes)", "a second", rates, "nginx", 1.0)
        yield Line(f"CPU time of a manifest {how}", "µs", medians(pick(turns, 1)))


def wrk(stand, scale, server, path):
    """Returns requests a second, and the server's CPU-microseconds a request."""
    command = ["wrk", "-t1", "-c32", f"-d{scale.wrk_seconds}s", "-H", f"Accept: {ACCEPT}", server.url + path]
    cpu = server.cpu_seconds()
    printed = stand.client(*command)
    cpu = server.cpu_seconds() - cpu
    if "Non-2xx" in printed or "Socket errors" in printed:
        raise Failed(f"{server.name} did not answer all requests:\n{printed}")
    requests = int(re.search(r"(\d+) requests in", printed)[1])
    return float(re.search(r"Requests/sec:\s+([\d.]+)", printed)[1]), cpu / requests * 1e6


def blobs(stand, scale):
    """Warm blobs over four connections. nginx serves the very file that Stopover has stored.

    Twice: by a client whose kernel discards them (drain.py), so that the server is what limits; and by one that reads
    them as clients do (hubsim sink), which limits the speed, so that the server's CPU time is what counts.
    """
    hub = stand.hub()
    digest = hub.image(f"library/large:latest=large:{scale.warm_blob}")["layers"][-1]
    path = BLOB.format("library/large", digest)
    servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
    for server in servers.values():
        get(server.url + "/v2/library/large/manifests/latest")
        stand.pull(server.url, [path])
    hexadecimal = digest.partition(":")[2]
    stored = f"{servers['Stopover'].root}/docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"
    # The client has its last byte before the file is safe on the disk and has its name.
    wait_for(lambda: os.path.exists(stored), "the blob was not stored")
    servers = {"nginx": stand.nginx({path: stored}), **servers}
    drain = [sys.executable, f"{os.path.dirname(os.path.abspath(__file__))}/drain.py"]
    for client, how in ((drain, "discarded"), ([stand.hubsim, "sink"], "read")):
        turns = [
            {who: taken(stand, [*client, "--url", server.url + path], scale, server) for who, server in servers.items()}
            for _ in range(scale.turns)
        ]
        yield at_least(f"warm blobs of {scale.warm_blob}, {how} by the client", "GB/s", pick(turns, 0), "nginx", 0.95)
        yield at_most(f"CPU time of warm blobs, {how}", "s/GB", pick(turns, 1), "nginx", 1.1)


def taken(stand, client, scale, server):
    """Has a client take a blob many times; returns GB a second, and the server's CPU-seconds a GB."""
    cpu = server.cpu_seconds()
    printed = stand.client(*client, "--connections", 4, "--requests", scale.warm_requests)
    cpu = server.cpu_seconds() - cpu
    done = json.loads(printed)
    return done["bytes"] / 1e9 / done["seconds"], cpu / (done["bytes"] / 1e9)


def cold(stand, scale):
    """One client fetches a blob that is not there, over a line of some speed: straight from the Hub's CDN (challenge,
    token and redirect included), and through each mirror. As in a pull, the mirror was just asked for the manifest.
    """
    hub = stand.hub()
    servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
    for rate, size in scale.cold_lines:
        name = f"library/cold{rate or 'est'}"
        layers = hub.image(f"{name}:latest=blobs:{scale.turns}x{size}MB")["layers"]
        hub.command("set", line_rate=f"{rate}MB" if rate else "none")
        for server in servers.values():
            get(f"{server.url}/v2/{name}/manifests/latest")
        turns = []
        for digest in layers:
            urls = {"bare line": hub.url, **{who: server.url for who, server in servers.items()}}
            pulls = {who: stand.pull(url, [BLOB.format(name, digest)]) for who, url in urls.items()}
            turns.append({who: size / pull["seconds"]["max"] for who, pull in pulls.items()})
        if rate:
            yield at_least(f"cold blob over {rate} MB/s", "MB/s", turns, "bare line", 0.95)
        else:
            # Loopback is no line: here the CPU is what limits, so this is for information.
            yield Line("cold blob over loopback", "MB/s", medians(turns), ratio(turns, "bare line")[1])


def crowd(stand, scale):
    """Many clients ask for one cold blob at the same moment. The line is 40 MB/s for all that the Hub sends."""
    rate = 40 * MB
    hub = stand.hub(line_rate=rate)
    servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
    size, crowds = scale.crowd_mb * MB, (16, 100)
    layers = hub.image(f"library/crowd:latest=blobs:{scale.turns * len(crowds)}x{size}")["layers"]
    for server in servers.values():
        get(f"{server.url}/v2/library/crowd/manifests/latest")
    for clients in crowds:
        digests, layers, sent, slowest = layers[: scale.turns], layers[scale.turns :], {}, {}
        for who, server in servers.items():
            if who != "Stopover" and clients not in scale.crowds_of_registry:
                continue
            # docker-registry takes minutes: once is enough.
            wanted = digests if who == "Stopover" else digests[:1]
            pulls = [one_crowd(stand, hub, server, digest, clients) for digest in wanted]
            sent[who] = max(one[0] for one in pulls) / size
            slowest[who] = statistics.median(one[1] for one in pulls) / (size / rate)
        what, ours = f"upstream bytes / blob, {clients} cold clients", sent["Stopover"]
        yield Line(what, "×", sent, f"{ours:.2f}", "1.00", round(ours, 2) == 1)
        what, ours = f"slowest of {clients} cold clients / line time", slowest["Stopover"]
        yield Line(what, "×", slowest, f"{ours:.3f}", "≤ 1.10", ours <= 1.1)


def one_crowd(stand, hub, server, digest, clients):
    """Returns the bytes that the Hub sent and the slowest client's seconds."""
    hub.command("reset")
    pulled = stand.pull(server.url, [BLOB.format("library/crowd", digest)], clients)
    return hub.counters()["digests"][digest]["bytes"], pulled["seconds"]["max"]


def first_byte(stand, scale):
    """From the request to the first byte of the blob, over a line of 4 MB/s and 80 ms an answer.

    Upstream's first byte is that of a client that goes straight to the Hub: challenge, token, redirect, CDN. The mirror
    is started anew for each turn, so it knows nothing and must ask for the same four things, one after the other: what
    it takes longer is what it adds. The line is slow, so that waiting for more than the first bytes would show.
    """
    hub, name, turns = stand.hub(latency="80ms", rate="4MB"), "library/first", []
    digest = hub.image(f"{name}:latest=blobs:1x1MB")["layers"][0]
    for _ in range(2 * scale.turns):
        servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
        urls = {"bare line": hub.url, **{who: server.url for who, server in servers.items()}}
        pulls = {who: stand.pull(url, [BLOB.format(name, digest)]) for who, url in urls.items()}
        turns.append({who: pull["first_byte_seconds"]["max"] * 1e3 for who, pull in pulls.items()})
        for server in servers.values():
            stand.drop(server)
    added = statistics.median(turn["Stopover"] - turn["bare line"] for turn in turns)
    yield Line("first byte, cold", "ms", medians(turns), f"{added:+.1f} ms", "≤ +20 ms", added <= 20)


def streams(stand, scale):
    """An image with two layers of 45 MB is pulled cold, both at once as by dockerd, where each connection brings 4 MB/s
    and each answer takes 80 ms. The line would bear more connections; each byte must come once all the same.

    The mirror is started anew for each turn, so it has to find out what the line is like.
    """
    size_mb, name, turns, sent = 90, "library/image", [], []
    hub = stand.hub(latency="80ms", rate="4MB")
    layers = hub.image(f"{name}:latest=blobs:2x{size_mb // 2}MB")["layers"]
    for _ in range(scale.turns):
        servers = {"docker-registry": stand.registry(hub), "Stopover": stand.mirror(hub)}
        urls = {"bare line": hub.url, **{who: server.url for who, server in servers.items()}}
        pulls, came = {}, {}
        for who, url in urls.items():
            hub.command("reset")
            if who in servers:
                get(f"{url}/v2/{name}/manifests/latest")
            pulls[who] = stand.pull(url, [BLOB.format(name, digest) for digest in layers], len(layers))
            came[who] = sum(hub.counters()["digests"][digest]["bytes"] for digest in layers) / (size_mb * MB)
        turns.append({who: size_mb / pull["seconds"]["max"] for who, pull in pulls.items()})
        sent.append(came)
        for server in servers.values():
            stand.drop(server)
    yield at_least("cold image over connections of 4 MB/s", "MB/s", turns, "bare line", 2)
    most = {who: max(came[who] for came in sent) for who in sent[0]}
    ours = most["Stopover"]
    yield Line("upstream bytes / image, over them", "×", most, f"{ours:.2f}", "1.00", round(ours, 2) == 1)


def requests(stand, scale):
    """What one cold pull of an image and 100 warm ones of its tag ask of the Hub."""
    del scale
    hub = stand.hub()
    hub.image("library/single:latest=docker")
    hub.image("library/multi:latest=oci-index")
    counts = {}
    for who, server in (("docker-registry", stand.registry(hub)), ("Stopover", stand.mirror(hub))):
        counts[who] = {name: pull_counted(hub, server, f"library/{name}") for name in ("single", "multi")}
        hub.command("reset")
        for _ in range(100):
            get(f"{server.url}/v2/library/multi/manifests/latest")
        counts[who]["warm"] = total(hub.counters())
    for name, most in (("single", 1), ("multi", 2)):
        values = {who: count[name]["manifest_get"] for who, count in counts.items()}
        yield few(f"manifest GETs of a cold {name}-arch pull", values, most)
    values = {who: max(count[name]["blob"] for name in ("single", "multi")) for who, count in counts.items()}
    yield few("downloads of one blob in a cold pull", values, 1)
    values = {who: max(count[name]["token"] for name in ("single", "multi")) for who, count in counts.items()}
    yield few("tokens of a cold pull", values, 2)
    yield few("requests upstream of 100 warm pulls of a tag", {who: count["warm"] for who, count in counts.items()}, 0)


def pull_counted(hub, server, name):
    """Pulls an image as a client does; returns what the Hub counted, and the most downloads of one blob."""
    hub.command("reset")
    url = f"{server.url}/v2/{name}"
    manifest = json.loads(get(f"{url}/manifests/latest"))
    if "manifests" in manifest:
        manifest = json.loads(get(f"{url}/manifests/{manifest['manifests'][0]['digest']}"))
    for descriptor in (manifest["config"], *manifest["layers"]):
        get(f"{url}/blobs/{descriptor['digest']}")
    counters = hub.counters()
    counters["blob"] = max(counted["cdn_gets"] for counted in counters["digests"].values())
    return counters


def total(counters):
    """Returns how many requests of all kinds the Hub has seen."""
    others = ("connections", "token_basic", "throttled")
    return sum(count for kind, count in counters.items() if isinstance(count, int) and kind not in others)


def memory(stand, scale):
    """The peak of the anonymous resident memory while 200 clients pull at the same time, over loopback. Here nothing is
    kept to a CPU, and Stopover has as many workers as it takes by default.
    """
    hub, size = stand.hub(), scale.memory_mb
    one = hub.image(f"library/one:latest=blobs:1x{size}MB")["layers"]
    many = hub.image(f"library/many:latest=blobs:200x{size}MB")["layers"]
    # Stopover alone: docker-registry answers some of 200 pulls of cold blobs at a time with 500.
    for what, name, digests in (("one blob", "library/one", one), ("200 blobs", "library/many", many)):
        server = stand.mirror(hub, is_pinned=False)
        get(f"{server.url}/v2/{name}/manifests/latest")
        for state in ("cold", "warm"):
            with server.memory_watched() as watched:
                stand.pull(server.url, [BLOB.format(name, digest) for digest in digests], 200)
            ours = watched[0] / (1 << 20)
            label = f"peak memory, 200 {state} pulls of {what} of {size} MB"
            yield Line(label, "MiB", {"Stopover": ours}, f"{ours:.0f} MiB", "≤ 64 MiB", ours <= 64)
        stand.drop(server)


def image(stand, scale):
    """A cold image of a dozen layers (70 MB), pulled by dockerd over a line of 4 MB/s a connection and 80 ms an answer:
    through Stopover as it comes, and through one that does neither prefetch nor fetch parts of a blob side by side.
    """
    hub, name = stand.hub(latency="80ms", rate="4MB"), "prom/prometheus"
    pushed = hub.image(f"{name}:latest=many-layers")
    plainly = {"STOPOVER_UPSTREAM__STREAMS_MAX": "1"}
    turns, sent = [], {}
    for _ in range(scale.turns):
        # dockerd remembers what it had: each pull is a new one's first.
        servers = {
            "docker-registry": stand.registry(hub, is_pinned=False),
            "plain": stand.mirror(hub, is_pinned=False, **plainly),
            "Stopover": stand.mirror(hub, is_pinned=False, STOPOVER_CACHE__PREFETCH="4"),
        }
        turn = {}
        for who, server in servers.items():
            dockerd = stand.dockerd()
            hub.command("reset")
            turn[who] = stand.docker_pull(dockerd, f"{server.url.removeprefix('http://')}/{name}:latest")
            blobs_sent = hub.counters()["digests"]
            sent[who] = max(sent.get(who, 0), sum(blobs_sent[digest]["bytes"] for digest in pushed["layers"]))
            stand.drop(dockerd)
            stand.drop(server)
        turns.append(turn)
    gain = statistics.median(turn["plain"] / turn["Stopover"] for turn in turns)
    values = medians(turns)
    what = f"cold pull of an image by dockerd, 4 MB/s a connection (alone: {values.pop('plain'):.1f} s)"
    yield Line(what, "s", values, f"{gain:.1f} × faster than alone", "≥ 2", gain >= 2)
    plain = sent.pop("plain")
    ours = sent["Stopover"] / plain
    in_mb = {who: count / MB for who, count in sent.items()}
    yield Line("bytes of layers from upstream", "MB", in_mb, f"{ours:.3f} of those alone", "1.000", round(ours, 3) == 1)


def lanes(stand, scale):
    """500 cold images, pulled by 16 clients at a time, where 3 accounts and 2 addresses may have 100 manifests each."""
    del scale
    users = ("ann", "bob", "cy")
    hub = stand.hub(quota=100)
    variables = {"STOPOVER_UPSTREAM__EGRESSES": "127.0.0.2,127.0.0.3"}
    for user in users:
        hub.command("account", user=user, password=f"secret of {user}")
        variables[f"STOPOVER_UPSTREAM__ACCOUNTS__{user.upper()}__USERNAME"] = user
        variables[f"STOPOVER_UPSTREAM__ACCOUNTS__{user.upper()}__PASSWORD"] = f"secret of {user}"
    names = [f"many/image{number}" for number in range(500)]
    for name in names:
        hub.image(f"{name}:latest=oci")
    server = stand.mirror(hub, **variables)

    def pull(name):
        try:
            return len(get(f"{server.url}/v2/{name}/manifests/latest")) == 0
        except OSError:
            return True

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        failed = sum(pool.map(pull, names))
    yield few("failed pulls of 500 cold images by 5 lanes of 100", {"Stopover": failed}, 0)
    counts = sorted(hub.quota().values())
    spread = 1 - counts[0] / counts[-1] if len(counts) == 5 else 1
    yield Line("how far apart the lanes' counts are", "%", {"Stopover": 100 * spread}, f"{spread:.0%}", "≤ 10%", spread <= 0.1)


ALL = {
    "manifests": manifests,
    "blobs": blobs,
    "cold": cold,
    "crowd": crowd,
    "streams": streams,
    "first-byte": first_byte,
    "requests": requests,
    "memory": memory,
    "image": image,
    "lanes": lanes,
}


def at_least(what, unit, turns, baseline, least):
    """Returns the line of a value that must be at least `least` of the baseline's."""
    middle, text = ratio(turns, baseline)
    return Line(what, unit, medians(turns), text, f"≥ {least:.2f}", middle >= least)


def at_most(what, unit, turns, baseline, most):
    """Returns the line of a value that must be at most `most` times the baseline's."""
    middle, text = ratio(turns, baseline)
    return Line(what, unit, medians(turns), text, f"≤ {most:.2f}", middle <= most)


def few(what, values, most):
    """Returns the line of a count that must be at most `most`."""
    ours = values["Stopover"]
    return Line(what, "", values, str(ours), f"≤ {most}" if most else "0", ours <= most)


def ratio(turns, baseline):
    """Returns the median of Stopover's ratios to the baseline, each within a turn, and it as text."""
    middle = statistics.median(turn["Stopover"] / turn[baseline] for turn in turns)
    return middle, f"{middle:.2f} of {'nginx' if baseline == 'nginx' else 'the line'}"


def pick(turns, index):
    """Returns one of the values of each measurement."""
    return [{who: values[index] for who, values in turn.items()} for turn in turns]


def medians(turns):
    """Returns the median of each one's values."""
    return {who: statistics.median(turn[who] for turn in turns) for who in turns[0]}
