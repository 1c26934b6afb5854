#!/bin/sh
# Builds and runs every libFuzzer target in ext/fuzz (or those named) for FUZZ_SECONDS each, as many
# at once as there are cores.
#
# New inputs stay in build/fuzz/corpus; a crash is written to build/fuzz and ends the run.
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
out=build/fuzz

if [ "${1:-}" != --one ]; then
    mkdir -p "$out"
    [ $# -gt 0 ] || set -- ext/fuzz/fuzz_*.c
    printf '%s\n' "$@" | xargs -P "$(nproc)" -n 1 deploy/fuzz.sh --one
    exit
fi

source=$2
[ -e "$source" ] || { echo "fuzz: no target $source" >&2; exit 255; }
name=$(basename "$source" .c)
seeds=ext/fuzz/corpus/${name#fuzz_}
dict=ext/fuzz/${name#fuzz_}.dict
mkdir -p "$out/corpus/$name"
# shellcheck disable=SC2046  # one word per file
clang -std=c11 -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer,address,undefined \
    -fno-sanitize-recover=all -Iext/c -o "$out/$name" "$source" $(ls ext/c/*.c) -lm || exit 255
[ -d "$seeds" ] || seeds=
# shellcheck disable=SC2086  # no seeds, no word
"$out/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$out/$name-" $([ -e "$dict" ] && echo "-dict=$dict") \
    "$out/corpus/$name" $seeds >"$out/$name.log" 2>&1 || {
    tail -n 60 "$out/$name.log"
    echo "fuzz: $name failed; the input is $out/$name-*" >&2
    exit 255 # xargs starts no other
}
printf '%s\n' "fuzz: $name for $seconds s" \
    "$(grep -E 'stat::(number_of_executed_units|peak_rss_mb)' "$out/$name.log")"
