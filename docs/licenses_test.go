package docs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestLicenses: what is installed has the licence text of each module that the programs are
// built of, and Go's own.
func TestLicenses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "licenses")
	if out, err := exec.Command("../scripts/licenses.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	info, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "../edge", "../cloud").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := append(strings.Fields(string(info)), "go")
	if len(modules) < 20 {
		t.Fatalf("only %d modules: the test asks the wrong thing", len(modules))
	}
	for _, module := range modules {
		if found, _ := filepath.Glob(filepath.Join(dir, module, "LICENSE*")); len(found) == 0 {
			t.Errorf("no licence of %s", module)
		} else if b, err := os.ReadFile(found[0]); err != nil || len(b) < 500 {
			t.Errorf("%s: %d bytes, %v", found[0], len(b), err)
		}
	}
	if !strings.Contains(read(t, "Makefile"), "scripts/licenses.sh $(DESTDIR)") {
		t.Error("make install does not install them")
	}
}
