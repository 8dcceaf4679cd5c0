package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestCommands: the targets of make, the tests and benchmarks, and their flags that the
// documents tell to run are there.
func TestCommands(t *testing.T) {
	names, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(read(t, "Makefile"), -1)
	known := map[string]bool{}
	for _, m := range targets {
		known[m[1]] = true
	}
	seen := 0
	for _, name := range append(names, "../README.md") {
		text := regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(read(t, filepath.Join("docs", name)), " ")
		for _, m := range regexp.MustCompile("`(?:sudo )?make ([a-z-]+)").FindAllStringSubmatch(text, -1) {
			if seen++; !known[m[1]] {
				t.Errorf("%s: there is no target %s", name, m[1])
			}
		}
		for _, m := range regexp.MustCompile("`(?:[A-Z_]+=[A-Z]+ )?go (?:test|run) \\./([a-z0-9/]+)([^`]*)`").FindAllStringSubmatch(text, -1) {
			seen++
			for _, wrong := range unknown(t, m[1], m[2]) {
				t.Errorf("%s: %s has no %s", name, m[1], wrong)
			}
		}
	}
	if seen < 50 {
		t.Fatalf("only %d commands: the test reads the wrong place", seen)
	}
}

// unknown are the tests, benchmarks and flags of a command that its package does not have.
func unknown(t *testing.T, dir, args string) (wrong []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	if err != nil || len(files) == 0 {
		return []string{"source"}
	}
	source := ""
	var functions []string
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source += string(data)
		for line := range strings.Lines(string(data)) {
			if name, ok := strings.CutPrefix(line, "func "); ok && (strings.HasPrefix(name, "Test") || strings.HasPrefix(name, "Benchmark")) {
				functions = append(functions, name)
			}
		}
	}
	for _, m := range regexp.MustCompile(`-(run|bench) '?([A-Za-z0-9|]+)`).FindAllStringSubmatch(args, -1) {
		for one := range strings.SplitSeq(m[2], "|") {
			if !slices.ContainsFunc(functions, func(f string) bool { return strings.Contains(f, one) }) {
				wrong = append(wrong, one)
			}
		}
	}
	if _, own, ok := strings.Cut(args, "-args"); ok {
		for _, m := range regexp.MustCompile(` -([a-z-]+)`).FindAllStringSubmatch(own, -1) {
			if !strings.Contains(source, `"`+m[1]+`"`) {
				wrong = append(wrong, "flag -"+m[1])
			}
		}
	}
	return wrong
}
