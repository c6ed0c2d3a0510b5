"""A Hub on the loopback: the real client talks to it, git on disk keeps what it was given, and it fails on demand.

with HubServer(folder, tokens={"hf_owner": "owner"}) as server:
    fault = server.fail(at=3, how="drop_after")
    subprocess.run(client, env={**os.environ, **server.environment(home, "hf_owner")})
    assert fault.struck and server.files("owner/model")["README.md"] == card
"""

from tests.hub_server.faults import Fault, Request
from tests.hub_server.server import HubServer

__all__ = ["Fault", "HubServer", "Request"]
