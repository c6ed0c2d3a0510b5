"""The loopback Hub, spoken to by the real client: what it keeps and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integrations.hub_client import LARGE, alone, hub, pushed, read, write


@alone
def test_a_folder_makes_the_round_trip_bit_for_bit(tmp_path: Path) -> None:
    with hub(tmp_path, part_size=4 << 20) as (server, api):
        files = write(tmp_path / "mine", big=True)
        assert api.whoami()["name"] == "owner"
        assert api.create_repo("owner/model", private=True).repo_id == "owner/model"
        first = api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
        assert pushed(server, "owner/model") == files
        assert {*api.list_repo_files("owner/model")} == {*files, ".gitattributes"}

        again = api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
        assert again.oid == first.oid == api.model_info("owner/model").sha
        assert len(api.list_repo_commits("owner/model")) == 2

        for local in ({}, {"local_dir": tmp_path / "theirs"}):
            theirs = read(api.snapshot_download("owner/model", **local))
            del theirs[".gitattributes"]
            assert theirs == files

        # git itself, which knows nothing of the server, has the same to say
        repo = server.repo("owner/model")
        repo.git("fsck", "--strict")
        assert repo.git("show", "main:logs/ein Maß.txt") == files["logs/ein Maß.txt"]
        large = {entry.path for entry in repo.tree(first.oid).values() if entry.large}
        assert large == {LARGE, "curve.png", "by size.log"}
        assert hashlib.sha256(files[LARGE]).hexdigest().encode() in repo.git("show", f"main:{LARGE}")
        puts = [request.path.rsplit("/", 1)[-1] for request in server.requests if request.method == "PUT"]
        assert {"1", "2", "3"} < {*puts} and len(puts) == 5, "11 MB in parts of 4, and two whole files"


@alone
def test_branches_tags_trees_and_deletions(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        files = write(tmp_path / "mine")
        api.create_repo("owner/model")
        api.create_repo("owner/model", exist_ok=True)
        api.upload_folder(repo_id="owner/model", folder_path=tmp_path / "mine")
        api.create_branch("owner/model", branch="a/try")
        api.create_tag("owner/model", tag="v1")
        refs = api.list_repo_refs("owner/model")
        assert ({each.name for each in refs.branches}, [each.name for each in refs.tags]) == ({"main", "a/try"}, ["v1"])

        operations = [
            CommitOperationDelete(LARGE),
            CommitOperationDelete("logs/"),
            CommitOperationAdd("deep/er/new.txt", b"new"),
        ]
        api.create_commit("owner/model", operations, commit_message="Turn over", revision="a/try")
        left = {"README.md", "empty.txt", "curve.png", "deep/er/new.txt"}
        assert {*pushed(server, "owner/model", "a/try")} == left
        assert pushed(server, "owner/model", "main") == pushed(server, "owner/model", "v1") == files
        assert api.list_repo_commits("owner/model", revision="a/try")[0].title == "Turn over"
        api.delete_file("empty.txt", "owner/model", revision="a/try")
        assert not api.file_exists("owner/model", "empty.txt", revision="a/try")

        top = {each.path: type(each).__name__ for each in api.list_repo_tree("owner/model")}
        assert top["logs"] == "RepoFolder" and "logs/ein Maß.txt" not in top
        assert [each.path for each in api.list_repo_tree("owner/model", "logs")] == ["logs/ein Maß.txt"]
        (told,) = api.get_paths_info("owner/model", [LARGE, "nowhere"])
        assert (told.size, told.lfs.sha256) == (300_000, hashlib.sha256(files[LARGE]).hexdigest())
        assert Path(api.hf_hub_download("owner/model", LARGE, revision="v1")).read_bytes() == files[LARGE]

        (tmp_path / "mine" / ".gitignore").write_text("*.safetensors\n!kept.safetensors\n")
        (tmp_path / "mine" / "kept.safetensors").write_bytes(files[LARGE])
        api.create_repo("owner/ignoring")
        api.upload_folder(repo_id="owner/ignoring", folder_path=tmp_path / "mine")
        assert {*pushed(server, "owner/ignoring")} == {*files, ".gitignore", "kept.safetensors"} - {LARGE}

        api.delete_branch("owner/model", branch="a/try")
        api.delete_repo("owner/model")
        assert not api.repo_exists("owner/model")


@alone
def test_what_is_not_granted_raises_what_the_client_has_for_it(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from huggingface_hub import errors

        def refused(status: int, call: Callable[..., object], *arguments: object, **options: object) -> None:
            with pytest.raises(Exception) as caught:
                call(*arguments, **options)
            assert caught.value.response.status_code == status

        api.create_repo("owner/open")
        api.create_repo("owner/shut", private=True)
        push = {"path_or_fileobj": b"text", "path_in_repo": "a.txt", "repo_id": "owner/open"}
        before = server.repo("owner/open").find("main")

        refused(401, api.whoami, token="hf_nobody")
        refused(401, api.upload_file, **push, token="hf_nobody")
        refused(401, api.upload_file, **push, token=False)
        refused(403, api.upload_file, **push, token="hf_other")
        refused(403, api.create_repo, "other/model")
        refused(409, api.create_repo, "owner/open")
        refused(412, api.upload_file, **push, parent_commit="0" * 40)
        assert server.repo("owner/open").find("main") == before

        assert api.model_info("owner/open", token=False).id == "owner/open"
        for token, status in (("hf_other", 404), (False, 401)):
            with pytest.raises(errors.RepositoryNotFoundError) as caught:
                api.model_info("owner/shut", token=token)
            assert caught.value.response.status_code == status
        with pytest.raises(errors.RepositoryNotFoundError):
            api.upload_file(**{**push, "repo_id": "owner/nowhere"})
        with pytest.raises(errors.RepositoryNotFoundError):
            api.hf_hub_download("owner/nowhere", "a.txt")
        with pytest.raises(errors.RepositoryNotFoundError):
            api.hf_hub_download("bert-base-uncased", "config.json")
        with pytest.raises(errors.EntryNotFoundError):
            api.hf_hub_download("owner/open", "a.txt")
        with pytest.raises(errors.EntryNotFoundError):
            api.delete_file("a.txt", "owner/open")
        with pytest.raises(errors.RevisionNotFoundError):
            api.hf_hub_download("owner/open", ".gitattributes", revision="nowhere")
        with pytest.raises(errors.RevisionNotFoundError):
            api.upload_file(**push, revision="nowhere")


@alone
def test_a_card_is_checked_before_it_is_pushed(tmp_path: Path) -> None:
    with hub(tmp_path) as (server, api):
        from huggingface_hub import EvalResult, ModelCard, ModelCardData, __version__

        def push(card: str) -> None:
            api.upload_file(path_or_fileobj=card.encode(), path_in_repo="README.md", repo_id="owner/model")

        result = EvalResult("text-classification", "glue", "GLUE", "accuracy", 0.5)
        data = ModelCardData(license="mit", model_name="mine", library_name="transformers", eval_results=[result])
        card = ModelCard(f"---\n{data.to_yaml()}\n---\n# Mine\n")
        api.create_repo("owner/model")
        if __version__.startswith("0."):  # whose cards ask huggingface.co, whatever the endpoint
            push(str(card))
        else:
            card.validate()
            card.push_to_hub("owner/model")
        assert server.files("owner/model")["README.md"].decode() == str(card)
        assert ModelCard.load("owner/model").data.eval_results == [result]
        assert api.model_info("owner/model").card_data.license == "mit"

        for front in ("license: ours", "tags: {a: b}", "model-index: [{results: []}]", "license: [", "- a list"):
            with pytest.raises(ValueError, match="Invalid metadata"):
                push(f"---\n{front}\n---\n")
        assert len(api.list_repo_commits("owner/model")) == 2
        with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
            push("# No metadata\n")
