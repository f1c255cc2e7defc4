"""A run on SLURM as others see it: what another user of the machine gets, and what the dashboard shows."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

import cluster_runs
import cv2
import numpy as np
import psutil
import pytest
import runs
from sites import write_profile

from comir_batch.pipeline.layout import Layout

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

STRANGER = Path(__file__).with_name("stranger.py")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FIRST, SECOND = "patient-anna", "patient-bruno"
NAMES = ("anna", "bruno", "meyer", "schulze")  # a number could stand in a page by chance


class Socket(NamedTuple):
    """A socket that listens: at which address, and whether it is the driver's or a worker's."""

    ip: str
    port: int
    role: str


class Watched(NamedTuple):
    """A run that has ended, and what was seen while it was registering."""

    run: cluster_runs.ClusterRun
    sockets: list[Socket]
    modes: dict[str, int]
    seen: dict
    picture: Path | None


@pytest.fixture(scope="module")
def watched(slurm, inputs, tmp_path_factory):
    """A run of two pairs in a folder that others may read, looked at while the first is registered, then stopped."""
    folder = Path(tempfile.mkdtemp(prefix="readable-"))
    folder.chmod(0o755)
    manifest, profile = named_pairs(inputs, folder), write_profile(folder / "site.toml", gpu={"idle_s": 600})
    out = folder / "run"
    words = cluster_runs.command(manifest, out, profile, register={"iterations": 20_000})
    run = cluster_runs.ClusterRun(slurm, words, out)
    try:
        run.wait_until(lambda: run.registering() is not None and bool(on_gpu_workers(out)))
        tls = Layout(out).cluster.tls
        sockets = listening(run)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tls, *tls.iterdir())}
        seen = as_stranger(out, sockets)
        picture = photographed(dashboard(out), tmp_path_factory.mktemp("pictures") / "dashboard.png")
        assert run.registering(), "it was there all the time"
        os.killpg(run.process.pid, signal.SIGINT)
        yield Watched(run, sockets, modes, seen, picture)
    finally:
        run.finish_off()
        shutil.rmtree(folder)


def named_pairs(inputs: Path, folder: Path) -> Path:
    """Write a manifest whose names nobody else may see: a pair of raw images, and one for networks."""
    for name in ("fixed", "moving"):
        shutil.copy(inputs / f"{name}.ome.tif", folder / f"meyer-{name}.ome.tif")
        shutil.copy(inputs / f"{name}.ome.tif", folder / f"schulze-{name}.ome.tif")
    rows = [
        f"{runs.HEADER},model",
        f"{FIRST},meyer-fixed.ome.tif,meyer-moving.ome.tif,stain,negative,none",
        f"{SECOND},schulze-fixed.ome.tif,schulze-moving.ome.tif,haematoxylin,dab,haematoxylin-dab",
    ]
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def on_gpu_workers(out: Path) -> list[dict]:
    """Return the events of tasks that GPU workers have done."""
    done = [event for event in cluster_runs.events(out) if event["kind"] == "task_done"]
    return [event for event in done if event["data"]["worker"].startswith("gpu-")]


def listening(run: cluster_runs.ClusterRun) -> list[Socket]:
    """Return the sockets at which the driver and the workers listen, their children's included."""
    workers = {pid for worker in run.workers() for pid in worker.pids}
    drivers = {run.process.pid, *(process.pid for process in run.family())}
    return [
        Socket(link.laddr.ip, link.laddr.port, role)
        for role, pids in (("driver", drivers), ("worker", workers))
        for pid in pids
        for link in psutil.Process(pid).net_connections("inet")
        if link.status == psutil.CONN_LISTEN
    ]


def dashboard(out: Path) -> str:
    """Return the address of the dashboard."""
    (event,) = [event for event in cluster_runs.events(out) if event["kind"] == "dashboard"]
    return event["data"]["address"]


def as_stranger(out: Path, sockets: list[Socket]) -> dict:
    """Let another user try everything."""
    layout = Layout(out)
    tls = layout.cluster.tls
    wanted = {
        "ports": sorted({each.port for each in sockets}),
        "schedulers": sorted({each.port for each in sockets if each.role == "driver"}),
        "tls": str(tls),
        "names": [path.name for path in tls.iterdir()],
        "readable": str(layout.records),
        "dashboard": dashboard(out),
    }
    done = subprocess.run(
        [sys.executable, STRANGER, json.dumps(wanted)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Frame(BaseHTTPRequestHandler):
    """A page around another one, done with loading only after the other has had time to draw itself."""

    address = ""

    def do_GET(self):
        if self.path == "/slow":
            time.sleep(10)
        page = f'<iframe src="{self.address}" width="1380" height="960"></iframe><img src="/slow" alt="">'
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass


def photographed(address: str, picture: Path) -> Path | None:
    """Take a picture of a page that draws itself; None where there is no browser."""
    program = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if program is None:
        return None
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
    where = (f"--user-data-dir={picture.parent / 'profile'}", f"--screenshot={picture}", "--window-size=1400,1000")
    handler = type("FrameOfPage", (Frame,), {"address": address})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_port}/"
        subprocess.run([program, *flags, *where, page], capture_output=True, timeout=120, check=True)
        server.shutdown()
    return picture


def speaks_http(watched: Watched, port: int) -> bool:
    return watched.seen["http"][str(port)].startswith("HTTP/1")


def test_all_that_speaks_http_listens_on_loopback_alone(watched):
    assert {each.ip for each in watched.sockets} == {"127.0.0.1"}
    http = [each for each in watched.sockets if speaks_http(watched, each.port)]
    assert {each.role for each in http} == {"driver", "worker"}


def test_whoever_has_the_certificate_is_answered(watched):
    for role in ("driver", "worker"):
        ports = [each.port for each in watched.sockets if each.role == role and not speaks_http(watched, each.port)]
        assert ports
        answers = [watched.seen["owner"][str(port)] for port in ports]
        assert all("'id'" in answer for answer in answers), answers


def test_without_it_nobody_runs_code_or_is_told_anything(watched):
    assert len(watched.seen["clients"]) == 1
    for tried in (*watched.seen["dask"].values(), *watched.seen["clients"].values()):
        for way, answer in tried.items():
            assert answer.startswith("refused:"), way
            assert "ImportError" not in answer
    for each in watched.sockets:
        if not speaks_http(watched, each.port):
            assert watched.seen["http"][str(each.port)] == ""
        assert watched.seen["tls"][str(each.port)] == ""


def test_the_certificate_is_its_owners_alone_and_goes_with_the_run(watched):
    assert watched.modes == {"tls": 0o700, "certificate.pem": 0o600, "key.pem": 0o600}
    tls, records = Layout(watched.run.out).cluster.tls, Layout(watched.run.out).records
    read = {path for path, was_read in watched.seen["files"].items() if was_read}
    assert len(watched.seen["files"]) == 4
    assert read == {str(records)}, "the run directory itself is readable, or this would show nothing"
    cluster_runs.assert_ended_with(watched.run, 130)
    assert not list(tls.iterdir())


def test_the_dashboard_shows_stages_and_no_names(watched):
    pages = watched.seen["pages"]
    filled = {url: text for url, text in pages.items() if text}
    assert len(filled) > 12
    for url, text in filled.items():
        assert not [name for name in NAMES if name in text.lower()], url
    tasks = [url for url in filled if "/info/task/register-" in url]
    assert tasks, "the page of a task that is running was among them"
    progress = next(text for url, text in filled.items() if url.endswith("/individual-progress"))
    (stages,) = re.findall(r"\('name', \[(.*?)\]\)", progress)
    assert "'register'" in stages


def test_the_dashboard_is_drawn_in_a_browser(watched):
    if watched.picture is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)} is on the PATH")
    picture = cv2.imread(str(watched.picture)).astype(int)
    assert picture.shape[:2] == (1000, 1400)
    drawn = (np.ptp(picture, axis=2) > 100).mean()
    assert drawn > 0.01, "bars and squares in colours; a page without its plots is grey"


def test_one_pair_is_on_the_gpu_worker_while_another_is_registered(watched):
    happened = cluster_runs.events(watched.run.out)
    (begun,) = [
        e["at"] for e in happened if (e["kind"], e["stage"], e["pairs"]) == ("job_started", "register", [FIRST])
    ]
    assert not [e for e in happened if (e["kind"], e["stage"]) == ("job_done", "register")]
    represented = on_gpu_workers(watched.run.out)
    assert {(e["stage"], *e["pairs"]) for e in represented} == {("represent", SECOND)}
    assert any(begun < e["at"] - e["data"]["seconds"] for e in represented)
