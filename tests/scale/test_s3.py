"""Checkpoints in a bucket, of a server that speaks S3: read by ranges, written so that readers are safe."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import faults
import pytest
import zoo
from command import uv

import uvmerge
from uvmerge.engine.settings import Control
from uvmerge.hub import ranged
from uvmerge.stores import reading, sending, store

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.scale
DROPS = 5
INDEX = "model.safetensors.index.json"
Capsys = pytest.CaptureFixture[str]


class Kill(NamedTuple):
    """A moment at which a process is killed.

    Attributes:
        request: what the first line of a request matches, to the file of the output that it is about.
        arrives: whether the server still does what the request says.
    """

    request: str
    arrives: bool


class Proxy:
    """Passes connections on to a server, and cuts some of them after a number of bytes.

    Attributes:
        budgets: how many bytes each of the next connections lives for.
        cuts: connections that were cut.
        requests: the first line of each request.
        kill, process: when which process is killed.
    """

    def __init__(self, port: int) -> None:
        self._port, self.budgets, self.cuts = port, list[int](), 0
        self.kill: Kill | None = None
        self.process: subprocess.Popen[str] | None = None
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._mutex = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def held(self) -> threading.Lock:
        """Nothing passes while this is held."""
        return self._mutex

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self._port))
            asked = [""]
            for ends in ((client, upstream, True), (upstream, client, False)):
                threading.Thread(target=self._pump, args=(*ends, asked), daemon=True).start()

    def _pump(
        self, source: socket.socket, target: socket.socket, is_request: bool, asked: list[str]
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 14):
                with self._mutex:
                    if is_request and b" HTTP/1.1\r\n" in piece:
                        asked[0] = piece.partition(b"\r\n")[0].decode()
                        self.requests.append(asked[0])
                    is_answer = not is_request and not piece.startswith(b"HTTP/1.1 100 ")
                    if self._kills(asked[0], is_request, is_answer):
                        break
                    if self.budgets:
                        self.budgets[0] -= len(piece)
                        if self.budgets[0] < 0:
                            self.budgets.pop(0)
                            self.cuts += 1
                            break
                target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _kills(self, asked: str, is_request: bool, is_answer: bool) -> bool:
        """Kill the process if this is its moment."""
        if self.kill is None or not re.search(self.kill.request, asked):
            return False
        if not (is_answer if self.kill.arrives else is_request):
            return False
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.kill = None
        return True


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return faults.pair(tmp_path_factory.mktemp("pair"), layers=6, hidden=32)[:2]


@pytest.fixture(scope="module")
def moto_port() -> Iterator[int]:
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    yield running.get_host_and_port()[1]
    running.stop()


@pytest.fixture
def proxy(
    moto_port: int, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Proxy]:
    from huggingface_hub import constants
    from moto.s3 import models

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(store, "_WAITS_S", (0.01, 0.05, 0.1))
    monkeypatch.setattr(sending, "PART_BYTES", 1 << 13)
    monkeypatch.setattr(reading.StoreFile, "request_bytes", 1 << 14)
    monkeypatch.setattr(ranged, "AT_ONCE", 4)
    monkeypatch.setattr(ranged, "SAMPLE_GAP_BYTES", 0)
    monkeypatch.setattr(models, "S3_UPLOAD_PART_MIN_SIZE", 1)
    monkeypatch.chdir(tmp_path)
    found = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.url)
    s3 = client(moto_port)
    for bucket in ("models", "outs"):
        s3.create_bucket(Bucket=bucket)
    for folder in pair:
        for path in folder.iterdir():
            s3.upload_file(str(path), "models", f"team/{folder.name}/{path.name}")
    yield found
    found.close()
    for bucket in ("models", "outs"):
        for each in s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=each["Key"])
        s3.delete_bucket(Bucket=bucket)


def client(port: int) -> Any:
    """boto3 past the proxy."""
    return boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id="testing", aws_secret_access_key="testing",
    )  # fmt: skip


def held(port: int, bucket: str = "outs", prefix: str = "repaired/") -> dict[str, bytes]:
    """The objects below a prefix, by name."""
    s3 = client(port)
    keys = [e["Key"] for e in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    return {
        key.removeprefix(prefix): s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        for key in keys
    }


def on_disk(pair: tuple[Path, Path], tmp_path: Path) -> dict[str, bytes]:
    """The same output, written to this disk."""
    done = uvmerge.restore(*pair, tmp_path / "disk" / "repaired", top=0.2, max_shard_size="60KB")
    return {path.name: path.read_bytes() for path in Path(str(done.out)).iterdir()}


def restored(**settings: Any) -> Any:
    return uvmerge.restore(
        "s3://models/team/base", "s3://models/team/finetuned", "s3://outs/repaired",
        **{"top": 0.2, "max_shard_size": "60KB", "quiet": True, **settings},
    )  # fmt: skip


class Reader:
    """Polls a prefix and notes an index whose shards are missing or have other bytes than it says."""

    def __init__(self, port: int) -> None:
        self.wrong: list[str] = []
        self.polls = 0
        self._port, self._stop = port, threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _poll(self) -> None:
        s3 = client(self._port)
        while not self._stop.is_set():
            self.polls += 1
            found = s3.list_objects_v2(Bucket="outs", Prefix="repaired/").get("Contents", [])
            there = {each["Key"].removeprefix("repaired/"): each["ETag"] for each in found}
            if INDEX in there:
                try:
                    answer = s3.get_object(Bucket="outs", Key=f"repaired/{INDEX}")
                except s3.exceptions.NoSuchKey:  # the next output takes its place
                    continue
                if answer["ETag"] == there[INDEX]:
                    shards = set(json.loads(answer["Body"].read())["weight_map"].values())
                    self.wrong += sorted(shards - there.keys())


def test_restore_from_and_to_a_bucket_over_a_connection_that_drops_five_times(
    proxy: Proxy, moto_port: int, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    proxy.budgets = [draw.randrange(1, 40_000) for _ in range(DROPS)]
    with Reader(moto_port) as reader:
        for _ in range(DROPS + 1):  # a drop that the requests do not outlive ends the command
            try:
                done = restored()
                break
            except uvmerge.UvmergeError as error:
                assert "run the same command again" in str(error)
    assert proxy.cuts == DROPS
    assert done.out == "s3://outs/repaired"
    assert held(moto_port) == on_disk(pair, tmp_path)
    assert reader.polls > 3 and not reader.wrong
    assert not list(tmp_path.glob("*upload*"))  # nothing is left here


def test_of_an_input_only_what_the_plan_reads_is_fetched(
    proxy: Proxy,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: Capsys,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream, came = reading.StoreFile._stream, [0]

    def counting(self: Any, start: int, stop: int, write: Any) -> None:
        came[0] += stop - start
        stream(self, start, stop, write)

    monkeypatch.setattr(reading.StoreFile, "_stream", counting)
    words = ("reset-layers", "s3://models/team/base", pair[1], tmp_path / "out", "--frac", "0.25")
    done = uv(capsys, *words, "--dry-run")
    assert done.code == 0, done.err
    assert "of base from s3://models in" in done.out
    assert "values of base are on s3://models and were not looked at for this plan" in done.out
    weights = [line for line in proxy.requests if line.startswith("GET /models/team/base/model")]
    assert len(weights) == 2  # the length of the header, and the header
    done = uv(capsys, *words, "--json")
    assert done.code == 0, done.err
    assert came[0] < 0.6 * json.loads(done.out)["fetched"]["base"]["of_bytes"]
    local = uvmerge.reset_layers(*pair, tmp_path / "local", frac=0.25)
    assert zoo.raw(tmp_path / "out") == zoo.raw(Path(str(local.out)))


@pytest.mark.parametrize("moment", ["while ranges come", "before the end"])
def test_an_object_that_changes_midway_is_refused(
    moment: str, proxy: Proxy, moto_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "team/base/model.safetensors"
    old = held(moto_port, "models", "team/base/")["model.safetensors"]
    stream, counted = reading.StoreFile._stream, [0]

    def streamed(self: Any, start: int, stop: int, write: Any) -> None:
        is_base = self.name.startswith("base/") and stop - start > 8 and start > 8
        counted[0] += is_base
        if moment == "before the end":
            stream(self, start, stop, write)
        if is_base and counted[0] == 3:
            client(moto_port).put_object(Bucket="models", Key=key, Body=old[:-4] + b"\0\0\0\1")
        if moment != "before the end":
            stream(self, start, stop, write)

    monkeypatch.setattr(reading.StoreFile, "_stream", streamed)
    with pytest.raises(uvmerge.InputRefused, match="changed in the store while it was read"):
        restored()
    assert not held(moto_port)


def test_an_upload_that_stopped_goes_on_and_sends_no_part_twice(
    proxy: Proxy, moto_port: int, pair: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    call, parts = store.Store.call, list[tuple[str, int]]()

    def failing(self: Any, name: str, method: str, **words: Any) -> Any:
        if method == "upload_part":
            if len(parts) == 3:
                raise PermissionError("not any more")
            parts.append((name, words["PartNumber"]))
        return call(self, name, method, **words)

    def lost(self: Any, name: str, method: str, **words: Any) -> Any:
        """An upload is completed, and the server's answer is lost."""
        answer = call(self, name, method, **words)
        if method == "complete_multipart_upload":
            raise FileNotFoundError("The specified upload does not exist.")
        return answer

    monkeypatch.setattr(ranged, "AT_ONCE", 1)
    monkeypatch.setattr(store.Store, "call", failing)
    with pytest.raises(uvmerge.RunFailed, match="AWS_PROFILE"):
        restored()
    assert not held(moto_port)
    monkeypatch.setattr(store.Store, "call", lost)
    done = restored()
    sent = [line.split(" ")[1] for line in proxy.requests if "partNumber=" in line]
    assert len(sent) == len(set(sent)) > 5
    assert not done.was_there and held(moto_port) == on_disk(pair, tmp_path)
    # Run again, it is refused: nothing here tells whose the output is.
    with pytest.raises(uvmerge.InputRefused, match="is not empty"):
        restored()


def test_a_stop_during_the_upload_is_gone_on_with(
    proxy: Proxy, moto_port: int, pair: tuple[Path, Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    control, put = Control(), store.Store.put

    def stopping(self: Any, name: str, content: Any) -> str:
        control.stop.set()
        return put(self, name, content)

    monkeypatch.setattr(store.Store, "put", stopping)
    with pytest.raises(uvmerge.Interrupted):
        restored(control=control)
    assert INDEX not in held(moto_port)
    monkeypatch.setattr(store.Store, "put", put)
    before = len(proxy.requests)
    restored()
    assert not any("partNumber=" in line for line in proxy.requests[before:])
    assert held(moto_port) == on_disk(pair, tmp_path)


def test_overwrite_replaces_an_output_and_takes_its_index_away_first(
    proxy: Proxy, moto_port: int, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    restored(max_shard_size="30KB")
    assert sum("safetensors" in name for name in held(moto_port)) > 2
    words = ("restore", "s3://models/team/base", "s3://models/team/finetuned", "s3://outs/repaired")
    refused = uv(capsys, *words, "--top", "0.2")
    assert refused.code == 3 and "pass --overwrite" in refused.err
    with Reader(moto_port) as reader:
        restored(overwrite=True)
    assert held(moto_port) == on_disk(pair, tmp_path)
    assert reader.polls > 3 and not reader.wrong
    client(moto_port).put_object(Bucket="outs", Key="repaired/other.safetensors", Body=b"1")
    with pytest.raises(uvmerge.InputRefused, match=r"did not write.*other\.safetensors"):
        restored(overwrite=True)


def test_show_diff_and_check_read_a_bucket(
    proxy: Proxy, pair: tuple[Path, Path], capsys: Capsys
) -> None:
    done = uv(capsys, "show", "s3://models/team/base", "--json")
    assert done.code == 0 and "s3://models" in done.out
    done = uv(capsys, "diff", "s3://models/team/base", pair[1], "--json")
    assert done.code == 0, done.err
    out = restored().out
    before = len(proxy.requests)
    done = uv(capsys, "check", out, "--against", "s3://models/team/finetuned", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["hashes"] == "6 files as written"
    weights = [e for e in proxy.requests[before:] if e.startswith("GET /outs/repaired/model-")]
    assert len(weights) > 4  # ranges


def test_what_is_not_there_or_may_not_be_read_is_told_in_a_line(
    proxy: Proxy, tmp_path: Path, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in ("s3://models/nothing", "s3://nowhere/at-all"):
        done = uv(capsys, "show", url)
        assert done.code == 3 and "Check the bucket and prefix" in done.err
        assert "Traceback" not in done.err


# --- killed --------------------------------------------------------------------------------------


SMALL_PARTS = """
import sys
from uvmerge.stores import sending, store
sending.PART_BYTES, store._WAITS_S = 1 << 13, (0.01, 0.05, 0.1)
from uvmerge.__main__ import start
start()
"""
WEIGHTS = r"repaired/model-00001-of-\d+\.safetensors"
MOMENTS = [
    Kill(rf"POST .*{WEIGHTS}\?uploads", arrives=True),
    Kill(rf"PUT .*{WEIGHTS}\?.*partNumber=3", arrives=False),
    Kill(rf"POST .*{WEIGHTS}\?uploadId", arrives=True),
    Kill(r"PUT .*repaired/config\.json", arrives=True),
    Kill(r"PUT .*repaired/model\.safetensors\.index\.json", arrives=False),
]
OVERWRITING = [
    Kill(r"DELETE .*repaired/model\.safetensors\.index\.json", arrives=True),
    Kill(rf"PUT .*{WEIGHTS}\?.*partNumber=2", arrives=True),
    Kill(r"DELETE .*repaired/model-00001-of-", arrives=False),
    Kill(r"PUT .*repaired/model\.safetensors\.index\.json", arrives=True),
]


@pytest.mark.parametrize("moments", [MOMENTS, OVERWRITING], ids=["new", "overwriting"])
def test_killed_during_the_upload_the_same_command_ends_with_the_same_bytes(
    moments: list[Kill], proxy: Proxy, moto_port: int, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    is_new = moments is MOMENTS
    if not is_new:
        restored(max_shard_size="30KB")
    inputs = [f"s3://models/team/{role}" for role in ("base", "finetuned")]
    command = [
        sys.executable, "-c", SMALL_PARTS, "restore", *inputs, "s3://outs/repaired",
        "--top", "0.2", "--max-shard-size", "60KB", *([] if is_new else ["--overwrite"]),
    ]  # fmt: skip
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}

    starts: list[int] = []

    def run(kill: Kill | None) -> tuple[int, str]:
        starts.append(len(proxy.requests))
        with proxy.held():
            proxy.kill = kill
            proxy.process = subprocess.Popen(
                command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
            )
        _, said = proxy.process.communicate(timeout=120)
        return proxy.process.returncode, said

    with Reader(moto_port) as reader:
        for kill in moments:
            code, said = run(kill)
            assert code == -signal.SIGKILL, (kill, said)
        code, said = run(None)
        assert code == 0, said
    # The third run had sent all parts of this file when it was killed.
    assert not any(
        re.search(rf"{WEIGHTS}.*partNumber=", each) for each in proxy.requests[starts[3] :]
    )
    assert held(moto_port) == on_disk(pair, tmp_path)
    assert reader.polls > 3 and not reader.wrong
    assert not client(moto_port).list_multipart_uploads(Bucket="outs").get("Uploads")
    assert not list(tmp_path.glob("*upload*"))
