"""`hf-winopt push` when the Hub fails: what it says then is true, and the same command again completes."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.hub_server import HubServer
from tests.integrations.hub_client import CARD, alone, hub, pushed, read
from tests.integrations.test_push_command import push, weights

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
AGAIN = "The same command again sends only what is missing."


def trained(folder: Path) -> dict[str, bytes]:
    """A small run with a model in two large files."""
    draw = random.Random(1)
    index = "".join(f'"{place}": "{name}", ' for place, name in enumerate(SHARDS)).removesuffix(", ")
    files = {
        "README.md": CARD.encode(),
        "config.json": b"{}",
        "empty.txt": b"",
        "model.safetensors.index.json": b'{"weight_map": {%s}}' % index.encode(),
        "tokenizer.model": draw.randbytes(1_000),  # large to the Hub, by its name
        **{name: weights(70_000, draw) for name in SHARDS},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def told(message: str, what: str) -> set[str]:
    """The files that a message lists under these words."""
    (line,) = re.findall(rf"^{what}: (.+)\.$", message, flags=re.MULTILINE)
    return set() if line == "nothing" else set(line.split(", "))


def check_truth(server: HubServer, id: str, files: dict[str, bytes], message: str) -> None:
    """Whether what a failed push has said of the repository is so."""
    repo = server.repo(id)
    assert message.splitlines()[-1] == AGAIN and "Traceback" not in message
    if not repo.exists:
        assert f"{id} is not there: nothing has arrived." in message, message
        return
    served = pushed(server, id)
    there = {name for name, content in files.items() if served.get(name) == content}
    stored = {name for name, content in files.items() if repo.objects.size(hashlib.sha256(content).hexdigest())}
    assert told(message, f"In {id}, as here") == there, message
    assert told(message, "Arrived, and waiting for the commit") == stored - there, message
    assert told(message, "Not there") == set(files) - there - stored, message


@alone
def test_after_a_fault_at_any_request_the_message_is_true_and_the_same_command_completes(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        failed = 0
        for how in ("drop", "drop_after", 500, 429, 507):
            for at in itertools.count(1):
                id = f"owner/{how}-{at}"
                fault = server.fail(at, how)
                status, _, message = push(folder, id)
                server.forgive()
                if status:
                    failed += 1
                    assert status == 1 and fault.struck, message
                    check_truth(server, id, files, message)
                assert push(folder, id)[0] == 0
                assert pushed(server, id) == files, (how, at)
                assert len(server.repo(id).history("main")) == 2, f"{how} at {at}: one commit, whatever happened"
                if not fault.struck:
                    break
            assert at > 14, f"{how}: only {at - 1} requests to fail at"
        assert failed > 20
        assert read(folder) == files


@alone
def test_what_has_arrived_is_not_sent_again(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        first, second = (hashlib.sha256(files[name]).hexdigest() for name in SHARDS)

        def times(oid: str) -> int:
            return sum(each.method == "PUT" and each.path.endswith(oid) for each in server.requests)

        server.fail(1, 507, times=100, of=f"PUT .*{second}")
        for _ in range(2):
            status, _, message = push(folder, "owner/model")
            assert status == 1 and "the server has no room" in message
            assert told(message, "Arrived, and waiting for the commit") == {SHARDS[0]}
            assert SHARDS[1] in told(message, "Not there")
        server.forgive()
        assert push(folder, "owner/model")[0] == 0 and pushed(server, "owner/model") == files
        assert (times(first), times(second)) == (1, 3)

        server.fail(2, 500, times=100, of="POST .*/batch")
        status, _, message = push(folder, "owner/half")
        assert status == 1 and "the server failed (HTTP 500)" in message
        assert told(message, "Arrived, and waiting for the commit") == {SHARDS[0]}, "what it has seen itself it knows"
        assert SHARDS[1] in told(message, "Not there, or waiting too")


@alone
def test_the_old_state_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        folder = tmp_path / "out"
        files = trained(folder)
        api.create_repo("owner/model")
        old = {"model.safetensors": b"old", "README.md": b"# Old\n", "demo.txt": b"kept"}
        for name, content in old.items():
            api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="owner/model")
        for how in (404, 409, 412, 418, 503, "drop"):
            server.fail(1, how, times=100, of="POST .*/commit/")
            status, _, message = push(folder, "owner/model")
            server.forgive()
            assert status == 1 and pushed(server, "owner/model") == old
            check_truth(server, "owner/model", files, message)
            words = {409: "busy", 412: "somebody else has changed", 418: "refused (HTTP 418)", "drop": "connection to"}
            assert words.get(how, "") in message.splitlines()[0], message
        assert push(folder, "owner/model")[0] == 0
        assert pushed(server, "owner/model") == {**files, "demo.txt": b"kept"}


@alone
def test_a_lost_answer_to_the_commit_is_no_failure(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        files = trained(tmp_path / "out")
        fault = server.fail(1, "drop_after", of="POST .*/commit/")
        status, out, message = push(tmp_path / "out", "owner/model")
        assert fault.struck and status == 0, message
        assert out.count("  sent") == len(files) and pushed(server, "owner/model") == files


@alone
def test_whoever_may_not_push_is_told_why(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        server.repo("other/model").create(private=False, author="other")
        status, _, message = push(folder, "other/model")
        assert status == 1 and "no right to write to other/model" in message.splitlines()[0]
        assert told(message, "In other/model, as here") == set()
        assert told(message, "Not there, or waiting too") == set(files), "that is not for everybody to know"
        status, _, message = push(folder, "other/new")
        assert status == 1 and "no right to write to other/new" in message and "other/new is not there" in message
        server.fail(1, 401, times=100)  # which says nothing of what is there
        assert "What owner/model holds is not known: the Hub did not say." in push(folder, "owner/model")[2]
        server.forgive()
        os.environ["HF_TOKEN"] = "hf_of_nobody"
        for id in ("owner/model", "model", "other/model"):
            status, _, message = push(folder, id)
            assert status == 1 and "wrong: log in with `hf auth login` or set HF_TOKEN" in message.splitlines()[0]
            assert f"What {id} holds is not known: the Hub did not say.\n{AGAIN}" in message
        assert not server.repo("owner/model").exists and pushed(server, "other/model") == {}


@alone
def test_a_hub_that_is_gone_is_not_guessed_about(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        for at in (1, 6):
            server.fail(at, "drop", times=1000)
            status, _, message = push(folder, "owner/model")
            server.forgive()
            assert status == 1 and message.startswith(f"hf-winopt push: the connection to {server.url} failed")
            assert "What owner/model holds is not known" in message

        (folder / "README.md").write_text("---\nlicense: [1]\n---\n# A model\n")
        status, _, message = push(folder, "owner/model")
        assert status == 1 and "Invalid metadata in README.md" in message.splitlines()[0], "it is there, and refuses"
        assert told(message, "Arrived, and waiting for the commit") == {*SHARDS}
        (folder / "README.md").write_text(CARD)
        assert push(folder, "owner/model")[0] == 0 and pushed(server, "owner/model") == files


@alone
def test_interrupted(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        for of in ("PUT /storage/", "POST .*/commit/"):
            server.fail(1, lambda: os.kill(os.getpid(), signal.SIGINT), of=of)
            status, out, message = push(folder, "owner/model")
            assert status == 130 and out.splitlines()[0] == "interrupted" and message == ""
            check_truth(server, "owner/model", files, out)
        assert push(folder, "owner/model")[0] == 0 and pushed(server, "owner/model") == files


@alone
def test_killed_at_an_upload(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, _):
        folder = tmp_path / "out"
        files = trained(folder)
        command = [sys.executable, "-m", "hf_winopt", "push", str(folder), "owner/model"]
        del os.environ["HF_HUB_DISABLE_PROGRESS_BARS"]  # it knows by itself that nobody watches
        fault = server.fail(2, lambda: child.kill(), of="PUT /storage/")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            said = child.communicate()[0].decode()
        assert fault.struck and child.returncode == -signal.SIGKILL, said
        assert pushed(server, "owner/model") == {} and read(folder) == files
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert pushed(server, "owner/model") == files
        assert "%" not in done.stdout + done.stderr, "no bars where there is no terminal"
        sent = [each.path for each in server.requests if each.method == "PUT" and each.status == 200]
        assert len(sent) == len(set(sent)), "what had arrived was not sent again"
