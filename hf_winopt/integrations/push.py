"""Push what was trained earlier: all of it in one commit, or nothing, and a second try sends only what is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_winopt.files import write_atomically
from hf_winopt.integrations.hub import CARD_FILE
from hf_winopt.integrations.last_look import private_words
from hf_winopt.integrations.push_plan import File, PushError, leave_out_private, make_plan
from hf_winopt.integrations.push_remote import Held, Remote, in_words, state_of

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

__all__ = ["PushError", "Pushed", "open_repository", "push_run"]

MESSAGE = "Model, card and results"
AGAIN = "The same command again sends only what is missing."
ALONE = 1 << 16
"""From so many bytes on a file is sent by itself, so that it need not be sent again; the others go with the commit."""

_OLD_MODEL = (
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "adapter_model*.bin",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
)


@dataclass(frozen=True)
class Pushed:
    """What a push has come to.

    Args:
        repo_id: with its namespace.
        url: of the repository.
        commit_url: of the commit that it is at now.
        sent, unchanged, deleted: names of files.
    """

    repo_id: str
    url: str
    commit_url: str
    sent: tuple[str, ...]
    unchanged: tuple[str, ...]
    deleted: tuple[str, ...]


def push_run(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    with_optimizer: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_name: str = "last-checkpoint",
    token: str | None = None,
    revision: str | None = None,
    message: str = MESSAGE,
    report: Callable[[str], object] = print,
) -> Pushed:
    """Push a trained model with its card; a missing card is made where there are results, and kept in the folder.

    Args:
        folder: of the run, or one of its checkpoints.
        repo_id: `NAME` or `OWNER/NAME`; made if it is not there.
        private: make it private; if it is there already, insist that it is.
        with_optimizer: also push the last checkpoint, with all that a training goes on from.
        checkpoint: push this one instead of the last.
        checkpoint_name: its folder in the repository.
        token: of the Hub, if not the one that is logged in.
        revision: a branch, made if it is not there.
        message: of the commit.
        report: is told what happens, in lines.

    Raises:
        PushError: with what went wrong, and what the repository has and has not.
    """
    folder = Path(folder)
    _check_repo_id(repo_id)
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        plan = make_plan(folder, repo_id, with_optimizer, checkpoint, checkpoint_name)
        token = _token(token)
        leave_out_private(plan, private_words(folder, token))
        additions = [CommitOperationAdd(each.name, each.source) for each in plan.files]
    except OSError as error:
        raise PushError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error
    for note in plan.notes:
        report(note)
    _keep_card(plan.files)
    remote = Remote(HfApi(token=token), repo_id, revision)
    try:
        pushed = _push(remote, additions, f"{checkpoint_name}/" if with_optimizer else None, private, message)
    except KeyboardInterrupt:
        report(f"interrupted\n{state_of(remote, additions)}\n{AGAIN}")
        raise
    report(_table(additions, plan.left_out, pushed))
    return pushed


def open_repository(
    repo_id: str, *, private: bool | None = None, token: str | None = None, revision: str | None = None
) -> str:
    """Find out whether there is, or can be, a repository to push to later; its name with its namespace.

    Args:
        repo_id, private, token, revision: as for `push_run`.

    Raises:
        PushError: with what went wrong.
    """
    _check_repo_id(repo_id)
    from huggingface_hub import HfApi

    remote = Remote(HfApi(token=_token(token)), repo_id, revision)
    try:
        remote.open(private)
    except PushError:
        raise
    except Exception as error:
        raise PushError(in_words(error, remote)) from error
    return remote.repo_id


def _push(
    remote: Remote, additions: Sequence[CommitOperationAdd], below: str | None, private: bool | None, message: str
) -> Pushed:
    """Send what the repository does not have. Between its old state and the new one there is no other."""
    held: Held | None = None
    try:
        held = remote.open(private)
        old = _old_files(held, {each.path_in_repo for each in additions}, below)
        changed = [each for each in additions if not held.has(each)]
        url = _send(remote, changed, old, held, message) if changed or old else remote.commit_url(held)
    except PushError:
        raise
    except Exception as error:
        after = _done_after_all(remote, additions, old) if held else None
        if held is None or after is None:
            raise PushError(f"{in_words(error, remote)}\n{state_of(remote, additions)}\n{AGAIN}") from error
        url = remote.commit_url(after)
    names = [each.path_in_repo for each in additions]
    sent = [each.path_in_repo for each in changed]
    unchanged = [name for name in names if name not in sent]
    return Pushed(remote.repo_id, remote.url, url, tuple(sent), tuple(unchanged), tuple(old))


def _send(remote: Remote, changed: Sequence[CommitOperationAdd], old: Sequence[str], held: Held, message: str) -> str:
    """The large files one by one, then the commit; its address."""
    from huggingface_hub import CommitOperationDelete

    api, id, branch = remote.api, remote.repo_id, remote.revision
    for each in changed:
        if each.upload_info.size >= ALONE:
            api.preupload_lfs_files(id, [each], revision=branch, free_memory=False)
    operations: list[Any] = [*changed, *(CommitOperationDelete(name, is_folder=False) for name in old)]
    # nobody else's commit in between: what is deleted was found in this one
    made = api.create_commit(id, operations, commit_message=message, revision=branch, parent_commit=held.head or None)
    after = remote.look() if ".gitignore" in held.files else None
    if after and (kept_out := [each.path_in_repo for each in changed if not after.has(each)]):
        raise PushError(f"all was pushed except what the .gitignore of {id} keeps out: {', '.join(kept_out)}")
    return made.commit_url


def _done_after_all(remote: Remote, additions: Sequence[CommitOperationAdd], old: Sequence[str]) -> Held | None:
    """What the repository holds if that is all that was to be pushed: then only the answer has been lost."""
    with suppress(Exception):
        after = remote.look()
        if after and all(map(after.has, additions)) and not set(old) & set(after.files):
            return after
    return None


def _old_files(held: Held, names: set[str], below: str | None) -> list[str]:
    """What an earlier push has left that would be taken for a part of this one."""

    def is_mixed(name: str) -> bool:
        if "/" in name:
            return below is not None and name.startswith(below)
        return any(fnmatchcase(name, pattern) for pattern in _OLD_MODEL)

    return sorted(filter(is_mixed, held.files.keys() - names))


def _check_repo_id(repo_id: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"REPO_ID {repo_id!r}: NAME or OWNER/NAME is needed. {error}") from error


def _token(token: str | None) -> str:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise PushError("HF_HUB_OFFLINE is set: nothing can be sent until it is unset")
    try:
        token = token or get_token()
    except Exception as error:  # where it is exchanged for another first
        raise PushError(f"no token can be had: {error}") from error
    if not token:
        raise PushError("there is no token: log in with `hf auth login` or set HF_TOKEN")
    return token


def _keep_card(files: Sequence[File]) -> None:
    for file in files:
        if file.name == CARD_FILE and file.content is not None:
            with suppress(OSError):  # in a folder that cannot be written to; it is pushed all the same
                write_atomically(file.path, file.content)


def _table(additions: Sequence[CommitOperationAdd], left_out: dict[str, str], pushed: Pushed) -> str:
    sizes = {each.path_in_repo: _size(each.upload_info.size) for each in additions}
    rows = [(name, size, "sent" if name in pushed.sent else "unchanged") for name, size in sizes.items()]
    rows += [(name, "", f"left out: {why}") for name, why in left_out.items()]
    rows += [(name, "", "deleted: of an earlier push") for name in pushed.deleted]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name:{width}}  {size:>8}  {what}" for name, size, what in rows]
    if not pushed.sent and not pushed.deleted:
        lines.append("nothing has changed since the last push")
    return "\n".join(lines)


def _size(size: int) -> str:
    power = min((len(str(size)) - 1) // 3, 4)
    return f"{size / 1000**power:.{min(power, 1)}f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
