"""The data lake in a notebook, a script or a terminal: ``import dmsp; events = dmsp.attach("scope:name")``.

Runs inside the kernels of all profiles, so: standard library only, Python >= 3.8. It reads the manifests that the
Jupyter server writes below ``$DMSP_RUNTIME`` and talks to that server over a unix socket which only its user can
open; it never sees a token.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import keyword
import os
import socket
import sys
import time
from typing import (
    Any,
    Dict,
    Iterator,
    List,
    Mapping,
    MutableMapping,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Type,
    TypedDict,
    Union,
    overload,
)
from urllib.parse import quote

__all__ = [
    "AttachFailed",
    "AttachTimeout",
    "Dataset",
    "DmspError",
    "NoLake",
    "NotReady",
    "attach",
    "datasets",
    "release",
]

_REQUEST_TIMEOUT = 60.0


class _Fault(TypedDict, total=False):
    message: str
    code: str
    action: str


class _File(TypedDict):
    path: str


class _Manifest(TypedDict, total=False):
    """What is read of ``manifest.json``."""

    state: str
    did: str
    files: List[_File]
    missing: List[str]
    bytes: int
    error: Optional[_Fault]


class _Record(TypedDict):
    """What is read of the server's record of an attachment."""

    id: str
    did: str
    state: str
    files_ready: int
    files_total: int
    bytes_ready: int
    bytes_total: int
    error: Optional[_Fault]


class _Shell(Protocol):
    """What is used of IPython's shell."""

    user_ns: Dict[str, Any]


class DmspError(Exception):
    """Something went wrong; the text says what, and what to do."""


class NoLake(DmspError):
    """This process is not in a session with a data lake, or its Jupyter server is gone."""


class NotReady(DmspError):
    """The files are not on scratch (yet)."""


class AttachFailed(DmspError):
    """The data lake cannot bring the data; ``code`` and ``action`` say why and what helps."""

    def __init__(self, message: str, code: str = "", action: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.action = action

    def __reduce__(self) -> Tuple[Type[AttachFailed], Tuple[str, str, str]]:
        return type(self), (str(self), self.code, self.action)


class AttachTimeout(DmspError, TimeoutError):
    """The data did not arrive in the time that was given; the replication goes on."""


def _runtime() -> str:
    runtime = os.environ.get("DMSP_RUNTIME")
    if not runtime:
        raise NoLake("There is no data lake here: DMSP_RUNTIME is not set. Run this in a session of the VRE.")
    return runtime


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _call(method: str, path: str, body: Optional[Mapping[str, object]] = None) -> Any:
    """One request to the Jupyter server of this session; its JSON, or an exception with its sentence."""
    connection = _Connection(os.path.join(_runtime(), "lake.sock"), _REQUEST_TIMEOUT)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, "/dmsp/v1/" + path, data, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        raw = answer.read()
    except socket.timeout as error:
        raise DmspError("Your Jupyter server did not answer in time. Try again.") from error
    except (OSError, http.client.HTTPException) as error:
        raise NoLake("Your Jupyter server cannot be reached; the data lake works while it runs.") from error
    finally:
        connection.close()
    if answer.status == 204:
        return None
    try:
        result = json.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise DmspError(
            "Your Jupyter server gave an answer that is not JSON (status %d)." % answer.status
        ) from error
    if answer.status >= 400:
        fault = result.get("error", {})
        raise AttachFailed(
            fault.get("message", "The request failed."), fault.get("code", ""), fault.get("action", "")
        )
    return result


class Dataset(Sequence[str]):
    """The files of a DID on scratch.

    A sequence of paths (``str``); where it is a single file it can be given to ``open()`` and friends as it is.
    Pickles to a plain list of paths, so that workers need nothing of this module. While the files are not there,
    everything that needs them raises :class:`NotReady`; ``.status`` and ``.wait()`` work at any time.
    """

    def __init__(self, ident: str, did: str = "") -> None:
        self._id = ident
        self._did = did
        self._seen: Optional[Tuple[int, int, int]] = None
        self._manifest: _Manifest = {}
        self._list: Optional[List[str]] = None

    def _read(self) -> _Manifest:
        """The manifest, read again when it has changed."""
        path = os.path.join(_runtime(), "attachments", self._id, "manifest.json")
        try:
            found = os.stat(path)
            mark = (found.st_ino, found.st_mtime_ns, found.st_size)
            if mark != self._seen:
                with open(path, encoding="utf-8", errors="surrogateescape") as file:
                    self._manifest = json.load(file)
                self._seen, self._list = mark, None
        except FileNotFoundError:
            self._seen, self._list = None, None
            self._manifest = {"state": "released", "did": self._did, "files": []}
        except (OSError, ValueError) as error:
            raise DmspError("The list of files of %s cannot be read." % (self._did or self._id)) from error
        self._did = self._manifest.get("did") or self._did
        return self._manifest

    @property
    def did(self) -> str:
        """``scope:name``."""
        return self._did or self._read().get("did", "")

    @property
    def id(self) -> str:
        """The attachment's id."""
        return self._id

    @property
    def status(self) -> str:
        """``requested``, ``replicating``, ``landing``, ``ready``, ``stuck``, ``failed`` or ``released``."""
        return self._read()["state"]

    @property
    def error(self) -> Optional[str]:
        """What is wrong, one sentence, or None."""
        fault = self._read().get("error")
        return fault["message"] if fault else None

    @property
    def missing(self) -> List[str]:
        """Names of files that should be on scratch and are not."""
        return list(self._read().get("missing", []))

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return self._read().get("bytes", 0)

    @property
    def paths(self) -> List[str]:
        """All paths, a list of str; raises :class:`NotReady`."""
        return list(self._ready())

    def _ready(self) -> List[str]:
        manifest = self._read()
        if manifest["state"] != "ready":
            raise NotReady(self._why(manifest))
        if self._list is None:
            self._list = [f["path"] for f in manifest["files"]]
        return self._list

    def _why(self, manifest: _Manifest) -> str:
        name, state, fault = self.did or self._id, manifest["state"], manifest.get("error")
        if state == "released":
            return "%s is not attached any more. Attach it again: dmsp.attach(%r)." % (name, name)
        if state in ("failed", "stuck"):
            reason = fault["message"] if fault else "it could not be brought to scratch."
            return "%s cannot be used: %s" % (name, reason)
        return "%s is on its way (%s). Call .wait() on it, or try again in a moment." % (name, state)

    def wait(self, timeout: Optional[float] = None, quiet: bool = False) -> Dataset:
        """Wait until the files are there, and return self.

        Args:
            timeout: seconds; None waits as long as it takes.
            quiet: show no progress.

        Raises:
            AttachFailed: the data lake gave up, or is stuck; the text says why.
            AttachTimeout: it took longer.
        """
        end = None if timeout is None else time.monotonic() + timeout
        shown = _Progress(self.did, quiet)
        while self._read()["state"] != "ready":
            left = 20.0 if end is None else min(20.0, end - time.monotonic())
            if timeout is not None and left <= 0:
                shown.close()
                raise AttachTimeout(
                    "%s has not arrived within %g s; it is still on its way." % (self.did, timeout)
                )
            record: _Record = _call(
                "GET", "attachments/%s?wait=%d" % (self._id, max(1, min(2 if shown.live else 20, left)))
            )
            shown.show(record)
            if record["state"] in ("failed", "stuck", "released"):
                shown.close()
                fault: _Fault = record["error"] or {}
                text = fault.get("message") or self._why({"state": record["state"]})
                raise AttachFailed("%s: %s" % (self.did, text), fault.get("code", ""), fault.get("action", ""))
        shown.close()
        return self

    def __len__(self) -> int:
        return len(self._ready())

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> List[str]: ...

    def __getitem__(self, index: Union[int, slice]) -> Union[str, List[str]]:
        return self._ready()[index]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._ready()))

    def __fspath__(self) -> str:
        paths = self._ready()
        if len(paths) != 1:
            raise TypeError("%s has %d files: choose one, for example [0]." % (self.did, len(paths)))
        return paths[0]

    def __str__(self) -> str:
        try:
            paths = self._ready()
        except DmspError:
            return repr(self)
        return paths[0] if len(paths) == 1 else repr(self)

    def __repr__(self) -> str:
        try:
            manifest = self._read()
        except DmspError as error:
            return "<Dataset %s: %s>" % (self._did or self._id, error)
        if manifest["state"] != "ready":
            return "<Dataset %s, %s>" % (self.did, manifest["state"])
        count = len(manifest["files"])
        return "<Dataset %s, %d file%s, %s>" % (self.did, count, "" if count == 1 else "s", _size(self.bytes))

    def __reduce__(self) -> Tuple[Type[List[str]], Tuple[List[str]]]:
        return list, (list(self._ready()),)


os.PathLike.register(Dataset)


class _Progress:
    """A line that tells how far it is, where somebody can see it."""

    def __init__(self, did: str, quiet: bool) -> None:
        self._did = did
        self._quiet = quiet
        self._shown = ""
        self.live = not quiet and ("IPython" in sys.modules or sys.stderr.isatty())

    def show(self, record: _Record) -> None:
        """Show a record of the server."""
        if not self.live or record["state"] == "ready" and not self._shown:
            return
        text = "%s: %s, %d of %d files, %s of %s" % (
            self._did,
            record["state"],
            record["files_ready"],
            record["files_total"],
            _size(record["bytes_ready"]),
            _size(record["bytes_total"]),
        )
        if text != self._shown:
            sys.stderr.write("\r" + text.ljust(len(self._shown)))
            sys.stderr.flush()
            self._shown = text

    def close(self) -> None:
        """End the line."""
        if self._shown:
            sys.stderr.write("\n")
            sys.stderr.flush()


def _size(number: float) -> str:
    value = float(number)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return "%d %s" % (value, unit) if unit == "B" else "%.1f %s" % (value, unit)
        value /= 1000
    return ""


def attach(
    did: str,
    variable: Optional[str] = None,
    wait: bool = True,
    timeout: Optional[float] = None,
    lifetime: Optional[float] = None,
    quiet: bool = False,
) -> Dataset:
    """Have a dataset, container or file of the data lake on scratch.

    Args:
        did: ``scope:name``.
        variable: also bind it to this name, now and whenever this notebook's kernel starts.
        wait: return when it is ready; otherwise at once.
        timeout: seconds to wait at most.
        lifetime: seconds that it stays on scratch; the site's default when None.
        quiet: show no progress.

    Returns:
        Dataset: its paths.

    Raises:
        AttachFailed: no such DID, no permission, quota used up, or stuck: the text says which.
        AttachTimeout: not ready in time.
        NoLake: not in a session.
    """
    if not isinstance(did, str):
        raise TypeError("did must be a str such as 'scope:name'")
    if variable is not None and (not str(variable).isidentifier() or keyword.iskeyword(variable)):
        raise ValueError("%r cannot be the name of a variable" % (variable,))
    body: Dict[str, object] = {"did": did}
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    if variable is not None:
        body["variable"] = variable
        if notebook:
            body["notebook"] = notebook
    if lifetime is not None:
        body["lifetime"] = int(lifetime)
    record: _Record = _call("POST", "attachments", body)
    dataset = Dataset(record["id"], record["did"])
    if variable is not None:
        _user_namespace()[variable] = dataset
    return dataset.wait(timeout, quiet) if wait else dataset


def datasets() -> Dict[str, Dataset]:
    """All that is attached: a dict from DID to :class:`Dataset`."""
    records: List[_Record] = _call("GET", "attachments")["attachments"]
    return {a["did"]: Dataset(a["id"], a["did"]) for a in records}


def release(did: str) -> None:
    """Give a DID back: it need not stay on scratch for this user."""
    found = datasets().get(did)
    if found is None:
        raise DmspError("%s is not attached." % did)
    _call("DELETE", "attachments/" + quote(found.id))


def _user_namespace() -> Dict[str, Any]:
    """Where a notebook's variables live; a throw-away dict outside of IPython."""
    module = sys.modules.get("IPython")
    shell: Optional[_Shell] = module.get_ipython() if module is not None else None
    return shell.user_ns if shell is not None else {}


def _bind(namespace: MutableMapping[str, Any], variable: str, ident: str, silent: bool = False) -> None:
    """What the Data Lake panel executes: bind a variable to an attachment."""
    dataset = Dataset(ident)
    namespace[variable] = dataset
    if not silent:
        sys.stdout.write("%s = %r\n" % (variable, dataset))


def _bindings() -> List[Tuple[str, str]]:
    """The bindings of this kernel's notebook, as the server left them: (variable, id)."""
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    if not notebook or "DMSP_RUNTIME" not in os.environ:
        return []
    path = os.path.normpath(notebook).encode("utf-8", "surrogatepass")
    name = hashlib.sha256(path).hexdigest()[:16] + ".json"
    try:
        with open(os.path.join(_runtime(), "bindings", name), encoding="utf-8") as file:
            found = json.load(file)["bindings"]
        return [(b["variable"], b["attachment"]) for b in found]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write("dmsp: the variables of this notebook were not restored: %s\n" % error)
        return []


def load_ipython_extension(shell: _Shell) -> None:
    """Called by IPython before the first cell: bind the notebook's variables."""
    for variable, ident in _bindings():
        shell.user_ns[variable] = Dataset(ident)
