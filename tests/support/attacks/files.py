"""Files: of the other user, of the platform, of the lake's storage, and what all users share."""

from __future__ import annotations

from attacks.model import Try

_UID = "the directory is not in the session's file system"
_STATE = "the state directory is not in the session's file system"
_READ = "return open(t[{key!r}], 'rb').read(200)"
_WRITE = """
path = os.path.join(t[{key!r}], ".attack")
with open(path, "w") as file: file.write("poison")
os.unlink(path)
return path
"""


def _read(name: str, where: str, what: str, key: str, control: str, why: str) -> Try:
    return Try(name, where, f"read {what}", why, control, _READ.format(key=key))


def _write(name: str, where: str, what: str, key: str, control: str, why: str) -> Try:
    return Try(name, where, f"write into {what}", why, control, _WRITE.format(key=key))


TRIES = [
    _read("home-file", "terminal", "a file of mode 0666 in the other's home", "home_file", "victim", _UID),
    Try("home-list", "kernel", "list the other's home", _UID, "victim", "return os.listdir(t['home'])"),
    Try(
        "home-through-root", "terminal", "the same through `/proc/1/root` and `..`", "process 1 is the session's own",
        "victim",
        "found = [p for p in ('/proc/1/root', '/proc/self/root', '/proc/self/cwd/../..')"
        " if os.path.exists(p + t['home_file'])]\nreturn [open(p + t['home_file']).read() for p in found]",
    ),
    _read("home-on-host", "terminal", "the same by its path on the host", "host_home_file", "root", _STATE),
    _read("tmp-file", "terminal", "a file of mode 0666 in the other's `/tmp`", "tmp_file", "victim",
          "each session has its own `/tmp`"),
    _read("shm-file", "kernel", "a file of mode 0666 in the other's `/dev/shm`", "shm_file", "victim",
          "each session has its own `/dev/shm`"),
    _read("runtime-file", "terminal", "a file in the other's runtime directory", "runtime_file", "victim", _UID),
    _read("bearer-token", "kernel", "the other's bearer token", "bearer", "victim", _UID),
    Try("connection-files", "kernel", "the connection files (with keys) of the other's kernels", _UID, "victim",
        "return [open(p).read() for p in glob.glob(t['runtime'] + '/jupyter/kernel-*.json')]"),
    Try("session-files", "terminal", "the other's session folder in the state directory", _STATE, "root",
        "return os.listdir(t['host_session'])"),
    _read("scratch-restricted", "terminal", "another experiment's file on scratch", "scratch_file", "victim",
          "group of the scope, enforced by the FUSE mount"),
    _read("scratch-private", "kernel", "a file of the other's own scope on scratch", "private_file", "victim",
          "group of that user"),
    Try("scratch-list", "terminal", "list another experiment's directory on scratch", "mode 2750", "victim",
        "return os.listdir(t['scratch_scope'])"),
    _write("scratch-write", "terminal", "scratch", "scratch_open", "own", "the mount is read-only"),
    Try("scratch-hardlink", "kernel", "hard link of a scratch file into the own home", "another file system",
        "own", "os.link(t['link_from'], t['link_to']); os.unlink(t['link_to']); return True"),
    Try("scratch-symlink", "terminal", "symbolic link in the own home to another experiment's file, then read it",
        "the kernel checks the target", "victim",
        "link = t['link_to']\nos.symlink(t['scratch_file'], link)\ntry: return open(link, 'rb').read(9)\n"
        "finally: os.unlink(link)"),
    _read("storage", "terminal", "a file of a site's storage element", "site_file", "root", _STATE),
    Try("secrets", "terminal", "the box's secrets", _STATE, "root",
        "return [open(p).read() for p in glob.glob(t['state'] + '/secrets/*') if os.path.isfile(p)]"),
    _read("rucio-config", "terminal", "Rucio's configuration (database password)", "rucio_config", "root", _STATE),
    Try("issuer-keys", "kernel", "the issuer's keys and database", _STATE, "root",
        "return [open(p, 'rb').read(1) for p in glob.glob(t['state'] + '/issuer/**', recursive=True)"
        " if os.path.isfile(p)]"),
    _read("hub-database", "kernel", "the hub's database", "hub_database", "root", _STATE),
    _read("hub-cookie-secret", "kernel", "the hub's cookie secret", "hub_cookie", "root", _STATE),
    Try("logs", "terminal", "the platform's logs", _STATE, "root", "return os.listdir(t['state'] + '/logs')"),
    _read("shadow", "terminal", "`/etc/shadow`", "shadow", "root", "not among the few files of `/etc` shown"),
    Try("root-home", "terminal", "list root's home", "not in the session's file system", "root",
        "return os.path.isdir('/root')"),
    _write("environment", "kernel", "the shared environment of a profile", "environment", "root", "read-only bind"),
    _write("kernelspec", "terminal", "the kernel specifications that all users start", "kernels", "root",
           "read-only bind"),
    _write("platform-code", "terminal", "the Lab's and hub's own Python packages", "packages", "root",
           "read-only bind"),
    _write("jupyter-config", "terminal", "the Jupyter configuration that all servers read", "system_config", "root",
           "read-only bind"),
    _write("home-write", "kernel", "the other's `~/.jupyter` and `~/.local`", "home", "victim", _UID),
]  # fmt: skip
