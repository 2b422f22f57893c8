"""The whole of a sandbox's /etc: whom a cell runs as, and where localhost is."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_FILES = {
    "/etc/passwd": "root:x:0:0::/:/bin/false\nagent:x:1000:1000::/workspace:/bin/sh\n",
    "/etc/group": "root:x:0:\nagent:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost sandbox\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@contextmanager
def inner_files() -> Iterator[tuple[list[str], list[int]]]:
    """Bubblewrap's options that make these files, and the descriptors that it must inherit."""
    options: list[str] = []
    descriptors: list[int] = []
    with ExitStack() as stack:
        for path, text in _FILES.items():
            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(text.encode())
            file.seek(0)
            descriptors.append(file.fileno())
            options += ["--perms", "0444", "--file", str(file.fileno()), path]
        yield options, descriptors
