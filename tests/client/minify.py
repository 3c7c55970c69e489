"""Makes wsthreads.min.js of wsthreads.js, with esbuild. Run by `make client`."""

from __future__ import annotations

import subprocess

from tests import npm
from tests.programs import ROOT

SOURCE = ROOT / "wsthreads" / "client" / "wsthreads.js"
MINIFIED = SOURCE.with_name("wsthreads.min.js")

#: The longest time that esbuild may take.
TIMEOUT_S = 60


def minified() -> bytes:
    """What esbuild makes of `SOURCE`. Raises `subprocess.CalledProcessError` if it fails."""
    program = npm.node_modules() / ".bin" / "esbuild"
    options = ["--minify", "--format=esm", "--target=es2022", "--legal-comments=none"]
    made = subprocess.run([program, *options, SOURCE], check=True, capture_output=True, timeout=TIMEOUT_S)
    return b"// Made of wsthreads/client/wsthreads.js by make client.\n" + made.stdout


if __name__ == "__main__":
    MINIFIED.write_bytes(minified())
