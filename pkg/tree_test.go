package pkg_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// tree is the parsed source of a module.
type tree struct {
	module   string
	packages map[string]*goPackage // by directory; without tests
	files    []*goFile             // all, in the order of their names
}

type goPackage struct {
	dir   string
	files []*goFile
}

type goFile struct {
	name, dir string // below the module's root, with slashes
	test      bool
	lines     int
	set       *token.FileSet
	syntax    *ast.File
}

func parseTree(t *testing.T, root string) *tree {
	t.Helper()
	tr := &tree{module: moduleName(t, root), packages: map[string]*goPackage{}}
	set := token.NewFileSet()
	err := filepath.WalkDir(root, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && full != root && (name == "testdata" || name == "vendor" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parseFile(set, root, full)
		if err != nil {
			return err
		}
		tr.add(f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func moduleName(t *testing.T, root string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	name, ok := strings.CutPrefix(strings.SplitN(string(data), "\n", 2)[0], "module ")
	if !ok {
		t.Fatal("go.mod does not start with the module's name")
	}
	return strings.TrimSpace(name)
}

func parseFile(set *token.FileSet, root, full string) (*goFile, error) {
	source, err := os.ReadFile(full)
	if err != nil {
		return nil, err
	}
	syntax, err := parser.ParseFile(set, full, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	name, err := filepath.Rel(root, full)
	if err != nil {
		return nil, err
	}
	return &goFile{
		name: filepath.ToSlash(name), dir: filepath.ToSlash(filepath.Dir(name)), test: strings.HasSuffix(name, "_test.go"),
		lines: bytes.Count(source, []byte("\n")), set: set, syntax: syntax,
	}, nil
}

func (tr *tree) add(f *goFile) {
	tr.files = append(tr.files, f)
	if f.test {
		return
	}
	p := tr.packages[f.dir]
	if p == nil {
		p = &goPackage{dir: f.dir}
		tr.packages[f.dir] = p
	}
	p.files = append(p.files, f)
}

func (tr *tree) dirs() []string { return slices.Sorted(maps.Keys(tr.packages)) }

// local returns the directory of a package of this module.
func (tr *tree) local(imported string) (dir string, ok bool) {
	return strings.CutPrefix(imported, tr.module+"/")
}

func (f *goFile) imports() []string {
	paths := make([]string, len(f.syntax.Imports))
	for i, spec := range f.syntax.Imports {
		paths[i], _ = strconv.Unquote(spec.Path.Value)
	}
	return paths
}

// at returns "file:line" of a node.
func (f *goFile) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(n.Pos()).Line)
}

// names reports whether x is the name under which f imports path.
func (f *goFile) names(x ast.Expr, path string) bool {
	id, ok := x.(*ast.Ident)
	if !ok || id.Obj != nil { // an object of that name hides the package
		return false
	}
	for _, spec := range f.syntax.Imports {
		if spec.Path.Value != strconv.Quote(path) {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name == id.Name
		}
		return path[strings.LastIndexByte(path, '/')+1:] == id.Name
	}
	return false
}

func (p *goPackage) documented() bool {
	return slices.ContainsFunc(p.files, func(f *goFile) bool { return f.syntax.Doc.Text() != "" })
}

// mutableVariables finds package variables that change: those of a kind that
// is made to, and those that are assigned to or whose address is taken. A pool
// is no state.
func (p *goPackage) mutableVariables() (complaints []string) {
	watched := map[string]bool{}
	for _, f := range p.files {
		for _, spec := range f.variables() {
			kind := kindOf(spec)
			for _, name := range spec.Names {
				watched[name.Name] = name.Name != "_" && kind != "sync.Pool" && tolerated[p.dir+"."+name.Name] == ""
				if watched[name.Name] && (strings.HasPrefix(kind, "sync.") || strings.HasPrefix(kind, "atomic.")) {
					complaints = append(complaints, fmt.Sprintf("%s: package variable %s is of type %s", f.at(name), name.Name, kind))
				}
			}
		}
	}
	for _, f := range p.files {
		for _, id := range f.assigned() {
			if watched[id.Name] && f.global(id) {
				complaints = append(complaints, fmt.Sprintf("%s: package variable %s is assigned to", f.at(id), id.Name))
			}
		}
	}
	return complaints
}

func (f *goFile) variables() (specs []*ast.ValueSpec) {
	for _, decl := range f.syntax.Decls {
		if group, ok := decl.(*ast.GenDecl); ok && group.Tok == token.VAR {
			for _, spec := range group.Specs {
				specs = append(specs, spec.(*ast.ValueSpec))
			}
		}
	}
	return specs
}

// kindOf returns the name of a declaration's type, as far as it is written.
func kindOf(spec *ast.ValueSpec) string {
	if spec.Type == nil && len(spec.Values) > 0 {
		if literal, ok := spec.Values[0].(*ast.CompositeLit); ok {
			return typeName(literal.Type)
		}
	}
	return typeName(spec.Type)
}

func typeName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return typeName(x.X) + "." + x.Sel.Name
	case *ast.IndexExpr:
		return typeName(x.X)
	}
	return ""
}

// assigned returns the identifiers at the root of what the file's functions
// assign to.
func (f *goFile) assigned() (ids []*ast.Ident) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		var targets []ast.Expr
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				targets = n.Lhs
			}
		case *ast.IncDecStmt:
			targets = []ast.Expr{n.X}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				if id, ok := n.X.(*ast.Ident); ok { // whoever holds the pointer may assign
					targets = []ast.Expr{id}
				}
			}
		}
		for _, target := range targets {
			if id := root(target); id != nil {
				ids = append(ids, id)
			}
		}
		return true
	})
	return ids
}

func root(x ast.Expr) *ast.Ident {
	for {
		switch e := x.(type) {
		case *ast.Ident:
			return e
		case *ast.SelectorExpr:
			x = e.X
		case *ast.IndexExpr:
			x = e.X
		case *ast.StarExpr:
			x = e.X
		case *ast.ParenExpr:
			x = e.X
		default:
			return nil
		}
	}
}

// global reports whether an identifier means a package variable: one that the
// parser has found at the top of this file, or not found in it at all.
func (f *goFile) global(id *ast.Ident) bool {
	return id.Obj == nil || f.syntax.Scope.Lookup(id.Name) == id.Obj
}
