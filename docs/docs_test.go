// Package docs_test keeps the documents true: what they list must be what the
// tree holds.
package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/goccy/go-yaml"

	"hawser/pkg/admin"
	"hawser/pkg/config"
)

// read returns a file below the module's root.
func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// section returns the part of a document below a heading, up to the next one
// of its level or above.
func section(t *testing.T, document, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(document, "\n"+heading+"\n")
	if !found {
		t.Fatalf("there is no heading %q", heading)
	}
	next := regexp.MustCompile(fmt.Sprintf("(?m)^#{1,%d} ", strings.IndexByte(heading, ' ')))
	if end := next.FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

// firstCells returns the code spans in the first cells of a text's tables.
func firstCells(text string) (cells []string) {
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(text, -1) {
		cells = append(cells, m[1])
	}
	return cells
}

// compare fails for what only one of two lists has.
func compare(t *testing.T, what string, documented, real []string) {
	t.Helper()
	if len(documented) == 0 || len(real) == 0 {
		t.Fatalf("%s: %d documented, %d real: the test reads the wrong place", what, len(documented), len(real))
	}
	for _, name := range real {
		if !slices.Contains(documented, name) {
			t.Errorf("%s %s is not documented", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(real, name) {
			t.Errorf("%s %s is documented, but there is no such %s", what, name, what)
		}
	}
}

// keys lists a document's keys: "steer.local", "links", "links[].name". Maps
// that hold only other keys are not listed themselves.
func keys(path string, node any) (list []string) {
	switch node := node.(type) {
	case map[string]any:
		for name, value := range node {
			list = append(list, keys(strings.TrimPrefix(path+"."+name, "."), value)...)
		}
	case []any:
		list = append(list, path)
		for _, element := range node {
			if _, ok := element.(map[string]any); ok {
				list = append(list, keys(path+"[]", element)...)
			}
		}
	default:
		list = append(list, path)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// TestConfigKeys compares docs/config.md with the fixtures, which set every
// field (pkg/config tests that).
func TestConfigKeys(t *testing.T) {
	doc := read(t, "docs/config.md")
	for role, parse := range map[string]func(string, []byte) error{
		"edge":        func(name string, data []byte) error { _, err := config.ParseEdge(name, data); return err },
		"cloud":       func(name string, data []byte) error { _, err := config.ParseCloud(name, data); return err },
		"edge-relay":  func(name string, data []byte) error { _, err := config.ParseEdgeRelay(name, data); return err },
		"cloud-relay": func(name string, data []byte) error { _, err := config.ParseCloudRelay(name, data); return err },
	} {
		fixture := read(t, "pkg/config/testdata/"+role+".yaml")
		if err := parse(role+".yaml", []byte(fixture)); err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := yaml.Unmarshal([]byte(fixture), &tree); err != nil {
			t.Fatal(err)
		}
		own, _, _ := strings.Cut(section(t, doc, "## "+role+".yaml"), "| word |")
		documented := append(firstCells(section(t, doc, "## Both files")), firstCells(own)...)
		if strings.HasSuffix(role, "-relay") {
			documented = slices.DeleteFunc(documented, func(key string) bool { return key == "namespace" || strings.HasPrefix(key, "scheduler") })
		}
		compare(t, role+".yaml key", documented, keys("", tree))
	}
}

// TestConfigExamples parses the configuration files that the README shows.
func TestConfigExamples(t *testing.T) {
	key := "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	readme := read(t, "README.md")
	found := regexp.MustCompile("(?s)```yaml\n# /etc/hawser/(edge|cloud).yaml\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(found) != 2 {
		t.Fatalf("the README shows %d configuration files, want 2", len(found))
	}
	for _, m := range found {
		text := regexp.MustCompile(`"[A-Z-]*PUBLIC-KEY"`).ReplaceAllString(m[2], `"`+key+`"`)
		var err error
		if m[1] == "edge" {
			_, err = config.ParseEdge("edge.yaml", []byte(text))
		} else {
			_, err = config.ParseCloud("cloud.yaml", []byte(text))
		}
		if err != nil {
			t.Errorf("in the README: %v", err)
		}
	}
}

// TestStatusFields compares docs/operations.md with the status document.
func TestStatusFields(t *testing.T) {
	doc := read(t, "docs/operations.md")
	for heading, document := range map[string]any{
		"### The box": admin.Status{}, "### Card": admin.Card{}, "### Handshakes": admin.Handshakes{}, "### Memory": admin.Memory{}, "### Sessions": admin.Session{},
		"### Links": admin.Link{}, "### Device": admin.Device{}, "### Lanes": admin.Lane{}, "### Quota": admin.Quota{}, "### Flows": admin.Flows{},
	} {
		var names []string
		typ := reflect.TypeOf(document)
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			names = append(names, name)
		}
		compare(t, "status field of "+heading[4:], firstCells(section(t, doc, heading)), names)
	}
}

// TestCounters compares the counters in docs/operations.md with those that the
// agents fill in.
func TestCounters(t *testing.T) {
	source := read(t, "pkg/box/status.go") + read(t, "pkg/box/guard.go") + read(t, "pkg/box/egress.go")
	var names []string
	for _, m := range regexp.MustCompile(`\bc\["([a-z_]+)"( ?\+ ?code)?\]|"([a-z_]+)":\s+(?:st\.|uint64\()`).FindAllStringSubmatch(source, -1) {
		name := m[1] + m[3]
		if m[2] != "" {
			name += "CODE"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	compare(t, "counter", firstCells(section(t, read(t, "docs/operations.md"), "### Counters")), slices.Compact(names))
}

// TestErrorLines looks for the error lines of the troubleshooting table in the
// source, or in the kernel's errors. An ellipsis stands for what differs from
// case to case.
func TestErrorLines(t *testing.T) {
	source := sources(t) + syscall.ECONNREFUSED.Error()
	lines := firstCells(section(t, read(t, "docs/operations.md"), "## Troubleshooting"))
	if len(lines) < 15 {
		t.Fatalf("only %d error lines are documented", len(lines))
	}
	for _, line := range lines {
		for part := range strings.SplitSeq(line, "...") {
			if part = strings.Trim(part, " "); !strings.Contains(source, part) {
				t.Errorf("no source says %q of the documented line %q", part, line)
			}
		}
	}
}

// sources returns all shipped Go source, without quoting marks, as one text.
func sources(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, top := range []string{"edge", "cloud", "netns", "pkg", "scheduler"} {
		err := filepath.WalkDir(filepath.Join("..", top), func(name string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			data, err := os.ReadFile(name)
			b.Write(data)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return strings.ReplaceAll(b.String(), `\"`, `"`)
}

// TestPackages compares the README's table with the tree and with the floors
// that pkg/floors_test.go lays down.
func TestPackages(t *testing.T) {
	readme := section(t, read(t, "README.md"), "## Packages")
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (F[0-5]|test) \\| `([a-z0-9/-]+)` \\|").FindAllStringSubmatch(readme, -1) {
		documented[m[2]] = m[1]
	}
	var names, listed []string
	for name := range documented {
		listed = append(listed, name)
	}
	err := filepath.WalkDir("..", func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			names = append(names, strings.TrimPrefix(filepath.ToSlash(filepath.Dir(name)), "../"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	compare(t, "package", listed, slices.Compact(names))
	for name, floor := range floors(t) {
		if documented[name] != floor {
			t.Errorf("package %s stands on floor %s, the README says %q", name, floor, documented[name])
		}
	}
}

// floors reads the table of pkg/floors_test.go.
func floors(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, tier := range regexp.MustCompile(`\{"(F[0-5])", \[\]string\{([^}]*)\}\}`).FindAllStringSubmatch(read(t, "pkg/floors_test.go"), -1) {
		for _, name := range regexp.MustCompile(`"([^"]+)"`).FindAllStringSubmatch(tier[2], -1) {
			found[name[1]] = tier[1]
		}
	}
	if len(found) == 0 {
		t.Fatal("no floors found in pkg/floors_test.go")
	}
	return found
}

// anchors returns the names by which a document's headings are linked to.
func anchors(text string) []string {
	var list []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		list = append(list, strings.ReplaceAll(name, " ", "-"))
	}
	return list
}

// TestLinks follows the documents' links to other files of the tree and to
// headings, of which no document has two of one name.
func TestLinks(t *testing.T) {
	names, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for i := range names {
		names[i] = "docs/" + names[i]
	}
	for _, name := range append(names, "README.md", "CHANGELOG.md", "pkg/wire/PROTOCOL.md") {
		text := read(t, name)
		if list := anchors(text); name != "CHANGELOG.md" {
			slices.Sort(list)
			if len(slices.Compact(slices.Clone(list))) != len(list) {
				t.Errorf("%s has two headings of one name", name)
			}
		}
		for _, m := range regexp.MustCompile(`\]\(([^)#:]*)(?:#([^):]+))?\)`).FindAllStringSubmatch(text, -1) {
			target := filepath.Join(filepath.Dir(name), m[1])
			if m[1] == "" {
				target = name
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			} else if m[2] != "" && !slices.Contains(anchors(read(t, target)), m[2]) {
				t.Errorf("%s links to %s, which has no heading %s", name, target, m[2])
			}
		}
	}
}

// TestReadmeIsShort keeps depth out of the README. Its table of packages grows
// with them and does not count.
func TestReadmeIsShort(t *testing.T) {
	text := read(t, "README.md")
	if n := strings.Count(text, "\n") - strings.Count(text, "\n| "); n > 180 {
		t.Errorf("README.md has %d lines beside its tables: at most 180", n)
	}
}

// TestUnitsAllowWhatIsUsed: a unit that narrows the kinds of sockets leaves those
// that its program opens: card.kind kernel takes AF_ALG in all of them, and the interface of a
// link-local address is asked for by AF_NETLINK.
func TestUnitsAllowWhatIsUsed(t *testing.T) {
	for unit, families := range map[string]string{
		"hawser-edge": "UNIX INET INET6 NETLINK PACKET ALG", "hawser-cloud": "UNIX INET INET6 NETLINK PACKET ALG",
		"hawser-edge-relay": "UNIX INET INET6 NETLINK ALG", "hawser-cloud-relay": "UNIX INET INET6 NETLINK ALG",
	} {
		text := read(t, "configs/"+unit+".service")
		want := "\nRestrictAddressFamilies=AF_" + strings.ReplaceAll(families, " ", " AF_") + "\n"
		if !strings.Contains(text, want) {
			t.Errorf("%s.service lacks the line %q", unit, strings.TrimSpace(want))
		}
	}
}

// TestUnitsDoNotGiveUp: ten starts, two seconds apart, were over before a client interface
// that comes late at boot was there, and the agent stayed down.
func TestUnitsDoNotGiveUp(t *testing.T) {
	for _, unit := range []string{"hawser-edge", "hawser-cloud", "hawser-edge-relay", "hawser-cloud-relay"} {
		text := read(t, "configs/"+unit+".service")
		for _, want := range []string{"Restart=on-failure", "StartLimitIntervalSec=0"} {
			if !strings.Contains(text, "\n"+want+"\n") {
				t.Errorf("%s.service lacks the line %q", unit, want)
			}
		}
	}
}
