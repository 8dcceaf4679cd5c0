package pkg_test

import (
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mapped is how many files a package has at least whose documentation must say what is in
// which; others may.
const mapped = 16

// listOfFiles is the heading of the list in a package's documentation.
const listOfFiles = "# Files\n"

// mapEntry is what a line of the list says of one or several files: names without ".go".
var mapEntry = regexp.MustCompile(`(?:^|; )(\w+(?:, \w+)*): `)

// TestFileMaps compares the files of large packages with the list of them in the package's
// documentation: who reads a package for the first time begins there.
func TestFileMaps(t *testing.T) {
	tr, maps := parseTree(t, ".."), 0
	for _, dir := range tr.dirs() {
		if strings.HasPrefix(dir, "e2e") {
			continue
		}
		if p := tr.packages[dir]; len(p.own()) >= mapped || strings.Contains(p.doc(), listOfFiles) {
			maps++
			p.checkMap(t)
		}
	}
	if maps < 10 {
		t.Errorf("%d packages have a list of their files", maps)
	}
}

// own returns the package's files but those that are generated.
func (p *goPackage) own() []*goFile {
	return slices.DeleteFunc(slices.Clone(p.files), func(f *goFile) bool { return ast.IsGenerated(f.syntax) })
}

// doc returns the package's documentation.
func (p *goPackage) doc() string {
	for _, f := range p.files {
		if f.syntax.Doc != nil {
			return f.syntax.Doc.Text()
		}
	}
	return ""
}

func (p *goPackage) checkMap(t *testing.T) {
	var named, files []string
	for _, f := range p.own() {
		name := strings.TrimSuffix(path.Base(f.name), ".go")
		files = append(files, name)
		if f.syntax.Doc != nil {
			named = append(named, name) // it is where the reader is
		}
	}
	_, list, _ := strings.Cut(p.doc(), listOfFiles)
	for _, item := range strings.Split(list, "\n  - ")[1:] {
		item, _, _ = strings.Cut(item, "\n\n")
		for _, m := range mapEntry.FindAllStringSubmatch(strings.Join(strings.Fields(item), " "), -1) {
			named = append(named, strings.Split(m[1], ", ")...)
		}
	}
	for _, f := range files {
		if !slices.Contains(named, f) {
			t.Errorf("%s/%s.go is not in the package documentation's list under \"# Files\": say there what is in it", p.dir, f)
		}
	}
	for _, n := range named {
		if !slices.Contains(files, n) {
			t.Errorf("%s: the package documentation lists %s.go, which is not there", p.dir, n)
		}
	}
}
