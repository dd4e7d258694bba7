"""The stand that everything is measured on: servers and clients as processes, each kept to its CPU.

It starts and ends them, and reads what the kernel says of them. It knows nothing of what is measured.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

WAIT_SECONDS = 60
SAMPLE_SECONDS = 0.05
TICKS = os.sysconf("SC_CLK_TCK")
# What containerd sends.
ACCEPT = (
    "application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"
)

# Nothing here is behind a proxy.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_cpus = sorted(os.sched_getaffinity(0))
# The server has one CPU for itself; clients and the stand-in Hub share the other.
SERVER_CPU, CLIENT_CPU = str(_cpus[0]), str(_cpus[-1])

NGINX_CONF = """
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr;
{user}
events {{ worker_connections 1024; }}
http {{
    # As Debian's own nginx.conf has it, but for the last line: 1,000 requests a connection are too few for a benchmark.
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    default_type application/octet-stream;
    access_log access.log;
    keepalive_requests 100000000;
    server {{
        listen 127.0.0.1:{port};
        root {root};
    }}
}}
"""

REGISTRY_YML = """
version: 0.1
storage:
  cache: {{blobdescriptor: inmemory}}
  filesystem: {{rootdirectory: {root}}}
http:
  addr: 127.0.0.1:{port}
proxy:
  remoteurl: {upstream}
"""


class Failed(Exception):
    """What went wrong on the stand, for people."""


class Server:
    """A running server."""

    def __init__(self, name, process, url, root=None):
        self.name, self.process, self.url, self.root = name, process, url, root

    def pids(self):
        """Returns the process and its children (nginx serves in one)."""
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as file:
                return [self.process.pid, *map(int, file.read().split())]
        except OSError:
            return [self.process.pid]

    def cpu_seconds(self):
        """Returns the CPU time used so far, of all threads, in user and kernel."""
        ticks = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS

    def anonymous_bytes(self):
        """Returns the anonymous resident memory."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return 1024 * int(re.search(r"RssAnon:\s+(\d+) kB", file.read())[1])

    @contextlib.contextmanager
    def memory_watched(self):
        """Yields a list whose one item becomes the peak of the anonymous memory."""
        peak, done = [0], threading.Event()

        def sample():
            while not done.wait(SAMPLE_SECONDS):
                peak[0] = max(peak[0], self.anonymous_bytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield peak
        finally:
            done.set()
            thread.join()

    def stop(self):
        """Asks it to end, and waits."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Hub(Server):
    """The stand-in Hub."""

    def command(self, command, **parameters):
        """Gives a command and returns its answer."""
        query = urllib.parse.urlencode({key.replace("_", "-"): value for key, value in parameters.items()})
        request = urllib.request.Request(f"{self.url}/_hubsim/{command}?{query}", method="POST")
        with OPENER.open(request) as answer:
            return json.load(answer)

    def image(self, spec):
        """Pushes an image; returns its digest and those of its layers."""
        return self.command("image", spec=spec)

    def quota(self):
        """Returns how many GETs have counted, by account and address."""
        with OPENER.open(f"{self.url}/_hubsim/quota") as answer:
            return json.load(answer)

    def counters(self):
        """Returns what was asked and sent since the last reset."""
        with OPENER.open(f"{self.url}/_hubsim/counters") as answer:
            return json.load(answer)


class Stand:
    """A temporary folder and the processes of one row; ends and removes all of it."""

    def __init__(self):
        self.stopover, self.hubsim = os.environ["STOPOVER_BIN"], os.environ["HUBSIM_BIN"]
        # What configures servers in the environment of whoever runs this is not meant for ours; nor are proxies.
        names = re.compile(r"(STOPOVER|REGISTRY)_|.*_proxy$", re.IGNORECASE)
        self.environment = {key: value for key, value in os.environ.items() if not names.match(key)}
        self.servers = []

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="stopover-bench.")
        return self

    def __exit__(self, *_):
        for server in reversed(self.servers):
            server.stop()
        shutil.rmtree(self.folder)

    def hub(self, **options):
        """Starts a Hub, with an option for each of hubsim's; it has no image worth mentioning."""
        arguments = [text for key, value in options.items() for text in (f"--{key.replace('_', '-')}", str(value))]
        command = ["taskset", "-c", CLIENT_CPU, self.hubsim, "serve", "--addr", "127.0.0.1:0", "--image"]
        command += ["library/busybox:latest=oci", *arguments]
        log, env = self._log("hubsim"), self.environment
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        found = re.search(r"registry (\S+)", process.stdout.readline())
        hub = self._remember(Hub("hubsim", process, found and found[1]))
        if not found:
            raise Failed(f"hubsim did not start: {self._tail('hubsim')}")
        return hub

    def nginx(self, files):
        """Starts nginx with one worker, serving `files`: what a path of a URL stands for."""
        folder, port = self._new_folder("nginx"), free_port()
        for path, file in files.items():
            link = f"{folder}/root{path}"
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(file, link)
        user = "user root;" if os.geteuid() == 0 else ""
        with open(f"{folder}/nginx.conf", "w") as file:
            file.write(NGINX_CONF.format(user=user, port=port, root=f"{folder}/root"))
        command = ["nginx", "-p", folder, "-c", "nginx.conf", "-e", "stderr"]
        return self._serve("nginx", pinned(command), port, "/", folder)

    def registry(self, hub, is_pinned=True):
        """Starts docker-registry as a mirror with an empty store."""
        folder, port = self._new_folder("registry"), free_port()
        with open(f"{folder}/config.yml", "w") as file:
            file.write(REGISTRY_YML.format(root=f"{folder}/root", port=port, upstream=hub.url))
        command = ["docker-registry", "serve", f"{folder}/config.yml"]
        return self._serve("registry", pinned(command) if is_pinned else command, port, "/v2/", f"{folder}/root")

    def mirror(self, hub, is_pinned=True, name="stopover", **more):
        """Starts Stopover with an empty store, with one worker where it is kept to one CPU; `more` are variables."""
        folder, port = self._new_folder("stopover"), free_port()
        variables = {
            "REGISTRY_PROXY_REMOTEURL": hub.url,
            "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": folder,
            "STOPOVER_ADMIN__ADDR": "127.0.0.1:0",
            "STOPOVER_HTTP__WORKERS": "1" if is_pinned else "0",
            # Rows ask for a manifest and then measure its blobs one by one: they must not come by themselves.
            "STOPOVER_CACHE__PREFETCH": "0",
            **more,
        }
        command = ["env", *(f"{key}={value}" for key, value in variables.items()), self.stopover, "serve"]
        return self._serve(name, pinned(command) if is_pinned else command, port, "/v2/", folder)

    def dockerd(self):
        """Starts a dockerd that has nothing and pulls by the names of mirrors on this machine; returns it. It has no
        network of its own and runs nothing. Needs root."""
        folder = self._new_folder("dockerd")
        arguments = ["--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid"]
        arguments += ["--host", f"unix://{folder}/socket", "--config-file", f"{folder}/daemon.json"]
        with open(f"{folder}/daemon.json", "w") as file:
            file.write("{}")
        log = self._log("dockerd")
        command = ["dockerd", *arguments, "--iptables=false", "--bridge=none"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        server = self._remember(Server("dockerd", process, f"unix://{folder}/socket", folder))
        wait_for(lambda: process.poll() is not None or self._docker(server, "info").returncode == 0, "dockerd does not answer")
        if process.poll() is not None:
            raise Failed(f"dockerd did not start: {self._tail('dockerd')}")
        return server

    def docker_pull(self, dockerd, image):
        """Has dockerd pull an image and forget it again; returns the seconds of the pull."""
        begun = time.monotonic()
        pulled = self._docker(dockerd, "pull", "--quiet", image)
        seconds = time.monotonic() - begun
        if pulled.returncode != 0:
            raise Failed(f"docker pull {image} failed: {pulled.stderr}{self._tails()}")
        self._docker(dockerd, "image", "rm", "--force", image)
        return seconds

    def _docker(self, dockerd, *arguments):
        command = ["docker", "--host", dockerd.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=self.environment)

    def drop(self, server):
        """Ends a server and removes its store."""
        server.stop()
        self.servers.remove(server)
        shutil.rmtree(server.root)

    def client(self, *arguments):
        """Runs a command on the clients' CPU and returns what it printed."""
        done = subprocess.run(["taskset", "-c", CLIENT_CPU, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"{' '.join(map(str, arguments))[:400]}\nfailed: {done.stdout}{done.stderr}{self._tails()}")
        return done.stdout

    def pull(self, url, paths, clients=1):
        """Has clients pull at the same moment, each one of the paths; returns what hubsim says of it.

        They do not hash what comes, as the clients share a CPU with the Hub; the tests do.
        """
        chosen = [text for path in paths for text in ("--path", path)]
        printed = self.client(self.hubsim, "pull", "--mirror", url, "--clients", clients, "--no-hash", *chosen)
        return json.loads(printed)

    def _serve(self, name, command, port, path, root):
        log = self._log(name)
        process = subprocess.Popen(command, stdout=log, stderr=log, env=self.environment)
        server = self._remember(Server(name, process, f"http://127.0.0.1:{port}", root))
        wait_for(lambda: process.poll() is not None or answers(server.url + path), f"{name} does not answer")
        if process.poll() is not None:
            raise Failed(f"{name} did not start: {self._tail(name)}")
        return server

    def _remember(self, server):
        self.servers.append(server)
        return server

    def _new_folder(self, name):
        return tempfile.mkdtemp(prefix=f"{name}.", dir=self.folder)

    def _log(self, name):
        return open(f"{self.folder}/{name}.log", "a")

    def _tail(self, name):
        with open(f"{self.folder}/{name}.log", errors="replace") as file:
            return "".join(file.readlines()[-10:])

    def _tails(self):
        return "".join(f"\n--- {server.name}:\n{self._tail(server.name)}" for server in self.servers)


def pinned(command):
    """Returns the command kept to the server's CPU."""
    return ["taskset", "-c", SERVER_CPU, *command]


def free_port():
    """Returns a port of 127.0.0.1 on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(url):
    """Returns whether there is a server that answers, be it with an error."""
    try:
        with OPENER.open(url, timeout=WAIT_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def wait_for(condition, otherwise):
    """Waits until the condition holds; ends the program with `otherwise` where it takes too long."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{otherwise} within {WAIT_SECONDS} s")
        time.sleep(0.02)


def get(url):
    """Returns the body behind a URL."""
    with OPENER.open(urllib.request.Request(url, headers={"Accept": ACCEPT})) as answer:
        return answer.read()


def end_on_signals():
    """Has the usual signals end the program with its clean-up."""

    def end(number, _):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
