package pkg_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSkippedRunElsewhere: what says that it is left to `make unit` without the race
// detector is among what the Makefile has it run so; and so is what must not allocate, where
// that is not asked with the race detector.
func TestSkippedRunElsewhere(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string][]string{} // by folder, the names of tests
	for _, m := range regexp.MustCompile(`(?m)^\tnice \$\(GO\) test -vet=off -run '([^']+)'((?: \./pkg/\w+)+)$`).FindAllStringSubmatch(string(makefile), -1) {
		for _, dir := range strings.Fields(m[2]) {
			name := strings.TrimPrefix(dir, "./pkg/")
			runs[name] = append(runs[name], strings.Split(m[1], "|")...)
		}
	}
	files, err := filepath.Glob("*/*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	found, function := 0, regexp.MustCompile(`(?m)^func (Test\w+)`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		starts := function.FindAllStringSubmatchIndex(string(text), -1)
		for i, at := range starts {
			end := len(text)
			if i+1 < len(starts) {
				end = starts[i+1][0]
			}
			body := string(text[at[0]:end])
			allocates := strings.Contains(body, "AllocsPerRun") && regexp.MustCompile(`\brace(Enabled|Detector)\b`).MatchString(body)
			if !allocates && !strings.Contains(body, "make "+"unit runs") {
				continue
			}
			found++
			test := string(text[at[2]:at[3]])
			if !slices.Contains(runs[filepath.Dir(name)], test) {
				t.Errorf("%s: %s is not among what the Makefile runs without the race detector", name, test)
			}
		}
	}
	if found == 0 {
		t.Error("no test is left to make unit: this one reads the wrong place")
	}
}
