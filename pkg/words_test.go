package pkg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestWordsOf32Bits checks that what is shipped compiles where an int has 32 bits, as in
// many routers of trains and buses: a constant that does not fit stops the build there, which
// nothing built for this machine tells. The packages of others are those of this
// machine's build; to build all of them twice would take minutes.
func TestWordsOf32Bits(t *testing.T) {
	w := newWords(t)
	for _, p := range w.own {
		if err := w.check(p.ImportPath, p.Dir); err != nil {
			t.Errorf("%s: %v", p.ImportPath, err)
		}
	}
	if len(w.own) < 10 {
		t.Errorf("%d packages were checked", len(w.own))
	}
	dir := t.TempDir()
	bad := "package bad\nimport \"math\"\nconst most = 1<<32 - 1\nvar fits, not int = math.MaxInt, most\n"
	if err := os.WriteFile(filepath.Join(dir, "bad.go"), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.check("bad", dir); err == nil {
		t.Error("a constant of more than 32 bits in an int passes")
	}
}

// listed is what the go command says of a package.
type listed struct {
	ImportPath, Dir, Export string
	Module                  *struct{ Main bool }
}

// words type-checks packages as if an int had 32 bits.
type words struct {
	set     *token.FileSet
	context build.Context
	exports types.Importer
	own     []listed // what the programs are made of and is ours
	math    *types.Package
}

func newWords(t *testing.T) *words {
	t.Helper()
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,Module", "./edge", "./cloud")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	w := &words{set: token.NewFileSet(), context: build.Default}
	w.context.GOARCH, w.context.CgoEnabled = "386", false
	files, mathDir := map[string]string{}, ""
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		files[p.ImportPath] = p.Export
		if p.ImportPath == "math" {
			mathDir = p.Dir
		}
		if p.Module != nil && p.Module.Main {
			w.own = append(w.own, p)
		}
	}
	w.exports = importer.ForCompiler(w.set, "gc", func(path string) (io.ReadCloser, error) {
		name, ok := files[path]
		if !ok {
			return nil, fmt.Errorf("%s is no package of the programs", path)
		}
		return os.Open(name)
	})
	// Its MaxInt is what an int holds at most, so that it is not to be had from this machine's build.
	if w.math, err = w.load("math", mathDir); err != nil {
		t.Fatal(err)
	}
	return w
}

// Import implements types.Importer.
func (w *words) Import(path string) (*types.Package, error) {
	if path == "math" && w.math != nil {
		return w.math, nil
	}
	return w.exports.Import(path)
}

func (w *words) check(path, dir string) error {
	_, err := w.load(path, dir)
	return err
}

// load type-checks the package in dir.
func (w *words) load(path, dir string) (*types.Package, error) {
	p, err := w.context.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(w.set, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	c := types.Config{Importer: w, Sizes: types.SizesFor("gc", w.context.GOARCH)}
	return c.Check(path, w.set, files, nil)
}
