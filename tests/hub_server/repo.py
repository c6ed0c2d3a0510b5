"""One repository: a bare git repository, written and read with git's own commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.hub_server.objects import Objects, Pointer

# what the Hub sends to large storage by name, in a repository that has just been made
_LARGE = """
7z arrow bin bz2 ckpt ftz gz h5 joblib mlmodel model msgpack npy npz onnx ot parquet pb pickle pkl pt pth rar
safetensors tar tflite tgz wasm xz zip zst
"""
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in _LARGE.split())
_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}


@dataclass(frozen=True)
class Entry:
    """A file or a folder of one commit."""

    path: str
    oid: str
    size: int
    folder: bool = False
    large: Pointer | None = None


@dataclass(frozen=True)
class Commit:
    oid: str
    author: str
    date: str
    title: str
    message: str


class Repo:
    def __init__(self, folder: Path, id: str) -> None:
        self.id = id
        self.path = folder.resolve() / f"{id}.git"
        self.objects = Objects(folder / f"{id}.lfs")
        self._trees: dict[str, dict[str, Entry]] = {}

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    @property
    def private(self) -> bool:
        return (self.path / "private").exists()

    @private.setter
    def private(self, private: bool) -> None:
        mark = self.path / "private"
        mark.touch() if private else mark.unlink(missing_ok=True)

    def create(self, private: bool, author: str) -> None:
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main")
        self.private = private
        self.commit("main", {".gitattributes": ATTRIBUTES.encode()}, "initial commit", author)

    def delete(self) -> None:
        shutil.rmtree(self.path)
        shutil.rmtree(self.objects.folder, ignore_errors=True)
        self._trees.clear()

    def git(self, *arguments: str, send: bytes = b"", environment: dict[str, str] | None = None) -> bytes:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            input=send,
            env={**os.environ, **_ENVIRONMENT, "GIT_DIR": str(self.path), **(environment or {})},
            capture_output=True,
            check=True,
        ).stdout

    def find(self, revision: str) -> str | None:
        """The commit that a branch, a tag or a commit's own name stands for."""
        names = [f"refs/heads/{revision}", f"refs/tags/{revision}", revision if revision.startswith("refs/") else ""]
        names.append(revision if re.fullmatch(r"[0-9a-f]{7,40}", revision) else "")
        for name in filter(None, names):
            try:
                return self.git("rev-parse", "--verify", "--quiet", name + "^{commit}").decode().strip()
            except subprocess.CalledProcessError:
                continue
        return None

    def tree(self, commit: str) -> dict[str, Entry]:
        """Every file and folder of a commit; a commit never changes, so it is read once."""
        if commit not in self._trees:
            listed = []
            for line in self.git("ls-tree", "-r", "-t", "-z", "-l", commit).decode().split("\0")[:-1]:
                (_, kind, oid, size), path = line.split("\t", 1)[0].split(), line.split("\t", 1)[1]
                listed.append(Entry(path, oid, 0 if size == "-" else int(size), folder=kind == "tree"))
            self._trees[commit] = {entry.path: self._followed(entry) for entry in listed}
        return self._trees[commit]

    def _followed(self, entry: Entry) -> Entry:
        if entry.folder or not 120 <= entry.size <= 160:  # what a pointer can measure
            return entry
        pointer = Pointer.read(self.blob(entry.oid))
        return Entry(entry.path, entry.oid, pointer.size, large=pointer) if pointer else entry

    def blob(self, oid: str) -> bytes:
        return self.git("cat-file", "blob", oid)

    def content(self, entry: Entry) -> bytes:
        return self.objects.path(entry.large.oid).read_bytes() if entry.large else self.blob(entry.oid)

    def commit(self, branch: str, changes: dict[str, bytes | None], message: str, author: str) -> str:
        """Put files into (or, with None, take them out of) the head of a branch."""
        parent = self.find(f"refs/heads/{branch}")
        lines = []
        for path, content in changes.items():
            oid = self.git("hash-object", "-w", "--stdin", send=content).decode().strip() if content is not None else ""
            lines.append(f"100644 {oid}\t{path}\0" if oid else f"0 {'0' * 40}\t{path}\0")
        who = {"NAME": author, "EMAIL": f"{author}@localhost"}
        people = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()}
        with tempfile.TemporaryDirectory(dir=self.path) as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
            if parent:
                self.git("read-tree", parent, environment=index)
            self.git("update-index", "-z", "--replace", "--index-info", send="".join(lines).encode(), environment=index)
            tree = self.git("write-tree", environment=index).decode().strip()
        parents = ["-p", parent] if parent else []
        oid = self.git("commit-tree", tree, *parents, send=message.encode(), environment=people).decode().strip()
        self.git("update-ref", f"refs/heads/{branch}", oid, parent or "0" * 40)
        return oid

    def history(self, commit: str) -> list[Commit]:
        asked = ["--date=format-local:%Y-%m-%dT%H:%M:%S.000Z", "--format=%H%x00%an%x00%cd%x00%s%x00%b%x01"]
        log = self.git("log", *asked, commit, environment={"TZ": "UTC"}).decode().split("\x01")[:-1]
        return [Commit(*(field.strip() for field in record.split("\0"))) for record in log]

    def refs(self, under: str) -> dict[str, str]:
        listed = self.git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", f"refs/{under}").decode()
        return dict(line.rsplit(" ", 1) for line in listed.splitlines())

    def ignored(self, rules: str, paths: list[str]) -> set[str]:
        """Which of these paths a .gitignore with such rules leaves out, in git's own judgement."""
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, ".gitignore").write_text(rules)
            try:
                asked = "".join(f"{path}\0" for path in paths).encode()
                arguments = ["-C", folder, "check-ignore", "--no-index", "-z", "--stdin"]
                found = self.git(*arguments, send=asked, environment={"GIT_WORK_TREE": folder})
            except subprocess.CalledProcessError as error:
                if error.returncode == 1:  # none of them
                    return set()
                raise
        return set(found.decode().split("\0")[:-1])
