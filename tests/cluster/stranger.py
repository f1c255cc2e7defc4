"""What another user of the machine gets who knows nothing but ports: tries all there is as uid 65534 and prints JSON.

Before it gives up its rights it asks once with the run's certificate, which shows that the asking itself works.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from bokeh.client import pull_session
from distributed import Client
from distributed.core import connect
from distributed.security import Security

from comir_batch.execution.security import read_certificate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

HOST = "127.0.0.1"
PATIENCE_S = 3.0
REFUSED = "refused:"
NOBODY = 65534
PAGES = (
    "info/main/workers.html",
    "info/main/logs.html",
    "info/main/exceptions.html",
    "json/index.html",
    "sitemap.json",
)
LIVE_PAGES = (
    "status",
    "tasks",
    "groups",
    "graph",
    "events",
    "workers",
    "individual-progress",
    "individual-task-stream",
)
MOST_PAGES = 30


def main() -> None:
    """Read what to try as JSON from the command line."""
    wanted = json.loads(sys.argv[1])
    tls = Path(wanted["tls"])
    found = {"owner": at_once(of_each(wanted["ports"], partial(ask_owned, read_certificate(tls))))}
    found["pages"] = crawl(wanted["dashboard"]) | live(wanted["dashboard"])
    wanted["schedulers"] = [port for port in wanted["schedulers"] if "'type': 'Scheduler'" in found["owner"][port]]
    attempts(wanted)  # loads what Python loads late, from where the other user may not read
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    found |= attempts(wanted)
    found["files"] = {str(path): readable(path) for path in [tls, *(tls / name for name in wanted["names"])]}
    found["files"] |= {wanted["readable"]: readable(Path(wanted["readable"]))}
    sys.stdout.write(json.dumps(found))


def attempts(wanted: dict[str, Any]) -> dict[str, Any]:
    """Try every port in every way."""
    ports = wanted["ports"]
    return {
        "dask": at_once(of_each(ports, ask_in_every_way)),
        "clients": at_once(of_each(wanted["schedulers"], run_code)),
        "http": at_once(of_each(ports, partial(asyncio.to_thread, raw))),
        "tls": at_once(of_each(ports, partial(asyncio.to_thread, anonymous_tls))),
    }


def at_once(asking: Coroutine[Any, Any, dict[int, Any]]) -> dict[int, Any]:
    """Run to the result, and leave what still waits alone: to cancel it would be to wait for it."""
    return asyncio.new_event_loop().run_until_complete(asking)


async def of_each(ports: list[int], ask_port: Callable[[int], Awaitable[Any]]) -> dict[int, Any]:
    """Ask all ports at the same time."""
    return dict(zip(ports, await asyncio.gather(*map(ask_port, ports)), strict=True))


async def ask_owned(security: Security, port: int) -> str:
    """Ask with the run's certificate."""
    return await ask(f"tls://{HOST}:{port}", security)


async def ask_in_every_way(port: int) -> dict[str, str]:
    """Ask without a certificate and with one of one's own."""
    own = Security.temporary()
    ways = {
        "tcp": ask(f"tcp://{HOST}:{port}", Security()),
        "tls": ask(f"tls://{HOST}:{port}", own),
    }
    return dict(zip(ways, await asyncio.gather(*ways.values()), strict=True))


async def ask(address: str, security: Security) -> str:
    """Ask a scheduler, nanny or worker who it is; return its answer, or how it refused."""
    return await answer_of(identity(address, security))


async def answer_of(asking: Coroutine[Any, Any, str]) -> str:
    """Return an answer, or how it was refused; Dask itself would wait without end for some that are half open."""
    task = asyncio.create_task(asking)
    await asyncio.wait([task], timeout=3 * PATIENCE_S)
    if not task.done():
        return f"{REFUSED} no answer"
    error = task.exception()
    return task.result() if error is None else f"{REFUSED} {error!r}"


async def identity(address: str, security: Security) -> str:
    """Ask who it is."""
    comm = await connect(address, timeout=3 * PATIENCE_S, **security.get_connection_args("client"))
    await comm.write({"op": "identity", "reply": True})
    answer = str(await comm.read())
    comm.abort()
    return answer


async def run_code(port: int) -> dict[str, str]:
    """Try to run a function by Dask's client in every way; return the results, or how it was refused."""
    ways = {"tcp": Security(), "tls": Security.temporary(), "tls without a certificate": Security()}
    asked = [as_client(f"{way.split()[0]}://{HOST}:{port}", security) for way, security in ways.items()]
    return dict(zip(ways, await asyncio.gather(*map(answer_of, asked)), strict=True))


async def as_client(address: str, security: Security) -> str:
    """Run a function."""
    client = Client(address, security=security, set_as_default=False, timeout=PATIENCE_S, asynchronous=True)
    await client
    return str(await client.submit(os.getpid))


def raw(port: int) -> str:
    """Speak HTTP and return what comes back."""
    try:
        with socket.create_connection((HOST, port), PATIENCE_S) as link:
            link.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return link.recv(1000).decode("latin-1")
    except OSError:
        return ""


def anonymous_tls(port: int) -> str:
    """Speak TLS without a certificate; return what comes back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection((HOST, port), PATIENCE_S) as link, context.wrap_socket(link) as wrapped:
            wrapped.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return wrapped.recv(1000).decode("latin-1")
    except OSError:
        return ""


def readable(path: Path) -> bool:
    """Return whether a file can be read, or a folder listed."""
    try:
        return bool(list(path.iterdir()) if path.is_dir() else path.read_bytes())
    except OSError:
        return False


def crawl(address: str) -> dict[str, str]:
    """Fetch the pages of a dashboard that are text, and those of its kind that they lead to."""
    waiting, pages = [urljoin(address, page) for page in ("/metrics", *PAGES)], {}
    server = urljoin(address, "/")
    while waiting and len(pages) < MOST_PAGES:
        url = waiting.pop(0)
        if url in pages:
            continue
        pages[url] = fetch(url)
        links = [urljoin(url, link) for link in re.findall(r'href="([^"#]+)"', pages[url])]
        waiting += [link for link in links if link.startswith(f"{server}info/")]
    return pages


def fetch(url: str) -> str:
    """Return a page."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:  # noqa: S310  http, of this machine
            return answer.read().decode()
    except (urllib.error.URLError, TimeoutError, ValueError):
        return ""


def live(address: str) -> dict[str, str]:
    """Return what a browser gets to draw on the pages that draw themselves."""
    pages = {}
    for page in LIVE_PAGES:
        session = pull_session(url=urljoin(address, f"/{page}"))
        time.sleep(1)  # the server fills a page in once it is looked at
        session.pull()
        pages[urljoin(address, f"/{page}")] = json.dumps(session.document.to_json(), default=str)
        session.close()
    return pages


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # what still waits for an answer gets none
