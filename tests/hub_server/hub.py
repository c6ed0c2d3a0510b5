"""Who may do what to which repository."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from pathlib import Path

from tests.hub_server.reply import Refusal
from tests.hub_server.repo import Repo
from tests.hub_server.routes import Call


class Hub:
    """The state behind both listeners: the API's, where tokens count, and the storage's, where signatures do."""

    def __init__(self, folder: Path, tokens: dict[str, str], part_size: int) -> None:
        self.folder = folder
        self.tokens = tokens
        self.part_size = part_size
        self.url = self.storage_url = ""
        self.lock = threading.RLock()  # around what changes a repository
        self._secret = secrets.token_bytes(16)
        self._repos: dict[str, Repo] = {}

    def repo(self, id: str, kind: str = "models") -> Repo:
        """The repository of that name, whether it exists or not."""
        key = f"{kind}/{id}"
        if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", id) or id.endswith((".git", ".lfs")):
            raise Refusal(400, f"{id} cannot name a repository")
        with self.lock:
            return self._repos.setdefault(key, Repo(self.folder / kind, id))

    def user(self, call: Call) -> str | None:
        """Whose token came along, if any did; a wrong one is refused even where none was needed."""
        header = call.headers.get("authorization")
        if header is None:
            return None
        user = self.tokens.get(header.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user

    def writer(self, call: Call, namespace: str | None = None) -> str:
        user = self.user(call)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if namespace not in (None, user):
            raise Refusal(403, f"You don't have the rights to write under the namespace {namespace}")
        return user

    def readable(self, call: Call, id: str, kind: str = "models") -> Repo:
        """To those who may not see it, a private repository is not there."""
        repo, user = self.repo(id, kind), self.user(call)
        if not repo.exists or (repo.private and user != id.split("/")[0]):
            raise absent(user)
        return repo

    def writable(self, call: Call, id: str, kind: str = "models") -> Repo:
        repo = self.readable(call, id, kind)
        self.writer(call, id.split("/")[0])
        return repo

    def signed(self, purpose: str, path: str) -> str:
        """An address in the storage that is good for one purpose, as the Hub hands them out."""
        return f"{self.storage_url}{path}?signature={self._signature(purpose, path)}"

    def check_signature(self, purpose: str, call: Call) -> None:
        if "authorization" in call.headers:
            raise Refusal(400, "a token must never be sent to the storage")
        if not hmac.compare_digest(call.query.get("signature", ""), self._signature(purpose, call.path)):
            raise Refusal(403, "the signature does not fit")

    def _signature(self, purpose: str, path: str) -> str:
        return hmac.new(self._secret, f"{purpose} {path}".encode(), hashlib.sha256).hexdigest()


def absent(user: str | None) -> Refusal:
    """No repository; who has not said who they are might have been shown one."""
    return Refusal(404 if user else 401, "Repository not found", "RepoNotFound")


def commit_of(repo: Repo, revision: str) -> str:
    commit = repo.find(revision)
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
