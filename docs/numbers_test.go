package docs_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// leastFiles are files with what is required and one of each list.
var leastFiles = map[string]string{
	"edge": `{cloud: {key: "CLOUD-PUBLIC-KEY"}, links: [{name: a, interface: up0, cloud: "203.0.113.1:7443", quota: 1GB}],
		steer: {interfaces: [lan0]}, policies: [{name: p}]}`,
	"cloud":       `{edges: [{name: e, key: "EDGE-PUBLIC-KEY", policies: [{name: p}]}]}`,
	"edge-relay":  `{gateway: {address: "203.0.113.1:7444", key: "CLOUD-PUBLIC-KEY"}, forward: [{listen: "127.0.0.1:80", service: s}]}`,
	"cloud-relay": `{services: [{name: s, to: "10.0.0.1:80"}], clients: [{name: c, key: "EDGE-PUBLIC-KEY"}]}`,
}

// TestConfigDefaults: a key that is given the default that docs/config.md tells changes
// nothing.
func TestConfigDefaults(t *testing.T) {
	doc := read(t, "docs/config.md")
	row := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]*`[^|]*) \\|")
	value := regexp.MustCompile("`([^`]+)`")
	seen := 0
	for _, role := range slices.Sorted(maps.Keys(parsers)) {
		own, _, _ := strings.Cut(section(t, doc, "## "+role+".yaml"), "| word |")
		if !strings.HasSuffix(role, "-relay") { // their text names what differs from both files
			own += section(t, doc, "## Both files")
		}
		base := parsed(t, role, "", nil)
		for _, m := range row.FindAllStringSubmatch(own, -1) {
			values := value.FindAllStringSubmatch(m[2], -1)
			text := values[0][1]
			if role == "cloud" && len(values) == 2 { // the edge's, and the cloud's
				text = values[1][1]
			}
			var v any
			if err := yaml.Unmarshal([]byte(text), &v); err != nil {
				t.Fatal(err)
			}
			if seen++; parsed(t, role, m[1], v) != base {
				t.Errorf("%s.yaml: %s is %s by default, says docs/config.md, and that changes something", role, m[1], text)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d defaults: the test reads the wrong place", seen)
	}
}

// parsed is what a least file says with one more key, "" for none.
func parsed(t *testing.T, role, key string, v any) string {
	t.Helper()
	var tree map[string]any
	if err := yaml.Unmarshal([]byte(example(leastFiles[role])), &tree); err != nil {
		t.Fatal(err)
	}
	if key != "" {
		set(tree, strings.Split(key, "."), v)
	}
	text, err := yaml.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parsers[role](role+".yaml", text)
	if err != nil {
		t.Errorf("%s: %v", key, err)
	}
	return plain(cfg)
}

// set gives a key, such as links[].weight, a value; of lists in each element.
func set(node map[string]any, path []string, v any) {
	name, list := strings.CutSuffix(path[0], "[]")
	switch {
	case len(path) == 1:
		node[name] = v
	case list:
		for _, element := range node[name].([]any) {
			set(element.(map[string]any), path[1:], v)
		}
	default:
		if node[name] == nil {
			node[name] = map[string]any{}
		}
		set(node[name].(map[string]any), path[1:], v)
	}
}

// TestNumbers: figures that documents tell are those of the source. Whoever changes one
// changes the other.
func TestNumbers(t *testing.T) {
	const protocol, config, cards = "pkg/wire/PROTOCOL.md", "docs/config.md", "docs/cards.md"
	for _, n := range []struct{ document, says, file, has string }{
		{protocol, "gives a handshake 20 seconds", "pkg/link/dial.go", "DefaultTimeout = 20 * time.Second"},
		{protocol, "0 to 49,152 (before", "pkg/wire/record.go", "MaxBody = 48 << 10"},
		{protocol, "the header block, 1 to 4096 bytes", "pkg/wire/record.go", "MaxBlock = 4096"},
		{protocol, "the first 4 KB of a flow's sealed stream, and small chunks (up to 2 KB)", "scheduler/overdue.go", "UrgentHead = 4 << 10"},
		{protocol, "the first 4 KB of a flow's sealed stream, and small chunks (up to 2 KB)", "scheduler/overdue.go", "urgentSmall = 2 << 10"},
		{protocol, "Flow control windows are 16 MiB for a stream", "pkg/link/quic.go", "quicWindow = 16 << 20"},
		{protocol, "and 17 MiB for the connection", "pkg/link/quic.go", "quicUrgentWindow = 1 << 20"},
		{protocol, "begin with 512 KiB and 640 KiB, or, while more than 32", "pkg/link/listen.go", "quicFirst = 512 << 10 quicFirstUrgent = 128 << 10 quicFew = 32"},
		{protocol, "The idle timeout is 40 seconds", "pkg/link/tcp.go", "userTimeout = 40 * time.Second"},
		{protocol, "if that is one record with at most 2 KB of body and no PING, up to 1 ms later", "pkg/tunnel/strand.go", "ackSmall = 2 << 10"},
		{protocol, "if that is one record with at most 2 KB of body and no PING, up to 1 ms later", "pkg/tunnel/strand.go", "ackDelay = time.Millisecond"},
		{protocol, "for 1 s, or for 200 ms while something is outstanding", "scheduler/health.go", "probeBusy = 200 * time.Millisecond"},
		{protocol, "max(4 rttvar, 10 ms)", "scheduler/estimate.go", "max(4*e.RTTVar(), 10*time.Millisecond)"},
		{protocol, "at least 60 ms, at most 500 ms", "scheduler/health.go", "suspectMin = 60 * time.Millisecond suspectMax = 500 * time.Millisecond"},
		{protocol, "the time of four packets, at most 5 s", "scheduler/health.go", "lagMost = 5 * time.Second // that one may take lagPackets = 4"},
		{protocol, "3 probe time-outs (1 to 3 s", "scheduler/health.go", "probingMin = time.Second probingMax = 3 * time.Second"},
		{protocol, "has heard for 15 s without a pause of 3 s", "pkg/tunnel/onesided.go", "oneSided = 15 * time.Second"},
		{protocol, "has heard for 15 s without a pause of 3 s", "pkg/tunnel/onesided.go", "speechPause = 3 * time.Second"},
		{protocol, "Of more than 128 connections", "pkg/tunnel/bounds.go", "candidatesMost = 128"},
		{protocol, "for 16,384 flows", "pkg/tunnel/bounds.go", "earlyMost = 16 << 10"},
		{protocol, "More than 65,536 ranges", "pkg/tunnel/bounds.go", "gapsMost = 64 << 10"},
		{protocol, "Each side may send 32768 bytes of a new flow's stream", "pkg/tunnel/credit.go", "InitialCredit = 32 << 10"},
		{protocol, "has at most 64 KB that the peer has not consumed, the sender waits with it until they are, for 5 s at most", "pkg/tunnel/linger.go", "lastWords = 64 << 10"},
		{protocol, "has at most 64 KB that the peer has not consumed, the sender waits with it until they are, for 5 s at most", "pkg/tunnel/linger.go", "lingerTime = 5 * time.Second"},
		{protocol, "outlives its last link by 90 s", "pkg/tunnel/session.go", "DefaultLinger = 90 * time.Second"},
		{protocol, "where a link carries as much in 0.4 ms", "pkg/stream/stream.go", "plainTime = 400 * time.Microsecond"},
		{protocol, "the 2^28 + 1st of its epoch, or take it above 2^36 bytes", "pkg/card/keyring.go", "maxRecords = 1 << 28 maxBytes = 1 << 36 maxAge = time.Hour"},
		{protocol, "among the 8 before and the 8 after that", "pkg/card/keyring.go", "const reach = 8"},
		{protocol, "A record that is refused three times", "pkg/relay/relay.go", "attempts = 3"},
		{protocol, "number of services, at most 28", "pkg/config/relay.go", "MostServices = 28"},
		{protocol, "A client makes a new association every hour", "pkg/sealed/dialer.go", "renewal = time.Hour"},
		{protocol, "the last 64,512 numbers", "pkg/sealed/once.go", "blockFlows = 1024"},
		{protocol, "the last 64,512 numbers", "pkg/sealed/once.go", "const blocks = 64"},
		{config, "24 MB of it are for the program itself", "pkg/box/shares.go", "programMemory = 24 << 20"},
		{config, "20 KB for each flow", "pkg/box/shares.go", "flowMemory = 8 << 10"},
		{config, "20 KB for each flow", "pkg/box/shares.go", "flowPieces = 12 << 10"},
		{config, "of the rest five twelfths are for payload, and never less than an eighth", "pkg/box/shares.go", "payloadBytes = 2.4"},
		{config, "of the rest five twelfths are for payload, and never less than an eighth", "pkg/box/shares.go", "payloadLeast = 8"},
		{config, "exceed four times what is for payload", "pkg/tunnel/budget.go", "hard = 4"},
		{config, "a new flow begins with 1 KB", "pkg/tunnel/budget.go", "leastWindow = 1 << 10"},
		{config, "the heap grow by half over what is in use", "pkg/box/ceiling.go", "ceilingPercent = 50"},
		{config, "each lower one keeps a floor of 5 %", "scheduler/drr.go", "floorShare = 0.05"},
		{config, "at most 1024); what none matches", "pkg/config/policy.go", "MaxPolicies = 1024"},
		{config, "(`latency` 100 ms, `privileged` 250 ms, `normal` 1 s)", "scheduler/tier.go",
			"Latency: 100 * time.Millisecond, Privileged: 250 * time.Millisecond, Normal: time.Second, Background: time.Hour"},
		{cards, "gave no result for 500 ms", "pkg/card/guard.go", "DefaultDeadline = 500 * time.Millisecond"},
		{cards, "Jobs of up to 2 KB do not go to the card", "pkg/card/guard.go", "DefaultSmall = 2 << 10"},
		{cards, "tried again after 1 s, doubled up to a minute", "pkg/card/guard.go", "DefaultRetry = time.Second"},
		{cards, "doubled up to a minute", "pkg/card/guard.go", "maxRetry = time.Minute"},
		{cards, "at most 4 in the others", "pkg/relay/relay.go", "DefaultWindow = 4"},
	} {
		if !strings.Contains(flat(read(t, n.document)), n.says) {
			t.Errorf("%s no longer says %q, as %s has %q", n.document, n.says, n.file, n.has)
		}
		if !strings.Contains(flat(read(t, n.file)), n.has) {
			t.Errorf("%s no longer has %q, but %s says %q", n.file, n.has, n.document, n.says)
		}
	}
}

// flat has single spaces between words.
func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// TestSections: the sections of the protocol that code, tests and documents cite are there.
func TestSections(t *testing.T) {
	protocol := read(t, "pkg/wire/PROTOCOL.md")
	var known []string
	for _, m := range regexp.MustCompile(`(?m)^#+ ([0-9]+(?:\.[0-9]+)?)\.? `).FindAllStringSubmatch(protocol, -1) {
		known = append(known, m[1])
	}
	cited := map[string]string{} // to a file
	within := regexp.MustCompile(`(?:RFC [0-9]+ |800-38D )?[Ss]ections? ([0-9]+(?:\.[0-9]+)?)(?: (?:and|to) ([0-9]+(?:\.[0-9]+)?))?`)
	for _, m := range within.FindAllStringSubmatch(flat(protocol), -1) {
		if strings.HasPrefix(m[0], "section") || strings.HasPrefix(m[0], "Section") {
			cited[m[1]], cited[m[2]] = "PROTOCOL.md", "PROTOCOL.md"
		}
	}
	outside := regexp.MustCompile(`PROTOCOL\.md[,;:]? ?(?:\(?sections? )([0-9]+(?:\.[0-9]+)?)(?: (?:and|to) ([0-9]+(?:\.[0-9]+)?))?`)
	err := filepath.WalkDir("..", func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) != ".go" && filepath.Ext(name) != ".md" {
			return err
		}
		data, err := os.ReadFile(name)
		for _, m := range outside.FindAllStringSubmatch(flat(strings.ReplaceAll(string(data), "\n//", "\n")), -1) {
			cited[m[1]], cited[m[2]] = name, name
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(cited, "")
	if len(known) < 20 || len(cited) < 12 {
		t.Fatalf("%d sections, %d are cited: the test reads the wrong place", len(known), len(cited))
	}
	for number, name := range cited {
		if !slices.Contains(known, number) {
			t.Errorf("%s cites section %s of the protocol, which there is not", name, number)
		}
	}
}
