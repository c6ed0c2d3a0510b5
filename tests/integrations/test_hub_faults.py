"""The loopback Hub when it fails: what is lost, what is refused, and that a second try completes."""

from __future__ import annotations

import hashlib
import itertools
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import pytest

from tests.integrations.hub_client import CARD, LARGE, alone, hub, pushed, write


@alone
def test_a_download_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        files = write(tmp_path / "mine")
        api.create_repo("owner/model")
        api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
        cut = server.fail(at=1, how="cut", of="GET /storage/")
        with patch("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1 << 16):  # what came in whole pieces is kept
            for _ in range(2):  # older clients leave it to the caller to ask again
                with suppress(Exception):
                    path = api.hf_hub_download("owner/model", LARGE)
                    break
        assert cut.struck and Path(path).read_bytes() == files[LARGE]
        asked = [request for request in server.requests if request.path.startswith("/storage/")][-1]
        assert (asked.range, asked.status) == ("bytes=131072-", 206), asked

        etag: list[str] = []

        def get(**headers: str) -> tuple[int, bytes]:
            address = f"{server.url}/owner/model/resolve/main/README.md"
            try:
                with urllib.request.urlopen(urllib.request.Request(address, headers=headers)) as reply:
                    etag.append(reply.headers["ETag"])
                    return reply.status, reply.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        card = CARD.encode()
        assert get() == (200, card)
        assert get(Range="bytes=2-5") == (206, card[2:6])
        assert get(Range="bytes=-3") == (206, card[-3:])
        assert get(Range=f"bytes={len(card)}-")[0] == 416
        assert get(**{"If-None-Match": etag[0]}) == (304, b"")


@alone
def test_an_object_that_is_not_what_its_name_says_is_refused(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from huggingface_hub import CommitOperationAdd
        from huggingface_hub.errors import HfHubHTTPError

        api.create_repo("owner/model")

        def operation(**said: object) -> CommitOperationAdd:
            made = CommitOperationAdd(LARGE, b"weights")
            for name, value in said.items():
                setattr(made.upload_info, name, value)
            return made

        for said in ({"sha256": hashlib.sha256(b"other").digest()}, {"size": 8}):
            with pytest.raises((RuntimeError, HfHubHTTPError)):
                api.create_commit("owner/model", [operation(**said)], commit_message="Wrong")
        unseen = operation()
        unseen._is_uploaded, unseen._upload_mode = True, "lfs"
        server.repo("owner/model").objects.path(unseen.upload_info.sha256.hex()).unlink(missing_ok=True)
        with pytest.raises(HfHubHTTPError, match="does not exist"):
            api.create_commit("owner/model", [unseen], commit_message="Unseen")
        with pytest.raises(HfHubHTTPError, match="no path"):
            api.create_commit("owner/model", [CommitOperationAdd("a//b", b"text")], commit_message="Out")
        assert len(api.list_repo_commits("owner/model")) == 1
        api.create_commit("owner/model", [operation()], commit_message="Right")
        assert pushed(server, "owner/model") == {LARGE: b"weights"}


@alone
def test_after_a_fault_at_any_request_a_second_push_completes(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        files = write(tmp_path / "mine")
        for how in ("drop", "drop_after", 500, 429, 507):
            for at in itertools.count(1):
                id = f"owner/{how}-{at}"
                server.repo(id).create(private=False, author="owner")
                fault = server.fail(at, how)
                with suppress(Exception):  # some requests the client repeats by itself, for others it gives up
                    api.upload_folder(repo_id=id, folder_path=tmp_path / "mine")
                server.forgive()
                api.upload_folder(repo_id=id, folder_path=tmp_path / "mine")
                assert pushed(server, id) == files, (how, at)
                assert len(server.repo(id).history("main")) == 2, f"{how} at {at}: one commit, whatever happened"
                if not fault.struck:
                    break
            assert at > 6, f"{how}: only {at - 1} requests to fail at"


@alone
def test_a_fault_that_lasts_reaches_the_caller(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        files = write(tmp_path / "mine")
        api.create_repo("owner/model")
        lasting = [(507, "PUT /storage/"), (503, "PUT /storage/"), (503, "POST .*/commit/"), ("drop", "POST .*/batch")]
        for how, of in lasting:
            fault = server.fail(at=1, how=how, times=100, of=of)
            with pytest.raises(Exception) as caught:
                api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
            server.forgive()
            told = [getattr(each, "response", None) for each in (caught.value, caught.value.__cause__)]
            assert fault.struck and (how == "drop" or how in [each.status_code for each in told if each is not None])
            assert pushed(server, "owner/model") == {}
        api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
        assert pushed(server, "owner/model") == files
