"""drain.py --url URL --connections N --requests N: GETs a URL over and over, and throws the bodies away cheaply.

The kernel is asked to discard (MSG_TRUNC) and copies nothing to us, so the server is what limits. Prints one JSON
object: bytes and seconds. It checks the status and the length of each answer, and nothing else.
"""

import argparse
import json
import selectors
import socket
import time
import urllib.parse

DISCARD_BYTES = 4 << 20
HEAD_BYTES_MAX = 64 << 10


class Connection:
    """A connection that asks, discards, and asks again."""

    def __init__(self, url, take):
        self.socket = socket.create_connection((url.hostname, url.port))
        self.request = f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nUser-Agent: drain\r\n\r\n".encode()
        self.take, self.left, self.bytes = take, 0, 0

    def ask(self):
        """Sends the next request, if there is one; returns whether there was."""
        if not self.take():
            return False
        self.socket.sendall(self.request)
        head = b""
        # Byte for byte what is peeked at, so that no byte of the body is read with the head.
        while b"\r\n\r\n" not in head:
            head = self.socket.recv(HEAD_BYTES_MAX, socket.MSG_PEEK)
            if not head:
                raise SystemExit("closed before the answer")
        head = head[: head.index(b"\r\n\r\n") + 4]
        self.socket.recv(len(head))
        lines = head.decode("latin-1").lower().split("\r\n")
        length = [line.split(":")[1] for line in lines if line.startswith("content-length:")]
        if " 200 " not in f"{lines[0]} " or not length:
            raise SystemExit(f"not a 200 with a length: {lines[0]}")
        self.left = int(length[0])
        return True

    def discard(self):
        """Throws away what has come; returns whether the body goes on."""
        count = self.socket.recv_into(BUFFER, min(self.left, DISCARD_BYTES), socket.MSG_TRUNC)
        if count == 0:
            raise SystemExit(f"closed with {self.left} bytes to come")
        self.left -= count
        self.bytes += count
        return self.left > 0


BUFFER = bytearray(DISCARD_BYTES)


def main(url, connections, requests):
    """Drains."""
    left = [requests]

    def take():
        left[0] -= 1
        return left[0] >= 0

    url, begun = urllib.parse.urlsplit(url), time.monotonic()
    everyone = [Connection(url, take) for _ in range(connections)]
    selector = selectors.DefaultSelector()
    for one in everyone:
        if one.ask():
            selector.register(one.socket, selectors.EVENT_READ, one)
    while selector.get_map():
        for key, _ in selector.select():
            if not key.data.discard() and not key.data.ask():
                selector.unregister(key.fileobj)
    print(json.dumps({"bytes": sum(one.bytes for one in everyone), "seconds": time.monotonic() - begun}))


parser = argparse.ArgumentParser()
parser.add_argument("--url", required=True)
parser.add_argument("--connections", type=int, required=True)
parser.add_argument("--requests", type=int, required=True)
main(**vars(parser.parse_args()))
