#!/usr/bin/env bash
# freethreaded.sh DIR: the core of the suite, and the stress test, 15 s for each server and handler, in a Python without a GIL
# (`make test-freethreaded`).
#
# The interpreter is $FREETHREADED, or python3.13t from the path. Otherwise it is built in DIR/python, from Debian's source
# package, as root. That takes about five minutes of two cores, once. DIR/venv has what these tests need: fewer packages
# than `make test` installs, since some of those cannot be built without a GIL. PYTHON_GIL=0 keeps the GIL off, whatever is
# imported.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mkdir -p "${1:?usage: freethreaded.sh DIR}" && cd "$1" && pwd)

build() {
    echo "building a free-threaded Python in $dir/python"
    local work mirror options
    work=$(mktemp -d)
    trap 'rm -rf "$work"' RETURN
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
        grep -oE "(URIs: |deb )\S+" | awk '{print $2}' | grep -v security | head -n 1 || true)
    mkdir -p "$work"/{lists/partial,archives/partial}
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
    options=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
        -o APT::Sandbox::User=root)
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || true
    apt-get -qq install -y --no-install-recommends dpkg-dev build-essential libssl-dev libffi-dev zlib1g-dev \
        libsqlite3-dev libbz2-dev liblzma-dev >/dev/null
    (cd "$work" && apt-get "${options[@]}" -qq update && apt-get "${options[@]}" -qq source --download-only python3.13 &&
        tar xf python3.13_*.orig.tar.xz)
    (cd "$work"/Python-3.13* && ./configure --quiet --disable-gil --prefix="$dir/python" >/dev/null &&
        make -s -j"$(nproc)" >/dev/null 2>&1 && make -s install >/dev/null 2>&1)
}

python=${FREETHREADED:-$(command -v python3.13t || echo "$dir/python/bin/python3.13t")}
[ -x "$python" ] || build
"$python" -c 'import sys, sysconfig; sys.exit(0 if sysconfig.get_config_var("Py_GIL_DISABLED") else f"{sys.executable} has a GIL")'

[ -x "$dir/venv/bin/python" ] || "$python" -m venv "$dir/venv"
# Later versions of hypothesis are written in Rust.
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . \
    pytest pytest-xdist 'hypothesis < 6.140' websockets redis urllib3 gunicorn docutils flask

# pip builds the C modules, and leaves out one that it cannot build.
"$dir/venv/bin/python" -c 'from wsthreads import _native as native; assert native.speedups and native.bridge(), "no C modules"'

export PYTHON_GIL=0
# Without a GIL, sessions are not kept on one core. test_server_support needs gevent, eventlet and Django.
tests="tests/_native tests/protocol tests/sessions tests/rooms tests/threads
    --ignore tests/threads/test_affinity.py --ignore tests/protocol/test_server_support.py ${ARGS:-}"
# shellcheck disable=SC2086  # they are words
"$dir/venv/bin/python" -m pytest -q -n "${JOBS:-5}" --dist loadfile -m "not long and not quiet" $tests
# shellcheck disable=SC2086
"$dir/venv/bin/python" -m pytest -q -m "quiet and not long" $tests
for server in werkzeug gunicorn; do
    for handler in python javascript; do
        "$dir/venv/bin/python" -m tests.stress --seconds "${SECONDS_OF_STRESS:-15}" --clients 30 --rooms 5 \
            --server "$server" --handler "$handler"
    done
done
