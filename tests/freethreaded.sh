#!/usr/bin/env bash
# freethreaded.sh DIR: the core of the suite, with the C modules and without, and the stress test, 15 s for each server and
# handler, in a Python without a GIL (`make test-freethreaded`). With SANITIZER=thread: the C modules under ThreadSanitizer.
#
# The interpreter is $FREETHREADED, or python3.13t from the path. Otherwise it is built in DIR/python, from Debian's source
# package, as root. That takes about five minutes of two cores, once; as long again for ThreadSanitizer, in DIR/tsan.
# DIR/venv has what these tests need: fewer packages than `make test` installs, since some of those cannot be built without
# a GIL. PYTHON_GIL=0 keeps the GIL off, whatever is imported.
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$(mkdir -p "${1:?usage: freethreaded.sh DIR}" && cd "$1" && pwd)

# unpack FOLDER: put the sources of CPython there, and install what it needs to be built.
unpack() (
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mirror=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null |
        grep -oE "(URIs: |deb )\S+" | awk '{print $2}' | grep -v security | head -n 1 || true)
    mkdir -p "$1" "$work"/{lists/partial,archives/partial}
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
    options=(-o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- -o Dir::State::lists="$work/lists"
        -o APT::Sandbox::User=root)
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update || true
    apt-get -qq install -y --no-install-recommends dpkg-dev build-essential libssl-dev libffi-dev zlib1g-dev \
        libsqlite3-dev libbz2-dev liblzma-dev >/dev/null
    (cd "$work" && apt-get "${options[@]}" -qq update && apt-get "${options[@]}" -qq source --download-only python3.13)
    tar xf "$work"/python3.13_*.orig.tar.xz --strip-components 1 -C "$1"
)

build() {
    echo "building a free-threaded Python in $dir/python"
    unpack "$dir/sources"
    (cd "$dir/sources" && ./configure --quiet --disable-gil --prefix="$dir/python" >/dev/null &&
        make -s -j"$(nproc)" >/dev/null 2>&1 && make -s install >/dev/null 2>&1)
    rm -rf "$dir/sources"
}

python=${FREETHREADED:-$(command -v python3.13t || echo "$dir/python/bin/python3.13t")}
[ -x "$python" ] || build
"$python" -c 'import sys, sysconfig; sys.exit(0 if sysconfig.get_config_var("Py_GIL_DISABLED") else f"{sys.executable} has a GIL")'

[ -x "$dir/venv/bin/python" ] || "$python" -m venv "$dir/venv"
# Later versions of hypothesis are written in Rust.
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable . \
    pytest pytest-xdist 'hypothesis < 6.140' websockets redis urllib3 gunicorn docutils flask setuptools

# pip builds the C modules, and leaves out one that it cannot build.
"$dir/venv/bin/python" -c 'from wsthreads import _native as native; assert native.speedups and native.bridge(), "no C modules"'

export PYTHON_GIL=0

# sanitize: test the C modules under ThreadSanitizer. It needs an interpreter that is built with it, and addresses that
# are not random. That interpreter is not installed, for it would compile the standard library in a quarter of an hour.
# It has the packages of the venv, and the C modules of a copy of this folder.
sanitize() {
    local tsan=(setarch --addr-no-randomize "$dir/tsan/python")
    if [ ! -x "$dir/tsan/python" ]; then
        echo "building a free-threaded Python with ThreadSanitizer in $dir/tsan"
        unpack "$dir/tsan"
        (cd "$dir/tsan" && export TSAN_OPTIONS=report_bugs=0:detect_deadlocks=0 &&
            setarch --addr-no-randomize ./configure --quiet --disable-gil --with-thread-sanitizer >/dev/null &&
            setarch --addr-no-randomize make -s -j"$(nproc)" >/dev/null 2>&1)
    fi
    PYTHONPATH=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    export PYTHONPATH WSTHREADS_TEST_SCALE=5
    # A socket may be closed before the flusher's thread reads the order to watch it, see `Flusher._watch`.
    { cat "$dir/tsan/Tools/tsan/suppressions_free_threading.txt" && echo race:sock_close; } >"$dir/suppressions.txt"
    # Its deadlock detector aborts if a thread holds more than 64 locks, such as those of a room's members.
    export TSAN_OPTIONS="detect_deadlocks=0:suppressions=$dir/suppressions.txt"
    rm -rf "$dir/tree"
    mkdir "$dir/tree"
    cp -r wsthreads tests examples setup.py setup.cfg pyproject.toml README.rst LICENSE "$dir/tree"
    [ ! -d .hypothesis ] || cp -r .hypothesis "$dir/tree" # its tables of Unicode would take minutes
    cd "$dir/tree"
    find . -name '*.so' -delete
    CFLAGS="-fsanitize=thread -Wno-tsan -g -O1" "${tsan[@]}" setup.py -q build_ext --inplace
    ls wsthreads/_native/_speedups.*.so wsthreads/_native/_bridge.*.so >/dev/null
    # shellcheck disable=SC2086  # they are words
    "${tsan[@]}" -m pytest -q --capture=sys -k "not forked" tests/_native tests/protocol/test_outbox.py \
        tests/protocol/test_writer_threads.py tests/rooms/test_rooms.py tests/javascript/test_bridge.py \
        tests/javascript/test_inbox.py tests/monitoring/test_metrics.py ${ARGS:-}
}
[ "${SANITIZER:-}" != thread ] || { sanitize; exit; }

# core PARALLEL OPTION...: run the core. Without a GIL, sessions are not kept on one core. test_server_support needs
# gevent, eventlet and Django.
core() {
    # shellcheck disable=SC2086  # they are words
    "$dir/venv/bin/python" -m pytest -q "$@" tests/_native tests/protocol tests/sessions tests/rooms tests/threads \
        --ignore tests/threads/test_affinity.py --ignore tests/protocol/test_server_support.py ${ARGS:-}
}
core -n "${JOBS:-5}" --dist loadfile -m "not long and not quiet"
core -m "quiet and not long"
WSTHREADS_PURE_PYTHON=1 core -n "${JOBS:-5}" --dist loadfile -m "not long and not quiet"
for server in werkzeug gunicorn; do
    for handler in python javascript; do
        "$dir/venv/bin/python" -m tests.stress --seconds "${SECONDS_OF_STRESS:-15}" --clients 30 --rooms 5 \
            --server "$server" --handler "$handler"
    done
done
