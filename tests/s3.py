"""An S3 server of moto in this process. Belongs here: starting it empty. Not here: buckets, objects, expectations."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

from moto.server import ThreadedMotoServer


@contextmanager
def empty_s3() -> Iterator[str]:
    """The server's URL, on the loopback address, while the block runs.

    moto keeps its buckets in the process, not in the server: without the reset a server starts with the buckets of
    whichever test file ran before in the same process.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        url = f"http://{host}:{port}"
        urlopen(f"{url}/moto-api/reset", data=b"", timeout=60).close()
        yield url
    finally:
        server.stop()
