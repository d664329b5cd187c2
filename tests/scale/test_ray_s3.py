"""Nodes of a Ray cluster read inputs in a bucket, of a server that speaks S3, for themselves."""

from __future__ import annotations

import json
from pathlib import Path

import faults
import pytest
from command import process

boto3 = pytest.importorskip("boto3")
pytest.importorskip("ray")
pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.scale


def test_a_diff_of_a_bucket_is_that_of_the_folders(tmp_path: Path) -> None:
    pair = faults.pair(tmp_path / "pair", layers=2, hidden=32)[:2]
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        url = f"http://127.0.0.1:{running.get_host_and_port()[1]}"
        access = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing",
                  "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": url,
                  "HF_HOME": str(tmp_path / "hf")}  # fmt: skip
        s3 = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1",
            aws_access_key_id="testing", aws_secret_access_key="testing",
        )  # fmt: skip
        s3.create_bucket(Bucket="models")
        for folder in pair:
            for path in folder.iterdir():
                s3.upload_file(str(path), "models", f"{folder.name}/{path.name}")
        there = [f"s3://models/{folder.name}" for folder in pair]
        words = ("--json", "--engine", "ray", "--address", "local")
        done = process("diff", *there, *words, environment=access)
    finally:
        running.stop()
    assert done.code == 0, done.err
    assert "from s3://models in" in done.err
    alone = json.loads(process("diff", *pair, "--json").out)
    matrices = [each["matrices"] for each in json.loads(done.out)["checkpoints"]]
    assert matrices == [each["matrices"] for each in alone["checkpoints"]]
