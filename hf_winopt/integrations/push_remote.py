"""The repository that is pushed to: what it holds, what has arrived there without a commit, why a request failed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hf_winopt.integrations.push_plan import PushError

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, HfApi

PIECE = 1 << 20

_REASONS = {
    401: "the token is missing or wrong: log in with `hf auth login` or set HF_TOKEN",
    403: "there is no right to write to {repo_id} with this token",
    404: "{repo_id}, or what was asked of it, is not there, or not for this token",
    409: "the Hub is busy with {repo_id}, or something else has this name",
    412: "somebody else has changed {repo_id} meanwhile",
    429: "the Hub was asked too often: wait a while",
    507: "the server has no room",
}


@dataclass(frozen=True)
class Held:
    """What a repository holds at one commit: of each file the sha256 if it is a large one, else git's own name."""

    head: str
    private: bool
    files: dict[str, str]

    def has(self, addition: CommitOperationAdd) -> bool:
        """Whether a file is there with this very content."""
        held = self.files.get(addition.path_in_repo, "")
        if len(held) == 64:
            return held == addition.upload_info.sha256.hex()
        if not held:
            return False
        digest = hashlib.sha1(b"blob %d\0" % addition.upload_info.size)
        with addition.as_file() as file:
            while piece := file.read(PIECE):
                digest.update(piece)
        return held == digest.hexdigest()


class Remote:
    """One repository (and branch) on the Hub."""

    def __init__(self, api: HfApi, repo_id: str, revision: str | None) -> None:
        self.api, self.repo_id, self.revision = api, repo_id, revision

    @property
    def url(self) -> str:
        return f"{self.api.endpoint}/{self.repo_id}"

    def commit_url(self, held: Held) -> str:
        return f"{self.url}/commit/{held.head}"

    def open(self, private: bool | None) -> Held:
        """What it holds; it is made where it is missing.

        Raises:
            PushError: it shall be private, and is not.
        """
        if "/" not in self.repo_id:  # some old repositories have such a name, which are nobody's
            self.repo_id = f"{self.api.whoami()['name']}/{self.repo_id}"
        held = self._look(None)
        if held is None:
            self.api.create_repo(self.repo_id, private=private, exist_ok=True)
            held = self._look(None)
        if held is not None and private and not held.private:
            raise PushError(
                f"--private: {self.repo_id} is there already, and is public: make it private in its settings, or push "
                "to another; nothing was sent"
            )
        if self.revision is not None:
            held = self.look()
            if held is None:
                self.api.create_branch(self.repo_id, branch=self.revision, exist_ok=True)
                held = self.look()
        if held is None:
            raise PushError(f"{self.repo_id} was made, and is gone again")
        return held

    def look(self) -> Held | None:
        """What it holds now; None where there is no such repository, or branch."""
        return self._look(self.revision)

    def _look(self, revision: str | None) -> Held | None:
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        try:
            info = self.api.model_info(self.repo_id, revision=revision, files_metadata=True)
        except (RepositoryNotFoundError, RevisionNotFoundError) as error:
            if _status(error) == 404:
                return None
            raise
        files = {each.rfilename: each.lfs.sha256 if each.lfs else each.blob_id for each in info.siblings or ()}
        return Held(info.sha or "", bool(info.private), {name: oid or "" for name, oid in files.items()})

    def arrived(self, additions: Sequence[CommitOperationAdd]) -> set[str]:
        """Which of these files lie in the large storage, where they wait for a commit."""
        from huggingface_hub.lfs import post_lfs_batch_info

        asked = [each for each in additions if each.upload_info.size]
        if not asked:
            return set()
        infos = [each.upload_info for each in asked]
        token = self.api.token if isinstance(self.api.token, str) else None
        plans, _, _ = post_lfs_batch_info(infos, token, "model", self.repo_id, self.revision, self.api.endpoint)
        there = {plan["oid"] for plan in plans if plan.get("actions") is None}
        return {each.path_in_repo for each in asked if each.upload_info.sha256.hex() in there}


def state_of(remote: Remote, additions: Sequence[CommitOperationAdd]) -> str:
    """What of a push is there and what is not, as the server tells it after something went wrong."""
    try:
        held = remote.look()
    except Exception:
        return f"What {remote.repo_id} holds is not known: the Hub did not say."
    if held is None:
        return f"{remote.repo_id} is not there: nothing has arrived."
    there = [each.path_in_repo for each in additions if held.has(each)]
    missing = [each for each in additions if each.path_in_repo not in there]
    # what this process has sent by itself it knows; the rest only the Hub does
    waiting = {each.path_in_repo for each in missing if getattr(each, "_is_uploaded", False)}
    lines, rest = [f"In {remote.repo_id}, as here: {_listed(there)}."], "Not there"
    try:
        waiting |= remote.arrived(missing)
    except Exception:
        rest = "Not there, or waiting too"
    lines.append(f"Arrived, and waiting for the commit: {_listed(sorted(waiting))}.")
    lines.append(f"{rest}: {_listed([each.path_in_repo for each in missing if each.path_in_repo not in waiting])}.")
    return "\n".join(lines)


def in_words(error: BaseException, remote: Remote) -> str:
    """What went wrong, in one line and without an address that opens something."""
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    if type(error) is ValueError:  # the client's own words
        return " ".join(str(error).split())
    for each in _chain(error):
        status = 401 if isinstance(each, LocalTokenNotFoundError) else _status(each)
        if isinstance(each, OfflineModeIsEnabled):
            return "HF_HUB_OFFLINE is set"
        if status in _REASONS:
            return _REASONS[status].format(repo_id=remote.repo_id)
        if status is not None and status >= 500:
            return f"the server failed (HTTP {status})"
        if status is not None:
            said = getattr(each, "server_message", None) or "without a word"
            return f"the Hub refused (HTTP {status}): {' '.join(said.split())}"
    for each in _chain(error):
        if type(each).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
            return f"the connection to {remote.api.endpoint} failed ({type(each).__name__})"
    said = re.sub(r"\?\S+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {said}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
