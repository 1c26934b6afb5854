#!/bin/sh
# Creates the virtual environment for the Makefile: deploy/bootstrap.sh DIRECTORY
#
# Needs Python >= 3.11 with venv and headers, and a C compiler.  Run as root on a Debian or Ubuntu
# machine it installs what is missing; otherwise it prints what to install and exits with 1.
set -eu

venv=$1
root=$(cd "$(dirname "$0")/.." && pwd)

fail() {
    printf 'tbfast: %s\n' "$1" >&2
    exit 1
}

suitable() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13 /usr/bin/python3; do
        if suitable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

# What this interpreter lacks, as words: venv, headers.
missing_parts() {
    "$1" - <<'END'
import importlib.util, os, sysconfig
for module in ("venv", "ensurepip"):
    if importlib.util.find_spec(module) is None:
        print("venv")
        break
if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("headers")
END
}

# Package names for the missing words; a system Python names its own version.
packages() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    case $(readlink -f "$python") in
    /usr/bin/*) prefix=python$version ;;
    *) prefix=python3 ;;
    esac
    for part in "$@"; do
        case $part in
        venv) echo "$prefix-venv" ;;
        headers) echo "$prefix-dev" ;;
        compiler) echo "gcc libc6-dev" ;;
        esac
    done
}

install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "please install: $* (Debian, Ubuntu: apt-get install $*), then run make again"
    fi
    echo "tbfast: installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq </dev/null
    apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null ||
        fail "apt-get could not install: $*"
}

python=$(find_python)
[ -n "$python" ] || fail "Python 3.11 or newer is needed (Debian 12: apt-get install python3); or set PYTHON="

missing=$(missing_parts "$python")
printf '#include <stdlib.h>\nint main(void) { return 0; }\n' |
    ${CC:-cc} -x c -o /dev/null - 2>/dev/null || missing="$missing compiler"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2046,SC2086  # words are wanted
    install $(packages $missing)
    missing=$(missing_parts "$python")
    [ -z "$missing" ] || fail "$python still lacks: $missing; set PYTHON= to another interpreter"
fi

[ -x "$venv/bin/python" ] && suitable "$venv/bin/python" && "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
    "$python" -m venv --clear "$venv"

# The tree itself is the installed package: import path and command, nothing copied.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
echo "$root" >"$site/tbfast-tree.pth"
cat >"$venv/bin/tbfast" <<END
#!$(cd "$venv" && pwd)/bin/python
import sys

from tbfast.cli.main import main

sys.exit(main())
END
chmod +x "$venv/bin/tbfast"
