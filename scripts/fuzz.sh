#!/bin/bash
# Runs each fuzz target of the module for a time: scripts/fuzz.sh [TIME] [PATTERN]
# TIME is Go's notation (default 10s), PATTERN selects targets by name.
set -euo pipefail

cd "$(dirname "$0")/.."
time=${1:-10s}
# Inputs that are new are made smaller for so long. Go's default is a minute, of which nothing
# is left for the search where what is covered differs from run to run.
minimize=20x
pattern=${2:-.}

files=$(grep -rlE --include='*_test.go' '^func Fuzz' cloud e2e edge netns pkg scheduler | sort)
ran=0
failed=()
for dir in $(xargs -n 1 dirname <<<"$files" | sort -u); do
	targets=$(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go | grep -E "$pattern" || true)
	for target in $targets; do
		echo "== ./$dir $target"
		go test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime "$minimize" || failed+=("./$dir $target")
		ran=$((ran + 1))
	done
done
if [ "${#failed[@]}" -gt 0 ]; then
	printf 'failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "$ran fuzz targets, $time each: nothing found"
