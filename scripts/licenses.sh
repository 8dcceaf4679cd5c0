#!/bin/bash
# Copies the licence texts of all modules that the programs are built of, and Go's own:
# scripts/licenses.sh DIRECTORY. Each stands below its module's path.
set -euo pipefail

go=${GO:-go}
to=$(realpath -m "${1:?name a directory}")
cd "$(dirname "$0")/.."
shopt -s nullglob

# put copies the texts of one directory.
put() { # NAME DIRECTORY
	local text
	for text in "$2"/{LICENSE,LICENCE,COPYING,NOTICE,PATENTS}*; do
		[ ! -f "$text" ] || install -D -m 644 "$text" "$to/$1/${text##*/}"
	done
}

put go "$("$go" env GOROOT)"
modules=$("$go" list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' ./edge ./cloud | sort -u)
while read -r module dir; do
	put "$module" "$dir"
	[ -d "$to/$module" ] || { echo "licenses: $module has no licence text in $dir" >&2; exit 1; }
done <<<"$modules"
# Parts of a module may come from elsewhere, with a text of their own.
"$go" list -deps -f '{{with .Module}}{{if not .Main}}{{$.ImportPath}} {{$.Dir}}{{end}}{{end}}' ./edge ./cloud | while read -r package dir; do
	put "$package" "$dir"
done
