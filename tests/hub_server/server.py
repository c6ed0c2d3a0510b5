"""The server as a test holds it."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType

# each of these adds its routes
from tests.hub_server import account, commits, contents, downloads, large, references  # noqa: F401
from tests.hub_server.faults import Fault, How, Journal, Request
from tests.hub_server.handler import Listener
from tests.hub_server.hub import Hub, commit_of
from tests.hub_server.repo import Repo


class HubServer:
    """A Hub whose repositories lie under `folder`; `tokens` maps each token to the user whose namespace it opens.

    Large files go to and come from a second host, as the Hub keeps them on others: whoever sends a token there is
    refused. Objects above `part_size` bytes are uploaded in parts. Leaving the context raises what went wrong inside
    the server, so that a fault of its own cannot pass for one of the client's.
    """

    def __init__(self, folder: str | Path, tokens: dict[str, str], part_size: int = 1 << 30) -> None:
        self._hub = Hub(Path(folder), tokens, part_size)
        self._journal = Journal()
        self.errors: list[str] = []
        self._listeners = [Listener(self._hub, self._journal, side, self.errors) for side in ("hub", "storage")]
        self._hub.url, self._hub.storage_url = (listener.url for listener in self._listeners)

    def __enter__(self) -> HubServer:
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()
        if self.errors and kind is None:
            raise RuntimeError("\n".join(self.errors))

    @property
    def url(self) -> str:
        return self._hub.url

    @property
    def requests(self) -> list[Request]:
        return self._journal.requests

    def fail(self, at: int, how: How, times: int = 1, of: str = "", retry_after: int = 1) -> Fault:
        """Let the `at`-th request from now on fail; see Fault. What comes back tells whether it struck."""
        return self._journal.plan(Fault(at, how, times, of, retry_after))

    def forgive(self) -> None:
        self._journal.forgive()

    def repo(self, id: str, kind: str = "models") -> Repo:
        """The repository on disk, to be looked at without going through the server."""
        return self._hub.repo(id, kind)

    def files(self, id: str, revision: str = "main", kind: str = "models") -> dict[str, bytes]:
        """Everything in a repository, large files in full."""
        repo = self.repo(id, kind)
        tree = repo.tree(commit_of(repo, revision))
        return {path: repo.content(entry) for path, entry in tree.items() if not entry.folder}

    def environment(self, home: str | Path, token: str | None = None) -> dict[str, str]:
        """What a client's process needs to come here and nowhere else.

        Where Xet is installed the client uploads through it without being asked to, and this server does not speak it.
        """
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(Path(home, "hub")),
            "HF_TOKEN": token or "",  # never the one of whoever runs the tests
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1,localhost",
        }
