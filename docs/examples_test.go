package docs_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"hawser/pkg/config"
)

// parsers read the configuration of each kind.
var parsers = map[string]func(name string, data []byte) (any, error){
	"edge":        func(name string, data []byte) (any, error) { return config.ParseEdge(name, data) },
	"cloud":       func(name string, data []byte) (any, error) { return config.ParseCloud(name, data) },
	"edge-relay":  func(name string, data []byte) (any, error) { return config.ParseEdgeRelay(name, data) },
	"cloud-relay": func(name string, data []byte) (any, error) { return config.ParseCloudRelay(name, data) },
}

// placeholder is what examples have in place of a public key.
var placeholder = regexp.MustCompile(`"[A-Z0-9]+(-[A-Z]+)?-PUBLIC-KEY"`)

// example is the text of an example with different public keys in it.
func example(text string) string {
	keys := []string{"IRnVxgGzVXlRyFNRMHZJd5pNj4Zea5/3OGtNMa7lMz0=", "46aTPoCeQM35RvHlCk85rqSe9yUOSeJ27Q3W9rCzzhA=", "U1Dg8jSoNHHPz7PkqGcqh/Od11758zX2hKOWuXBBrVI="}
	return placeholder.ReplaceAllStringFunc(text, func(string) string {
		key := keys[0]
		keys = keys[1:]
		return `"` + key + `"`
	})
}

// plain is all that a configuration says. An empty list is as good as none, and no bits given
// are all of them.
func plain(cfg any) string {
	return regexp.MustCompile(`Users:\{IPv4:(0|32) IPv6:(0|128)\}`).ReplaceAllString(fmt.Sprintf("%+v", cfg), "Users:{}")
}

// TestExamples: the files in configs can be read, and a key that is commented out there
// shows its default, but for those that have none to show.
func TestExamples(t *testing.T) {
	shown := []string{"name", "hints", "metrics", "policies", "fail_open"} // examples
	commented := regexp.MustCompile(`(?m)^( *)#([a-z_]+):.*$`)
	for kind, parse := range parsers {
		text := example(read(t, "configs/"+kind+".yaml"))
		base, err := parse(kind+".yaml", []byte(text))
		if err != nil {
			t.Errorf("configs: %v", err)
			continue
		}
		lines := commented.FindAllStringSubmatchIndex(text, -1)
		if len(lines) < 3 {
			t.Errorf("configs/%s.yaml: %d keys are commented out: the test reads the wrong place", kind, len(lines))
		}
		for _, l := range lines {
			key := text[l[4]:l[5]]
			with, err := parse(kind+".yaml", []byte(text[:l[3]]+text[l[3]+1:])) // without the "#"
			switch {
			case err != nil:
				t.Errorf("configs: %v", err)
			case !slices.Contains(shown, key) && plain(with) != plain(base):
				t.Errorf("configs/%s.yaml: %s does not show the default", kind, strings.TrimSpace(text[l[0]:l[1]]))
			}
		}
	}
}

// TestReadmeFiles: the whole files that README.md shows can be read.
func TestReadmeFiles(t *testing.T) {
	found := 0
	for _, m := range regexp.MustCompile("(?s)```yaml\n# /etc/hawser/([a-z-]+)\\.yaml\n(.*?)```").FindAllStringSubmatch(read(t, "README.md"), -1) {
		found++
		if _, err := parsers[m[1]](m[1]+".yaml", []byte(example(m[2]))); err != nil {
			t.Errorf("README.md: %v", err)
		}
	}
	if found != 2 {
		t.Errorf("README.md shows %d whole files: the test reads the wrong place", found)
	}
}
