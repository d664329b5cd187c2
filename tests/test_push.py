"""An output goes to the Hub whole: one commit, nothing twice, nothing private, and a lock."""

from __future__ import annotations

import getpass
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import hub_server
import hub_uploads
import pytest
import yaml
import zoo
from command import process, uv
from hub_server import COMMIT, Commit, Content, Fault, Hub

import uvmerge
from uvmerge.hub import push as pushing, session

Capsys = pytest.CaptureFixture[str]
# huggingface_hub hands an upload to its HTTP client in a way that this warns of.
UPLOAD = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
pytestmark = [pytest.mark.hub, UPLOAD]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base, finetuned = zoo.pair("llama", tmp_path_factory.mktemp("pair"))
    (finetuned / "README.md").write_text("---\nlicense: mit\ntags:\n- chat\n---\n# sft\n")
    return base, finetuned


@pytest.fixture
def hub(pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub_uploads.install(monkeypatch)
    monkeypatch.setattr(session, "_WAITS_S", (0.01, 0.01, 0.01))
    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
    with hub_server.serving({"org/base": pair[0], "org/sft": pair[1]}) as served:
        hub_server.use(served, tmp_path / "hf", monkeypatch)
        yield served


@pytest.fixture
def out(hub: Hub, tmp_path: Path) -> Path:
    """An output of two shards, from the Hub's checkpoints."""
    uvmerge.restore("org/base", "org/sft", tmp_path / "out", rank=2, max_shard_size=60_000)
    return tmp_path / "out"


def head(hub: Hub, name: str = "org/new") -> Commit:
    return hub.repositories[name].refs["main"]


def content(commit: Commit, name: str) -> bytes:
    return b"".join(commit.files[name].pieces())


def requests(hub: Hub, start: str) -> list[str]:
    return [line for line in hub.asked if line.startswith(start)]


def commits(hub: Hub, name: str = "org/new") -> int:
    """Commits after the one that makes a repository."""
    return len(hub.repositories[name].commits) - 1


# --- what is pushed ----------------------------------------------------------------------------


def test_an_output_arrives_in_one_commit_with_card_recipe_and_lock(
    hub: Hub, out: Path, pair: tuple[Path, Path], capsys: Capsys
) -> None:
    done = uv(capsys, "push", out, "org/new", "--private", "--json")
    assert done.code == 0, done.err
    commit, said = head(hub), json.loads(done.out)
    assert commits(hub) == 1 and said["commit"] == commit.id
    assert hub.repositories["org/new"].is_private
    names = {path.name for path in out.iterdir()}
    assert set(commit.files) == names | {"uvmerge.yaml"} == set(said["files"])
    for name in names - {"README.md", "uvmerge.json"}:
        assert content(commit, name) == (out / name).read_bytes()
    shards = [name for name in names if name.endswith(".safetensors")]
    assert len(shards) > 1 and {said["files"][name]["way"] for name in shards} == {"sent"}
    assert said["bytes_sent"] == sum((out / name).stat().st_size for name in shards)
    lock = json.loads(content(commit, "uvmerge.json"))["lock"]
    assert lock["files"] == {
        name: hashlib.sha256(content(commit, name)).hexdigest()
        for name in commit.files if name != "uvmerge.json"
    }  # fmt: skip
    weights = hashlib.sha256((pair[0] / zoo.SINGLE).read_bytes()).hexdigest()
    assert lock["inputs"]["base"]["files"][zoo.SINGLE] == weights
    assert lock["inputs"]["base"]["repo"] == "org/base" and lock["not_reproducible"] == []
    recipe = yaml.safe_load(content(commit, "uvmerge.yaml"))
    assert recipe["base"] == f"org/base@{COMMIT}" and recipe["steps"] == [{"restore": {"rank": 2}}]


def test_what_was_pushed_is_an_output_that_check_believes(
    hub: Hub, out: Path, tmp_path: Path
) -> None:
    uvmerge.push(out, "org/new")
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in head(hub).files:
        (copy / name).write_bytes(content(head(hub), name))
    assert uvmerge.check(copy)["hashes"].endswith("files as written")


def test_the_card_names_inputs_licence_recipe_and_edits(hub: Hub, out: Path) -> None:
    uvmerge.push(out, "org/new")
    card = content(head(hub), "README.md").decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["base_model"] == ["org/sft", "org/base"]
    assert front["base_model_relation"] == "merge" and front["license"] == "mit"
    assert {"uvmerge", "merge", "chat"} <= set(front["tags"])
    assert "# `org/new`" in card and "restore:" in card and "|---|" in card
    assert "uvmerge reproduce org/new" in card


def test_the_text_of_a_card_that_is_there_stays_and_a_second_push_changes_nothing(
    hub: Hub, out: Path
) -> None:
    theirs = (
        "---\nlicense: apache-2.0\ntags:\n- mine\nwidget:\n- text: hello\n---\n# Mine\n\nBy hand.\n"
    )
    repository = hub.repositories["org/new"] = hub_server.Repository({})
    repository.commit("main", {"README.md": Content(theirs.encode(), False)}, "a card")
    uvmerge.push(out, "org/new")
    card = content(head(hub), "README.md").decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "apache-2.0" and front["widget"] == [{"text": "hello"}]
    assert front["tags"][0] == "mine" and "uvmerge" in front["tags"]
    assert "# Mine\n\nBy hand.\n" in card and "uvmerge reproduce org/new" in card
    again = uvmerge.push(out, "org/new")
    assert again.was_there and commits(hub) == 1


def test_a_dry_run_sends_nothing_and_makes_no_repository(
    hub: Hub, out: Path, capsys: Capsys
) -> None:
    done = uv(capsys, "push", out, "org/new", "--dry-run")
    assert done.code == 0 and "would go" in done.out and "would be sent; nothing was" in done.out
    assert "org/new" not in hub.repositories
    assert not [line for line in hub.asked if line.startswith(("POST", "PUT"))]


def test_nothing_private_is_in_any_byte_that_is_pushed(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_uploads.install(monkeypatch)
    home = tmp_path / "home" / "somebody-special"
    home.mkdir(parents=True)
    with hub_server.serving({"org/base": pair[0], "org/sft": pair[1]}) as hub:
        of_hub = hub_server.environment(
            hub, home / "hf", HOME=str(home), USER="somebody-special", LOGNAME="somebody-special"
        )
        made = process(
            "restore", "org/base", pair[1], home / "out", "--rank", "2", "-q", environment=of_hub
        )
        assert made.code == 0, made.err
        done = process("push", home / "out", "org/new", environment=of_hub)
        assert done.code == 0, done.err
        pushed = [content(head(hub), name) for name in head(hub).files]
    private = {
        hub.token,
        "somebody-special",
        str(tmp_path),
        str(pair[1].parent),
        socket.gethostname(),
    }
    private |= {getpass.getuser()} - {"root"}
    for each in private:
        word = re.compile(
            rb"\b%s\b" % re.escape(each.encode())
        )  # a short host name is in many words
        assert not any(word.search(data) for data in pushed), each


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("hf_secret", "your access token"),
        ("hf_" + "a" * 34, "an access token of the Hub"),
        (f"{Path.home()}/models/sft", "a path in your home folder"),
        ('"_name_or_path": "/data/sft"', "the path of a folder (_name_or_path)"),
    ],
)
def test_a_side_file_that_holds_something_private_is_refused(
    text: str, what: str, hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    sft = zoo.rewrite(pair[1], tmp_path / "private", lambda tensors: tensors)
    (sft / "special_tokens_map.json").write_text(f"{{{text}}}")
    uvmerge.restore("org/base", sft, tmp_path / "out", rank=2)
    done = uv(capsys, "push", tmp_path / "out", "org/new")
    assert done.code == 3, done.err
    assert f"special_tokens_map.json: holds {what}; nothing was pushed" in done.err
    assert "hf_secret" not in done.err and "org/new" not in hub.repositories


# --- inputs without a Hub id -------------------------------------------------------------------


def test_a_local_input_is_not_reproducible_unless_its_id_is_given(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    uvmerge.restore("org/base", pair[1], tmp_path / "out", rank=2)
    done = uv(capsys, "push", tmp_path / "out", "org/new")
    assert done.code == 0 and "not reproducible: FINETUNED has no Hub id" in done.out
    card = content(head(hub), "README.md").decode()
    assert "not reproducible: FINETUNED has no Hub id" in card and "before publishing" not in card
    assert b"finetuned:" not in content(head(hub), "uvmerge.yaml")
    done = uv(capsys, "reproduce", "org/new", tmp_path / "again")
    assert done.code == 3 and "not reproducible: FINETUNED has no Hub id" in done.err
    done = uv(capsys, "push", tmp_path / "out", "org/new", "--finetuned-id", "org/sft")
    assert done.code == 0 and "not reproducible" not in done.out
    card = content(head(hub), "README.md").decode()
    assert "base_model:\n- org/sft\n- org/base\n" in card and "`org/sft` after surgery" in card
    assert uv(capsys, "reproduce", "org/new", tmp_path / "again").out.endswith("identical\n")


def test_an_id_of_another_checkpoint_is_refused(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    uvmerge.restore("org/base", pair[1], tmp_path / "out", rank=2)
    done = uv(capsys, "push", tmp_path / "out", "org/new", "--finetuned-id", "org/base")
    assert done.code == 3
    assert (
        "org/base: is not the fine-tuned checkpoint of this output: its weights differ" in done.err
    )


def test_a_folder_of_others_and_a_broken_output_are_refused(
    hub: Hub, out: Path, pair: tuple[Path, Path], capsys: Capsys
) -> None:
    done = uv(capsys, "push", pair[0], "org/new")
    assert done.code == 3 and "was not written by uvmerge" in done.err
    (out / "config.json").write_text("{}")
    done = uv(capsys, "push", out, "org/new")
    assert done.code == 4 and "org/new" not in hub.repositories
    assert uv(capsys, "push", out, "no-slash").code == 2


# --- what goes wrong on the way ----------------------------------------------------------------


def test_a_commit_of_someone_else_meanwhile_stops_the_push_with_a_hint(
    hub: Hub, out: Path, capsys: Capsys
) -> None:
    hub.add("org/new", out.parent / "empty")
    files = {"notes.md": Content(b"theirs", False)}
    moved = Fault(
        "POST /api/models/org/new/commit",
        before=lambda: hub.repositories["org/new"].commit("main", files, "theirs"),
    )
    hub.faults.append(moved)
    done = uv(capsys, "push", out, "org/new")
    assert done.code == 1 and "someone else has committed to main meanwhile" in done.err
    assert len(done.err.strip().splitlines()) >= 2 and set(head(hub).files) == {"notes.md"}
    sent = len(requests(hub, "PUT"))
    assert uv(capsys, "push", out, "org/new").code == 0
    assert len(requests(hub, "PUT")) == sent and "notes.md" in head(hub).files


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: Hub, out: Path) -> None:
    hub.faults.append(Fault("POST /api/models/org/new/commit", loses_answer=True))
    done = uvmerge.push(out, "org/new")
    assert commits(hub) == 1 and done.commit == head(hub).id
    assert len(requests(hub, "POST /api/models/org/new/commit")) == 1


def test_a_busy_server_is_asked_for_the_commit_again(hub: Hub, out: Path) -> None:
    hub.faults.append(Fault("POST /api/models/org/new/commit", status=503))
    uvmerge.push(out, "org/new")
    assert commits(hub) == 1 and len(requests(hub, "POST /api/models/org/new/commit")) == 2


def test_uploads_that_drop_at_random_end_well_and_send_nothing_twice(
    hub: Hub, out: Path, capsys: Capsys
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    draws = random.Random(seed)
    seen: list[set[str]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.wait(0.002):
            there = hub.repositories.get("org/new")
            if there is not None and "main" in there.refs:
                seen.append(set(there.refs["main"].files))

    reader = threading.Thread(target=read)
    reader.start()
    codes = []
    try:
        hub.faults += [
            Fault("PUT /lfs", drop_upload_after=draws.randrange(50_000)) for _ in range(5)
        ]
        hub.faults.append(Fault("POST /api/models/org/new/commit", loses_answer=True))
        for _ in range(8):
            codes.append(uv(capsys, "push", out, "org/new", "-q").code)
            if codes[-1] == 0:
                break
    finally:
        stop.set()
        reader.join()
    assert codes[-1] == 0 and set(codes[:-1]) <= {1}, codes
    assert commits(hub) == 1
    whole = [e.path for e in hub.log if e.method == "PUT" and e.status == 200]
    assert len(whole) == len(set(whole)) == sum(n.endswith("safetensors") for n in head(hub).files)
    index = "model.safetensors.index.json"
    shards = set(json.loads((out / index).read_text())["weight_map"].values())
    assert all(shards <= names for names in seen if index in names)


@pytest.mark.parametrize(
    ("pattern", "status", "code", "sentence"),
    [
        ("POST /api/repos/create", 403, 3, "the Hub does not let you write there"),
        ("POST /api/models/org/new/commit", 401, 3, "the Hub does not let you write there"),
        ("GET /api/models/org/new", 500, 1, "the push stopped: "),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_and_a_hint(
    pattern: str, status: int, code: int, sentence: str, hub: Hub, out: Path, capsys: Capsys
) -> None:
    hub.faults.append(Fault(pattern, 20, status, {"X-Error-Code": "Other"}))
    done = uv(capsys, "push", out, "org/new", "-q")
    assert done.code == code and f"error: org/new: {sentence}" in done.err
    assert len(done.err.strip().splitlines()) == 2 and "Traceback" not in done.err


def test_a_branch_that_is_missing_is_refused(hub: Hub, out: Path, capsys: Capsys) -> None:
    done = uv(capsys, "push", out, "org/sft", "--revision", "next", "-q")
    assert done.code == 3 and "org/sft: has no branch 'next'" in done.err


# --- pull requests -----------------------------------------------------------------------------


def test_a_pull_request_leaves_the_branch_and_is_not_opened_twice(hub: Hub, out: Path) -> None:
    hub.faults.append(Fault("POST /api/models/org/new/commit", loses_answer=True))
    done = uvmerge.push(out, "org/new", pr=True)
    repository = hub.repositories["org/new"]
    assert done.pull_request == 1 and head(hub).files == {}
    assert set(repository.refs["refs/pr/1"].files) >= {path.name for path in out.iterdir()}
    assert uvmerge.push(out, "org/new", pr=True).pull_request == 1
    assert [name for name in repository.refs if "pr" in name] == ["refs/pr/1"]


def test_what_is_too_much_for_a_commit_is_a_pull_request_that_is_merged_last(
    hub: Hub, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(pushing, "MOST_FILES", 2)
    hub.faults.append(Fault("POST /api/models/org/new/commit/refs/pr/1", times=4, status=503))
    assert uv(capsys, "push", out, "org/new", "-q").code == 1
    assert head(hub).files == {}
    sent = len(requests(hub, "PUT"))
    done = uvmerge.push(out, "org/new")
    assert done.pull_request == 1 and len(requests(hub, "PUT")) == sent
    assert set(head(hub).files) == {path.name for path in out.iterdir()} | {"uvmerge.yaml"}
    assert [c.title for c in hub.repositories["org/new"].commits.values()][-1] == "merge 1"


# --- copies on the server ----------------------------------------------------------------------


@pytest.mark.parametrize("copies", [True, False, None])
def test_a_shard_of_an_input_is_copied_by_the_server_where_client_and_server_can(
    copies: bool | None, pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Capsys,
) -> None:  # fmt: skip
    asked = hub_uploads.install(monkeypatch, copies)
    asks = copies is not None and hub_uploads.CLIENT_COPIES
    sft = tmp_path / "sft"
    uvmerge.interpolate(pair[0], pair[1], sft, scale=1.0, max_shard_size=60_000)
    with hub_server.serving({"org/base": pair[0], "org/sft": sft}) as hub:
        hub_server.use(hub, tmp_path / "hf", monkeypatch)
        uvmerge.restore("org/base", "org/sft", tmp_path / "out", rank=1, layers="0")
        same = {p.name for p in sft.glob("*.safetensors")
                if p.read_bytes() == (tmp_path / "out" / p.name).read_bytes()}  # fmt: skip
        assert same
        hub.objects.clear()  # a store of its own for each model
        if copies and asks:
            hub.objects |= {c.sha256: c for r in hub.repositories.values()
                            for n, c in r.refs["main"].files.items() if n in same}  # fmt: skip
            monkeypatch.setattr("uvmerge.hub.sending._has", lambda *_: False)
        done = uv(capsys, "push", tmp_path / "out", "org/new")
        assert done.code == 0, done.err
        sent = {e.path.rpartition("/")[2] for e in hub.log if e.method == "PUT"}
        sums = {hub_server.Content(sft / n, True).sha256 for n in same}
        assert set(asked) == (same if asks else set())
        assert sent.isdisjoint(sums) if copies and asks else sums <= sent
        assert ("copied on the server" in done.err) == asks
        refused = asks and copies is False
        assert ("cannot copy files of the inputs: they are sent" in done.err) == refused
        assert set(head(hub).files) >= {p.name for p in (tmp_path / "out").iterdir()}


# --- recipes -----------------------------------------------------------------------------------


def test_a_recipe_is_pushed_and_run_from_the_hub(
    hub: Hub, pair: tuple[Path, Path], tmp_path: Path, capsys: Capsys
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("uvmerge: 1\nname: Mine\nbase: org/base\nsteps:\n- restore: {rank: 2}\n")
    done = uv(capsys, "recipe", "push", file, "org/recipes")
    assert done.code == 0, done.err
    assert content(head(hub, "org/recipes"), "recipe.yaml") == file.read_bytes()
    assert b"uvmerge run org/recipes OUT" in content(head(hub, "org/recipes"), "README.md")
    out = uvmerge.run("org/recipes", tmp_path / "out", finetuned=pair[1]).out
    local = uvmerge.restore(pair[0], pair[1], tmp_path / "local", rank=2).out
    assert out is not None and local is not None and zoo.raw(out) == zoo.raw(local)
    assert uvmerge.recipe_push(file, "org/recipes").was_there
    file.write_text("uvmerge: 1\nbase: /data/base\nsteps: [values]\n")
    done = uv(capsys, "recipe", "push", file, "org/recipes")
    assert done.code == 2 and "names models of the Hub alone" in done.err
