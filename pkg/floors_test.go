// Package pkg_test holds the rules of the source tree as data: on which floor
// each package stands, and what each floor may do.
package pkg_test

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// tier is a set of packages that do not import each other. A package imports
// only packages of tiers above it in the table.
type tier struct {
	floor    string
	packages []string // directories below the module's root
}

// floors is the import order of the module. It is a decision: when this test
// fails, mend the import, not the table.
var floors = []tier{
	{"F0", []string{"pkg/unit", "pkg/party", "pkg/buffer", "pkg/slim", "pkg/proof"}},
	{"F0", []string{"pkg/wire", "pkg/config"}},
	{"F0", []string{"pkg/stream"}},
	{"F1", []string{"scheduler", "pkg/nat64", "pkg/reassembly", "pkg/compress", "pkg/identity", "pkg/bbr", "pkg/guard", "pkg/egress", "pkg/hint", "pkg/quota", "pkg/repair", "pkg/splice", "pkg/procs"}},
	{"F1", []string{"pkg/policy"}},
	{"F2", []string{"pkg/names", "pkg/nonblock", "pkg/park", "pkg/places", "pkg/quiet", "pkg/shield", "pkg/shunt", "pkg/resume"}},
	{"F2", []string{"netns", "pkg/split", "pkg/sock", "pkg/link", "pkg/card", "pkg/keyfile"}},
	{"F3", []string{"pkg/tunnel", "pkg/relay", "pkg/admin"}},
	{"F3", []string{"pkg/metrics", "pkg/sealed"}},
	{"F4", []string{"pkg/box"}},
	{"F4", []string{"edge/agent", "cloud/agent", "pkg/cli", "pkg/gateway"}},
	{"F5", []string{"edge", "cloud"}},
}

// testOnly are packages that no shipped package may import. What lies below
// e2e belongs to the same kind, in any order.
var testOnly = []string{"pkg/simlink"}

// pure floors hold values in, decisions out: no I/O, clock or goroutine.
var pure = []string{"F0", "F1"}

// impureImports are what a pure package does not import: the start of an
// import path, and the packages that may nevertheless.
var impureImports = map[string][]string{
	"os":               nil,
	"net":              nil,
	"syscall":          nil,
	"log":              nil,
	"golang.org/x/sys": nil,
	"math/rand":        nil,
	"crypto/rand":      nil,
	"crypto/tls":       {"pkg/identity"}, // certificates, no connections
	"crypto/x509":      {"pkg/identity"},
}

// harmless imports lie below a path of impureImports and are fine.
var harmless = []string{"net/netip"}

// clockCalls are what a pure package does not call of package time.
var clockCalls = []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"}

// drawerNames say nothing about what is in a package.
var drawerNames = []string{"util", "utils", "common", "types", "helpers", "misc"}

// tolerated are package variables that change, with the reason why they may.
var tolerated = map[string]string{
	"pkg/buffer.live": "counts the bytes of all slabs in use, which is a figure of the process",
}

// quicLibrary is named by one file, so that it can be changed in one place.
const quicLibrary = "github.com/apernet/quic-go"

const maxLines = 700

func TestFloors(t *testing.T) {
	for _, complaint := range inspect(t, "..", floors) {
		t.Error(complaint)
	}
}

// inspect returns what the module below root does against the rules.
func inspect(t *testing.T, root string, table []tier) []string {
	tree := parseTree(t, root)
	c := &checker{tree: tree, rank: map[string]int{}, floor: map[string]string{}}
	for i, tier := range table {
		for _, dir := range tier.packages {
			c.rank[dir], c.floor[dir] = i+1, tier.floor
			if tree.packages[dir] == nil {
				c.complain("%s stands in the table but has no Go files: remove it", dir)
			}
		}
	}
	for _, dir := range tree.dirs() {
		c.check(tree.packages[dir])
	}
	c.quic()
	for _, f := range tree.files {
		c.file(f)
	}
	slices.Sort(c.complaints)
	return c.complaints
}

type checker struct {
	tree       *tree
	rank       map[string]int    // higher imports lower
	floor      map[string]string // by directory
	complaints []string
}

func (c *checker) complain(format string, args ...any) {
	c.complaints = append(c.complaints, fmt.Sprintf(format, args...))
}

func isTest(dir string) bool {
	return slices.Contains(testOnly, dir) || dir == "e2e" || strings.HasPrefix(dir, "e2e/")
}

// check applies the rules to one package, without its tests.
func (c *checker) check(p *goPackage) {
	if slices.Contains(drawerNames, path.Base(p.dir)) {
		c.complain("%s: a package is named after its one job", p.dir)
	}
	if !p.documented() {
		c.complain("%s: the package has no package doc", p.dir)
	}
	if !isTest(p.dir) && c.rank[p.dir] == 0 {
		c.complain("%s stands on no floor: add it to the table", p.dir)
		return
	}
	for _, f := range p.files {
		for _, imported := range f.imports() {
			if dir, ok := c.tree.local(imported); ok {
				c.imports(f, dir)
			}
			if slices.Contains(pure, c.floor[p.dir]) {
				c.impureImport(f, imported)
			}
		}
		if slices.Contains(pure, c.floor[p.dir]) {
			c.impureCode(f)
		}
	}
	c.complaints = append(c.complaints, p.mutableVariables()...)
}

// imports checks one import of another package of the module.
func (c *checker) imports(f *goFile, imported string) {
	importer := f.dir
	switch {
	case isTest(importer):
		return
	case isTest(imported):
		c.complain("%s imports %s, which is for tests", f.name, imported)
	case separate(importer, imported):
		c.complain("%s imports %s: edge and cloud never import each other", f.name, imported)
	case c.rank[imported] >= c.rank[importer]:
		c.complain("%s imports %s: %s (%s) is not below %s (%s)", f.name, imported, imported, c.floor[imported], importer, c.floor[importer])
	}
}

func separate(a, b string) bool {
	a, _, _ = strings.Cut(a, "/")
	b, _, _ = strings.Cut(b, "/")
	return a == "edge" && b == "cloud" || a == "cloud" && b == "edge"
}

func (c *checker) impureImport(f *goFile, imported string) {
	if slices.Contains(harmless, imported) {
		return
	}
	for prefix, except := range impureImports {
		if (imported == prefix || strings.HasPrefix(imported, prefix+"/")) && !slices.Contains(except, f.dir) {
			c.complain("%s imports %s: a package of %s does no I/O and takes clock and randomness as arguments", f.name, imported, c.floor[f.dir])
		}
	}
}

func (c *checker) impureCode(f *goFile) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			c.complain("%s: a package of %s starts no goroutine", f.at(n), c.floor[f.dir])
		case *ast.SelectorExpr:
			if f.names(n.X, "time") && slices.Contains(clockCalls, n.Sel.Name) {
				c.complain("%s: time.%s: a package of %s is told the time", f.at(n), n.Sel.Name, c.floor[f.dir])
			}
		}
		return true
	})
}

// quic counts the files that name the QUIC library.
func (c *checker) quic() {
	var naming []string
	for _, f := range c.tree.files {
		if f.test || isTest(f.dir) {
			continue
		}
		for _, imported := range f.imports() {
			if imported == quicLibrary || strings.HasPrefix(imported, quicLibrary+"/") {
				naming = append(naming, f.name)
			}
		}
	}
	naming = slices.Compact(naming)
	if len(naming) > 1 {
		c.complain("%s import %s: one file may", strings.Join(naming, ", "), quicLibrary)
	}
}

// file applies the rules for every file, tests included.
func (c *checker) file(f *goFile) {
	if f.lines > maxLines {
		c.complain("%s has %d lines: at most %d", f.name, f.lines, maxLines)
	}
	for _, decl := range f.syntax.Decls {
		if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			c.complain("%s: no init(): what a package needs is passed to it", f.at(fn))
		}
	}
}
