package pkg_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// miniature is the table of the module that TestRulesBite makes.
var miniature = []tier{
	{"F0", []string{"pkg/low", "pkg/gone"}},
	{"F2", []string{"pkg/mid"}},
	{"F5", []string{"edge", "cloud"}},
}

const doc = "// Package x is described.\n"

// TestRulesBite checks that each rule can fail: a module that breaks all of
// them gets one complaint for each, and what is allowed gets none.
func TestRulesBite(t *testing.T) {
	root := t.TempDir()
	for name, source := range map[string]string{
		"go.mod": "module m\n\ngo 1.26\n",
		"pkg/low/low.go": doc + `package low
import (
	"crypto/tls"
	"net/netip"
	"os"
	"time"
	"m/pkg/mid"
)
var _ = tls.VersionTLS13
var table = []string{"a"}
var count int
func F(now time.Time) netip.Addr {
	go mid.F()
	_ = os.Args
	_ = time.Now()
	count++
	table := table
	table[0] = "b"
	return netip.Addr{}
}
`,
		"pkg/low/low_test.go": "package low\nimport (\"os\"; \"m/e2e/lab\")\nvar _, _ = os.Args, lab.X\n",
		"pkg/mid/mid.go":      doc + "package mid\nimport (\"time\"; \"sync\"; \"m/e2e/lab\"; _ \"github.com/apernet/quic-go\")\nvar mu sync.Mutex\nvar pool = sync.Pool{}\nfunc F() { pool.Get(); _ = time.Now(); _ = lab.X; mu.Lock() }\n",
		"pkg/mid/quic.go":     "package mid\nimport _ \"github.com/apernet/quic-go/http3\"\nfunc init() {}\n",
		"pkg/util/util.go":    "package util\n",
		"edge/main.go":        doc + "package main\nimport \"m/cloud\"\nvar p = &cloud.X\nvar flag bool\nfunc main() { set(&flag) }\nfunc set(b *bool) { *b = true }\n",
		"cloud/main.go":       doc + "package main\nimport \"m/pkg/mid\"\n" + strings.Repeat("\n", maxLines) + "func main() { mid.F() }\n",
		"e2e/lab/lab.go":      doc + "package lab\nimport (\"m/cloud\"; \"m/pkg/low\")\nvar X = low.F\nvar _ = cloud.X\n",
		"testdata/x.go":       "package broken(",
		".hidden/x.go":        "package broken(",
	} {
		full := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(source), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := inspect(t, root, miniature)
	want := []string{
		"cloud/main.go has 704 lines: at most 700",
		"edge/main.go imports cloud: edge and cloud never import each other",
		"edge/main.go:6: package variable flag is assigned to",
		"pkg/gone stands in the table but has no Go files: remove it",
		"pkg/low/low.go imports crypto/tls: a package of F0 does no I/O and takes clock and randomness as arguments",
		"pkg/low/low.go imports os: a package of F0 does no I/O and takes clock and randomness as arguments",
		"pkg/low/low.go imports pkg/mid: pkg/mid (F2) is not below pkg/low (F0)",
		"pkg/low/low.go:14: a package of F0 starts no goroutine",
		"pkg/low/low.go:16: time.Now: a package of F0 is told the time",
		"pkg/low/low.go:17: package variable count is assigned to",
		"pkg/mid/mid.go imports e2e/lab, which is for tests",
		"pkg/mid/mid.go, pkg/mid/quic.go import github.com/apernet/quic-go: one file may",
		"pkg/mid/mid.go:4: package variable mu is of type sync.Mutex",
		"pkg/mid/quic.go:3: no init(): what a package needs is passed to it",
		"pkg/util stands on no floor: add it to the table",
		"pkg/util: a package is named after its one job",
		"pkg/util: the package has no package doc",
	}
	for _, complaint := range got {
		if !slices.Contains(want, complaint) {
			t.Errorf("not expected: %s", complaint)
		}
	}
	for _, complaint := range want {
		if !slices.Contains(got, complaint) {
			t.Errorf("missing: %s", complaint)
		}
	}
}
