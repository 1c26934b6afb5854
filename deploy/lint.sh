#!/bin/sh
# Every static check; stops at the first that fails.  Run through `make lint`.
set -eu
cd "$(dirname "$0")/.."
deploy/packages.sh clang-format:clang-format

step() {
    echo "lint: $*"
    "$@"
}

step ruff check .
step ruff format --check .
step cython-lint ext/tbfast
step clang-format --dry-run -Werror $(find ext/c ext/fuzz -name '*.[ch]' 2>/dev/null)
step mypy --strict tbfast
step lint-imports
