#!/bin/sh
# Tests on an AddressSanitizer and UBSan build, in a copy of the tree under build/sanitize.
#
# Arguments go to pytest.  Leaks are not looked for: the interpreter never frees all it has.
set -eu
cd "$(dirname "$0")/.."
python=$PWD/.venv/bin/python
copy=build/sanitize
mkdir -p "$copy"
tar -cf - --exclude='*.so' --exclude='__pycache__' --exclude='build' \
    setup.py pyproject.toml README.md Makefile ext tbfast tests | tar -xf - -C "$copy"
if [ -d build/cython ]; then # generated already, and the same for both
    mkdir -p "$copy/build"
    cp -rp build/cython "$copy/build/"
fi
cd "$copy"
TBFAST_SANITIZE=1 "$python" setup.py -q build_ext --inplace --parallel "$(nproc)"

runtime() {
    "${CC:-gcc}" -print-file-name="$1"
}

# PYTHONMALLOC: Python's own arenas would hide overruns.  Death by signal counts as failure.
LD_PRELOAD="$(runtime libasan.so) $(runtime libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:abort_on_error=1 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1:abort_on_error=1 \
    PYTHONMALLOC=malloc PYTHONPATH=$PWD PYTHONDONTWRITEBYTECODE=1 \
    TBFAST_SANITIZE=1 HYPOTHESIS_PROFILE=${HYPOTHESIS_PROFILE:-short} \
    "$python" -m pytest -p no:cacheprovider -m "not interop and not fault_long and not bench" \
    $(ls -d tests/unit tests/property tests/hostile 2>/dev/null) "$@"
