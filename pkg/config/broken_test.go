package config

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
)

func base64Of(i int) string {
	var raw [32]byte
	binary.BigEndian.PutUint64(raw[:], uint64(i)+1)
	return base64.StdEncoding.EncodeToString(raw[:])
}

// brokenCase changes one thing in a valid file: old becomes new.
type brokenCase struct {
	old, new string
	want     string
}

const validEdge = `identity: /etc/hawser/edge.key
cloud: {key: "` + keyA + `"}
links:
  - {name: wifi, interface: wlan0, cloud: "203.0.113.10:7443"}
  - name: lte
    interface: wwan0
    gateway: 192.0.2.1
    cloud: "203.0.113.10:7443"
    transport: quic
steer:
  interfaces: [br-lan]
  local: false
  exclude: [10.0.0.0/8]
  ports: [443, 8000-8100]
namespace: hawser
control: /run/hawser/edge.sock
workers: 2
memory: 256MiB
compress: auto
card: {kind: pool, workers: 2, queue: 64, cpus: [0, 1]}
metrics: "127.0.0.1:9477"
`

func TestBrokenEdge(t *testing.T) {
	for _, c := range []brokenCase{
		{"identity:", "idenity:", `edge.yaml:1: "idenity": unknown key; known here: card, cloud, compress, control, handshake, hints, identity, limits, links, memory, metrics, name, namespace, policies, scheduler, state, steer, users, workers`},
		{"    gateway:", "    gatway:", `edge.yaml:7: links[1]: "gatway": unknown key; known here: cloud, gateway, interface, lanes, name, quota, quota_day, tier, transport, trial_seconds, weight`},
		{"transport: quic", "lanes: 2", `edge.yaml:9: links[1].lanes: only TCP links have several: set transport: tcp, or leave lanes out`},
		{"transport: quic", "lanes: 9", `edge.yaml:9: links[1].lanes: "9" is not a number from 1 to 8`},
		{"transport: quic", "trial_seconds: 4", `edge.yaml:9: links[1].trial_seconds: "4" is not a number from 5 to 86400`},
		{"    transport: quic", "    transport: quic\n    trial_seconds: 60", `edge.yaml:10: links[1].trial_seconds: only automatic links try their other transport: set transport: auto, or leave trial_seconds out`},
		{"namespace:", "state: /etc/hawser/../hawser/edge.key\nnamespace:", `edge.yaml:15: state: /etc/hawser/edge.key is what identity names: give it a file of its own, such as /var/lib/hawser/edge.state`},
		{"namespace:", "state: /run/h\nhints: /run/h\nnamespace:", `edge.yaml:15: state: /run/h is what hints names: give it a file of its own, such as /var/lib/hawser/edge.state`},
		{"transport: quic", "quota_day: 3", `edge.yaml:9: links[1].quota_day: stands without a quota: give quota too, such as 50GB`},
		{"transport: quic", "quota: 5kB", `edge.yaml:9: links[1].quota: "5kB" is too little: give at least 1 MB per month`},
		{"transport: quic", "transport: sctp", `edge.yaml:9: links[1].transport: "sctp" is not one of auto, tcp, quic`},
		{"transport: quic", "transport: QUIC", `edge.yaml:9: links[1].transport: "QUIC" is not one of auto, tcp, quic`},
		{"transport: quic", "transport:", `edge.yaml:9: links[1].transport: has no value: give a word or a number, or leave the key out`},
		{"transport: quic", "transport: [quic]", `edge.yaml:9: links[1].transport: expected a word or a number, not a list`},
		{"name: lte", "name: wifi", `edge.yaml:5: links[1].name: "wifi" is already the name of links[0]: give each link its own`},
		{"name: lte", "name: 'l t e'", `edge.yaml:5: links[1].name: "l t e" is not a name: use 1 to 32 letters, digits, '.', '_' or '-', a letter or digit first`},
		{"  - name: lte\n    interface", "  - interface", `edge.yaml:5: links[1].name: missing: give the link a name of its own, such as lte`},
		{"interface: wlan0, ", "", `edge.yaml:4: links[0].interface: missing: name the link's network interface, such as wwan0`},
		{"wlan0", "wlan0-is-far-too-long", `edge.yaml:4: links[0].interface: "wlan0-is-far-too-long" is not the name of a network interface (1 to 15 characters, see ` + "`ip link`)"},
		{"wwan0", "wwan+", `edge.yaml:6: links[1].interface: "wwan+" is not the name of a network interface (1 to 15 characters, see ` + "`ip link`)"},
		{`, cloud: "203.0.113.10:7443"}`, "}", `edge.yaml:4: links[0].cloud: missing: give the cloud's address, such as "203.0.113.10:7443"`},
		{`    cloud: "203.0.113.10:7443"`, "    cloud: 203.0.113.10", `edge.yaml:8: links[1].cloud: "203.0.113.10" has no port: write host:port`},
		{`    cloud: "203.0.113.10:7443"`, "    cloud: 203.0.113.10:74430", `edge.yaml:8: links[1].cloud: "203.0.113.10:74430": "74430" is not a port from 1 to 65535`},
		{`    cloud: "203.0.113.10:7443"`, "    cloud: 203.0.113.300:7443", `edge.yaml:8: links[1].cloud: "203.0.113.300:7443": "203.0.113.300" is neither an IP address nor a host name`},
		{`    cloud: "203.0.113.10:7443"`, "    cloud: 2001:db8::1:7443", `edge.yaml:8: links[1].cloud: "2001:db8::1:7443": an IPv6 address stands in brackets: write [address]:port`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: "[2001:db8::1:7443"`, `edge.yaml:8: links[1].cloud: "[2001:db8::1:7443": a bracket is missing: write [address]:port`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: "[2001:db8::1]"`, `edge.yaml:8: links[1].cloud: "[2001:db8::1]" has no port: write [address]:port`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: [2001:db8::1]:7443`, `edge.yaml:8: not valid YAML: what begins with a bracket needs quotes: write "[address]:port"`},
		{`, cloud: "203.0.113.10:7443"}`, `, cloud: [2001:db8::1]:7443}`, `edge.yaml:4: not valid YAML: what begins with a bracket needs quotes: write "[address]:port"`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: "https://cloud.example.org:7443"`, `edge.yaml:8: links[1].cloud: "https://cloud.example.org:7443": "https://cloud.example.org" is neither an IP address nor a host name`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: 7443`, `edge.yaml:8: links[1].cloud: "7443" is a port alone: write host:port`},
		{`metrics: "127.0.0.1:9477"`, `metrics: [::1]:9477`, `edge.yaml:21: not valid YAML: what begins with a bracket needs quotes: write "[address]:port"`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: "[2001:db8::1]:7443"`, `edge.yaml:7: links[1].gateway: 192.0.2.1 and the link's cloud [2001:db8::1]:7443 are not of one IP version`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: ":7443"`, `edge.yaml:8: links[1].cloud: ":7443" names no host: write host:port, such as 203.0.113.10:7443`},
		{`    cloud: "203.0.113.10:7443"`, `    cloud: 0.0.0.0:7443`, `edge.yaml:8: links[1].cloud: "0.0.0.0:7443" is no address to connect to: give the other end's`},
		{"gateway: 192.0.2.1", "gateway: 192.0.2", `edge.yaml:7: links[1].gateway: "192.0.2" is not an IP address such as 192.0.2.1`},
		{"gateway: 192.0.2.1", "gateway: fe80::1%wwan0", `edge.yaml:7: links[1].gateway: "fe80::1%wwan0": leave out %wwan0: the link's interface is known`},
		{"gateway: 192.0.2.1", "gateway: 127.0.0.1", `edge.yaml:7: links[1].gateway: "127.0.0.1" is no gateway: give the address of the next router on this link`},
		{"interface: wlan0, cloud", "interface: wwan0, gateway: 192.0.2.2, cloud", `edge.yaml:7: links[1].gateway: links[0] leaves by wwan0 to 192.0.2.2, and one interface has one gateway: give the link another interface, such as a macvlan`},
		{"interface: wwan0\n    gateway: 192.0.2.1\n    cloud: \"203.0.113.10:7443\"\n    transport: quic", "interface: wlan0\n    cloud: \"203.0.113.10:7443\"", `edge.yaml:5: links[1]: the same as links[0] but for its name: remove one`},
		{`{key: "` + keyA + `"}`, `{key: "AAEC"}`, "edge.yaml:2: cloud.key: not a public key: paste the 44 characters that the peer's `pubkey` prints"},
		{`{key: "` + keyA + `"}`, `{key: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`, "edge.yaml:2: cloud.key: the key is all zero: paste the 44 characters that the peer's `pubkey` prints"},
		{`{key: "` + keyA + `"}`, `{}`, "edge.yaml:2: cloud.key: missing: paste what `hawser-cloud pubkey` prints on the cloud"},
		{`{key: "` + keyA + `"}`, `"` + keyA + `"`, "edge.yaml:2: cloud: expected keys and values, such as {key: value}, not text"},
		{"[br-lan]", "br-lan", `edge.yaml:11: steer.interfaces: expected a list, such as [first, second], not text`},
		{"[br-lan]", "[]", `edge.yaml:10: steer: steers nothing: name the clients' interfaces in steer.interfaces, or set steer.local: true`},
		{"[br-lan]", "[br-lan, eth1, br-lan]", `edge.yaml:11: steer.interfaces[2]: "br-lan" is already steer.interfaces[0]: remove one`},
		{"local: false", "local: no", `edge.yaml:12: steer.local: "no" is not true or false`},
		{"local: false", "local: 0", `edge.yaml:12: steer.local: expected true or false, not a number`},
		{"  local: false", "  local: false\n  intercept: tpoxy", `edge.yaml:13: steer.intercept: "tpoxy" is not one of hub, tproxy`},
		{"10.0.0.0/8", "10.0.0.1/8", `edge.yaml:13: steer.exclude[0]: "10.0.0.1/8" has bits beyond its length: write 10.0.0.0/8`},
		{"10.0.0.0/8", "10.0.0.0/33", `edge.yaml:13: steer.exclude[0]: "10.0.0.0/33" is not a network such as 10.0.0.0/8 or 2001:db8::/32`},
		{"8000-8100", "8100-8000", `edge.yaml:14: steer.ports[1]: "8100-8000" runs backwards: write 8000-8100`},
		{"[443,", "[0,", `edge.yaml:14: steer.ports[0]: "0" is not a port from 1 to 65535`},
		{"[443,", "[https,", `edge.yaml:14: steer.ports[0]: "https" is not a port from 1 to 65535`},
		{"namespace: hawser", "namespace: ../x", `edge.yaml:15: namespace: "../x" is not a name: use 1 to 32 letters, digits, '.', '_' or '-', a letter or digit first`},
		{"127.0.0.1:9477", "myhost:9477", `edge.yaml:21: metrics: "myhost:9477" is not an address of this host: write 127.0.0.1:port, or :port for every address`},
		{"127.0.0.1:9477", "9477", `edge.yaml:21: metrics: "9477" is a port alone: write 127.0.0.1:port, or :port for every address`},
		{"/run/hawser/edge.sock", "edge.sock", `edge.yaml:16: control: "edge.sock" is not an absolute path`},
		{"/run/hawser/edge.sock", "/" + strings.Repeat("x", 200), `edge.yaml:16: control: the path has 201 characters: the kernel allows 107 for a socket`},
		{"workers: 2\nmemory", "workers: -1\nmemory", `edge.yaml:17: workers: "-1" is not a number from 0 (one per CPU) to 256`},
		{"workers: 2\nmemory", "workers: .inf\nmemory", `edge.yaml:17: workers: ".inf" is not a number from 0 (one per CPU) to 256`},
		{"workers: 2\nmemory", "workers: .nan\nmemory", `edge.yaml:17: workers: ".nan" is not a number from 0 (one per CPU) to 256`},
		{"workers: 2\nmemory", "workers:\nmemory", `edge.yaml:17: workers: has no value: give a word or a number, or leave the key out`},
		{"compress: auto", "compress: |\n  auto", `edge.yaml:19: compress: a block of text is not accepted here: write the value out`},
		{"workers: 2\nmemory", "workers: 2\nworkers: 3\nmemory", `edge.yaml:18: workers: given twice, first in line 17: keep one`},
		{"256MiB", "256 melons", `edge.yaml:18: memory: "256 melons" is not an amount of bytes such as 256MiB or 2GiB`},
		{"256MiB", "1MiB", `edge.yaml:18: memory: "1MiB" is too little: give at least 64.0 MiB`},
		{"compress: auto", "limits: {unused: 0}", `edge.yaml:19: limits.unused: "0" is not a number from 1 to 1048576, or never`},
		{"compress: auto", "compress: &x auto", `edge.yaml:19: compress: an anchor is not accepted here: write the value out`},
		{"compress: auto", "compress: true", `edge.yaml:19: compress: expected a word or a number, not true or false`},
		{"compress: auto", "<<: {compress: auto}", `edge.yaml:19: a key must be a plain word, not a merge key`},
		{"kind: pool", "kind: hsm", `edge.yaml:20: card.kind: "hsm" is not one of auto, inline, pool, kernel`},
		{"kind: pool, workers: 2", "kind: pool, workers: 65", `edge.yaml:20: card.workers: "65" is not a number from 0 to 64 (0: one per relay worker)`},
		{"queue: 64", "queue: 0", `edge.yaml:20: card.queue: "0" is not a number from 1 to 1024`},
		{"queue: 64", "depth: 64", `edge.yaml:20: card: "depth": unknown key; known here: cpus, kind, queue, workers`},
		{"[0, 1]", "[0, -1]", "edge.yaml:20: card.cpus[1]: \"-1\" is not a number from 0 to 1023, as `nproc` and `lscpu` count"},
		{"card: {kind: pool, workers: 2, queue: 64, cpus: [0, 1]}", "card: pool", `edge.yaml:20: card: expected keys and values, such as {key: value}, not text`},
		{"compress: auto", "---\ncompress: auto", `edge.yaml:20: a second YAML document starts here: keep one per file`},
		{"namespace: hawser", "namespace: haw: ser", `edge.yaml:15: not valid YAML: mapping value is not allowed in this context`},
		{"  local: false", "\tlocal: false", `edge.yaml:12: not valid YAML: a tab cannot indent: use spaces`},
		{"[br-lan]", "[br-lan", `edge.yaml:12: not valid YAML: ',' or ']' must be specified`},
		{validEdge, "", `edge.yaml:1: the file is empty: start from the example in configs/`},
		{validEdge, "cloud: {key: \"" + keyA + "\"}\n", `edge.yaml:1: links: missing: list at least one uplink, such as {name: lte, interface: wwan0, cloud: "203.0.113.10:7443"}`},
		{validEdge, "- a\n- b\n", `edge.yaml:1: expected keys and values, such as {key: value}, not a list`},
	} {
		_, err := ParseEdge("edge.yaml", c.apply(t, validEdge))
		c.compare(t, err)
	}
}

const validCloud = `identity: /etc/hawser/cloud.key
listen: ":7443"
edges:
  - {name: train-7, key: "` + keyA + `"}
  - {name: ship-2, key: "` + keyB + `"}
egress:
  mode: hub
  deny: [loopback, link-local, private]
  allow: [10.1.0.0/16]
`

func TestBrokenCloud(t *testing.T) {
	for _, c := range []brokenCase{
		{`":7443"`, `7443`, `cloud.yaml:2: listen: "7443" is a port alone: write ":7443" for every address, or addr:port`},
		{`":7443"`, `"*:7443"`, `cloud.yaml:2: listen: "*:7443": "*" is neither an IP address nor a host name`},
		{"egress:", "metrics: \"127.0.0.1:7443\"\negress:", `cloud.yaml:6: metrics: 127.0.0.1:7443 is what listen takes: give it another port`},
		{"egress:", "metrics: \":7443\"\negress:", `cloud.yaml:6: metrics: :7443 is what listen takes: give it another port`},
		{`":7443"`, `":0"`, `cloud.yaml:2: listen: ":0": "0" is not a port from 1 to 65535`},
		{`":7443"`, `"cloud.example.net:7443"`, `cloud.yaml:2: listen: "cloud.example.net:7443" is not an address of this host: write ":7443" for every address, or addr:port`},
		{`":7443"`, `"224.0.0.1:7443"`, `cloud.yaml:2: listen: "224.0.0.1:7443" is a multicast address: write ":7443" for every address, or addr:port`},
		{`":7443"`, `"255.255.255.255:7443"`, `cloud.yaml:2: listen: "255.255.255.255:7443" is a broadcast address: write ":7443" for every address, or addr:port`},
		{"ship-2", "train-7", `cloud.yaml:5: edges[1].name: "train-7" is already the name of edges[0]: give each edge its own`},
		{keyB, keyA, `cloud.yaml:5: edges[1].key: is already the key of edges[0]: each edge has its own identity`},
		{`, key: "` + keyB + `"`, "", "cloud.yaml:5: edges[1].key: missing: paste what `hawser-edge pubkey` prints on that edge"},
		{"name: ship-2, ", "", `cloud.yaml:5: edges[1].name: missing: give the edge a name of its own, such as train-7`},
		{"mode: hub", "mode: nat", `cloud.yaml:7: egress.mode: "nat" is not one of hub, socket`},
		{"private]", "privat]", `cloud.yaml:8: egress.deny[2]: "privat" is not one of loopback, link-local, private, multicast, nor a network`},
		{"10.1.0.0/16", "10.1.0.0/x", `cloud.yaml:9: egress.allow[0]: "10.1.0.0/x" is not a network such as 10.0.0.0/8 or 2001:db8::/32`},
		{"  allow:", "  permit:", `cloud.yaml:9: egress: "permit": unknown key; known here: allow, deny, limits, mode`},
		{validCloud, "listen: \":1\"\n", `cloud.yaml:1: edges: missing: list at least one edge, such as {name: train-7, key: "..."}`},
	} {
		_, err := ParseCloud("cloud.yaml", c.apply(t, validCloud))
		c.compare(t, err)
	}
}

func (c brokenCase) apply(t *testing.T, valid string) []byte {
	t.Helper()
	if strings.Count(valid, c.old) != 1 {
		t.Fatalf("%q stands %d times in the valid file, want once", c.old, strings.Count(valid, c.old))
	}
	return []byte(strings.Replace(valid, c.old, c.new, 1))
}

func (c brokenCase) compare(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		t.Errorf("%q was accepted, want: %s", c.new, c.want)
		return
	}
	if err.Error() != c.want {
		t.Errorf("%q:\n got %s\nwant %s", c.new, err, c.want)
	}
}

func TestValidFiles(t *testing.T) {
	if _, err := ParseEdge("edge.yaml", []byte(validEdge)); err != nil {
		t.Error(err)
	}
	for what, text := range map[string]string{
		"as it is":        validCloud,
		"marked as UTF-8": "\ufeff" + validCloud,
		"of a version":    "%YAML 1.2\n---\n" + validCloud,
		"with CR LF":      strings.ReplaceAll(validCloud, "\n", "\r\n"),
		"other address":   strings.Replace(validCloud, `":7443"`, "\"192.0.2.1:7443\"\nmetrics: \"127.0.0.1:7443\"", 1),
	} {
		if _, err := ParseCloud("cloud.yaml", []byte(text)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// checkParse holds for any input: an error is one short line that starts with
// the file's name, and a result has its defaults filled.
func checkParse(t *testing.T, data []byte) {
	edge, err := ParseEdge("f.yaml", data)
	checkLine(t, err)
	if err == nil && (len(edge.Links) == 0 || edge.Memory < MinMemory || edge.Identity == "") {
		t.Fatalf("accepted but not filled: %+v", edge)
	}
	cloud, err := ParseCloud("f.yaml", data)
	checkLine(t, err)
	if err == nil && (len(cloud.Edges) == 0 || cloud.Memory < MinMemory || cloud.Listen.Port == 0) {
		t.Fatalf("accepted but not filled: %+v", cloud)
	}
}

func checkLine(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	line := err.Error()
	if !strings.HasPrefix(line, "f.yaml:") || strings.ContainsAny(line, "\n\r") || len(line) > 400 {
		t.Fatalf("not one clear line: %q", line)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(validEdge))
	f.Add([]byte(validCloud))
	f.Add(fixture(f, "edge.yaml"))
	f.Add(fixture(f, "cloud.yaml"))
	for _, s := range []string{"0::", "{0", "*-0", ">\n>", "&{0", "0_", "00A: 0000A", "{\"000\":0000A,", "? a\n: b", "%YAML 1.2\n---\na: 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(checkParse)
}
