package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"hawser/pkg/unit"
)

const (
	keyA = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	keyB = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
)

const minimalEdge = `cloud: {key: "` + keyA + `"}
links:
  - {name: wifi, interface: wlan0, cloud: "203.0.113.10:7443"}
steer:
  interfaces: [br-lan]
`

const minimalCloud = `edges:
  - {name: train-7, key: "` + keyA + `"}
`

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestEdgeFixture(t *testing.T) {
	got, err := ParseEdge("edge.yaml", fixture(t, "edge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	yes := true
	want := &Edge{
		Box: Box{
			Identity: "/srv/edge.key", Namespace: "ropes", Control: "/srv/edge.sock",
			Metrics: Endpoint{Host: "127.0.0.1", Addr: netip.MustParseAddr("127.0.0.1"), Port: 9477},
			Workers: 3, Memory: 512 * unit.MiB, Compress: CompressOff,
			Card:      Card{Kind: CardPool, Workers: 2, Queue: 32, CPUs: []int{0, 1}},
			Scheduler: Scheduler{OrderStrict, DataFIFO, PathECF},
		},
		Name:  "train-7",
		Cloud: Peer{Key: ascending(0)},
		Links: []Link{
			{Name: "wifi", Interface: "wlan0", Gateway: netip.MustParseAddr("2001:db8::1"),
				Cloud:     Endpoint{Host: "2001:db8::10", Addr: netip.MustParseAddr("2001:db8::10"), Port: 7443},
				Transport: TransportTCP, Tier: TierStandby, Weight: 3, Lanes: 4, Quota: 50_000_000_000, QuotaDay: 15},
			{Name: "lte", Interface: "wwan0", Gateway: netip.MustParseAddr("192.0.2.1"),
				Cloud:     Endpoint{Host: "cloud.example.net", Port: 443},
				Transport: TransportQUIC, Weight: 1, Lanes: 1},
			{Name: "sat", Interface: "sat0", Cloud: Endpoint{Host: "203.0.113.10", Addr: netip.MustParseAddr("203.0.113.10"), Port: 7443},
				Weight: 1, Lanes: 1, TrialSeconds: 60},
		},
		Steer: Steer{
			Interfaces: []string{"br-lan", "eth1.20"},
			Local:      true,
			Exclude:    []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("198.51.100.7/32")},
			Ports:      []PortRange{{443, 443}, {8000, 8100}},
			Intercept:  InterceptTPROXY,
			FailOpen:   &yes,
		},
		State:     "/srv/edge.state",
		Hints:     "/srv/hints.jsonl",
		Users:     Users{IPv4: 24, IPv6: 64},
		Handshake: HandshakeZeroWindow,
		Limits:    Limits{Pending: 2000, PendingClient: 100, OpenClient: 3000, Unused: 500, FirstFlight: 8 * unit.KiB, FirstFlights: unit.MiB, SYNFlood: 300},
		Policies: []Policy{
			{Name: "calls", Client: netip.MustParsePrefix("10.1.2.0/24"), Destination: netip.MustParsePrefix("203.0.113.0/24"),
				Ports: []PortRange{{5061, 5061}, {8000, 8100}}, Class: ClassPrivileged, Weight: 4, User: UserAll,
				Guarantee: 2 * unit.Mbit, Limit: 1500 * unit.Mbit, Handshake: HandshakeStrict},
			{Name: "local", Destination: netip.MustParsePrefix("2001:db8::/32"), Weight: 1, Action: ActionDirect},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if path := unset(reflect.ValueOf(*got), "Edge"); path != "" {
		t.Errorf("the fixture leaves %s at its zero value: every field must be exercised", path)
	}
}

func TestCloudFixture(t *testing.T) {
	got, err := ParseCloud("cloud.yaml", fixture(t, "cloud.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := &Cloud{
		Box: Box{
			Identity: "/srv/cloud.key", Namespace: "ropes", Control: "/srv/cloud.sock",
			Metrics: Endpoint{Host: "127.0.0.1", Addr: netip.MustParseAddr("127.0.0.1"), Port: 9477},
			Workers: 4, Memory: 2 * unit.GiB, Compress: CompressOff,
			Card:      Card{Kind: CardKernel, Workers: 4, Queue: 128, CPUs: []int{2, 3}},
			Scheduler: Scheduler{OrderRoundRobin, DataFIFO, PathWeighted},
		},
		Listen: Endpoint{Host: "198.51.100.1", Addr: netip.MustParseAddr("198.51.100.1"), Port: 443},
		Edges: []Client{{Name: "train-7", Key: ascending(0)}, {Name: "ship-2", Key: ascending(32), Limit: 90 * unit.Mbit, Policies: []Policy{{
			Name: "ours", Client: netip.MustParsePrefix("10.1.2.0/24"), Destination: netip.MustParsePrefix("203.0.113.0/24"),
			Ports: []PortRange{{443, 443}}, Class: ClassBackground, Weight: 2, User: UserAll, Guarantee: unit.Mbit, Limit: 5 * unit.Mbit,
		}}}},
		Egress: Egress{
			Mode:   EgressSocket,
			Deny:   append(slices.Clone(networks["private"]), netip.MustParsePrefix("203.0.113.0/24")),
			Allow:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Limits: EgressLimits{EdgeRate: 100, ServerRate: 50, EdgeOpen: 30, ServerOpen: 20, EdgeFlows: 5000, RefusalSeconds: 2, AnswerSeconds: 60},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if path := unset(reflect.ValueOf(*got), "Cloud"); path != "" {
		t.Errorf("the fixture leaves %s at its zero value: every field must be exercised", path)
	}
}

// unset returns the path of the first field that holds a zero value. Of a
// list, one element that sets the field is enough.
func unset(v reflect.Value, path string) string {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type().PkgPath() != reflect.TypeFor[Edge]().PkgPath() {
			break
		}
		for i := range v.NumField() {
			if v.Type() == reflect.TypeFor[Endpoint]() && v.Type().Field(i).Name == "Addr" {
				continue // the zero value means that Host is a DNS name
			}
			if p := unset(v.Field(i), path+"."+v.Type().Field(i).Name); p != "" {
				return p
			}
		}
		return ""
	case reflect.Slice:
		if v.Len() > 0 && v.Type().Elem().Kind() == reflect.Struct && v.Type().Elem().PkgPath() == reflect.TypeFor[Edge]().PkgPath() {
			return unsetInAll(v, path+"[]")
		}
	}
	if v.IsZero() {
		return path
	}
	return ""
}

// unsetInAll returns the first field that no element of a list sets.
func unsetInAll(list reflect.Value, path string) string {
	for f := range list.Type().Elem().NumField() {
		if name := list.Type().Elem().Field(f).Name; strings.HasPrefix(path, "Cloud.") && (name == "Action" || name == "Handshake") {
			continue // the cloud accepts no clients
		}
		p := path
		for i := 0; i < list.Len() && p != ""; i++ {
			p = unset(list.Index(i).Field(f), path+"."+list.Type().Elem().Field(f).Name)
		}
		if p != "" {
			return p
		}
	}
	return ""
}

func ascending(from byte) (key [32]byte) {
	for i := range key {
		key[i] = from + byte(i)
	}
	return key
}

func TestEdgeDefaults(t *testing.T) {
	got, err := ParseEdge("edge.yaml", []byte(minimalEdge))
	if err != nil {
		t.Fatal(err)
	}
	want := Box{Identity: "/etc/hawser/edge.key", Namespace: "hawser", Control: "/run/hawser/edge.sock", Memory: DefaultMemory, Card: Card{Queue: DefaultQueue}}
	if !reflect.DeepEqual(*got.Settings(), want) {
		t.Errorf("got %+v, want %+v", *got.Settings(), want)
	}
	if l := got.Links[0]; l.Transport != TransportAuto || l.Gateway.IsValid() {
		t.Errorf("got link %+v, want transport auto and no gateway", l)
	}
	if s := got.Steer; s.Local || len(s.Exclude)+len(s.Ports) != 0 || s.Intercept != InterceptHub {
		t.Errorf("got %+v, want only interfaces and the hub", s)
	}
}

// TestTranslatedGateway: an IPv6 router may lead to an IPv4 cloud, by NAT64.
func TestTranslatedGateway(t *testing.T) {
	text := strings.Replace(minimalEdge, "interface: ", "gateway: \"fe80::1\", interface: ", 1)
	got, err := ParseEdge("edge.yaml", []byte(text))
	if err != nil || got.Links[0].Gateway.String() != "fe80::1" || !got.Links[0].Cloud.Addr.Is4() {
		t.Errorf("%v from\n%s", err, text)
	}
}

func TestCloudDefaults(t *testing.T) {
	got, err := ParseCloud("cloud.yaml", []byte(minimalCloud))
	if err != nil {
		t.Fatal(err)
	}
	want := Box{Identity: "/etc/hawser/cloud.key", Namespace: "hawser", Control: "/run/hawser/cloud.sock", Memory: DefaultMemory, Card: Card{Queue: DefaultQueue}}
	if !reflect.DeepEqual(*got.Settings(), want) {
		t.Errorf("got %+v, want %+v", *got.Settings(), want)
	}
	if s := got.Listen.String(); s != ":7443" {
		t.Errorf("listen = %q, want :7443", s)
	}
	if got.Egress.Mode != EgressHub || got.Egress.Allows(netip.MustParseAddr("10.0.0.1")) {
		t.Errorf("got %+v, want mode hub and private networks denied", got.Egress)
	}
	if n := got.Egress.Limits.AnswerSeconds; n != 20 {
		t.Errorf("servers have %d s to answer, want 20", n)
	}
	open, err := ParseCloud("cloud.yaml", []byte(minimalCloud+"egress: {deny: []}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if !open.Egress.Allows(netip.MustParseAddr("10.0.0.1")) {
		t.Error("an empty egress.deny still denies a private address")
	}
}

// TestPublicContract parses the two files as the documentation shows them,
// with keys in place of the placeholders.
func TestPublicContract(t *testing.T) {
	edge := `
identity: /etc/hawser/edge.key
cloud: {key: "` + keyA + `"}
links:
  - {name: wifi, interface: wlan0, cloud: "203.0.113.10:7443"}                      # transport: auto
  - {name: lte,  interface: wwan0, gateway: 192.0.2.1, cloud: "203.0.113.10:7443", transport: quic}   # auto | tcp | quic
steer:
  interfaces: [br-lan]        # where clients are
  local: false                # also steer connections that this host itself opens
  exclude: [10.0.0.0/8]       # destinations left alone
  ports: []                   # empty = all TCP ports
namespace: hawser
control: /run/hawser/edge.sock
`
	cloud := `
identity: /etc/hawser/cloud.key
listen: ":7443"               # one number: TCP and UDP (QUIC)
edges:
  - {name: train-7, key: "` + keyA + `"}
egress: {mode: hub, deny: [loopback, link-local, private], allow: []}    # hub | socket
namespace: hawser
control: /run/hawser/cloud.sock
`
	if _, err := ParseEdge("edge.yaml", []byte(edge)); err != nil {
		t.Error(err)
	}
	if _, err := ParseCloud("cloud.yaml", []byte(cloud)); err != nil {
		t.Error(err)
	}
}

// TestExamples parses the commented example files that are shipped.
func TestExamples(t *testing.T) {
	for _, name := range []string{"edge.yaml", "cloud.yaml"} {
		data, err := os.ReadFile(filepath.Join("..", "..", "configs", name))
		if err != nil {
			t.Fatal(err)
		}
		filled := []byte(strings.ReplaceAll(string(data), "BASE64-PUBLIC-KEY", keyA))
		uncommented := uncomment(string(filled))
		for what, text := range map[string][]byte{"as shipped": filled, "with the optional keys": []byte(uncommented)} {
			switch name {
			case "edge.yaml":
				_, err = ParseEdge(name, text)
			default:
				_, err = ParseCloud(name, text)
			}
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		if strings.Count(uncommented, "\n") != strings.Count(string(filled), "\n") || uncommented == string(filled) {
			t.Errorf("%s: no optional key stands in a comment", name)
		}
	}
}

// uncomment turns "#key: value" lines into live ones; prose has "# ".
func uncomment(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		if len(l) > 1 && l[0] == '#' && l[1] != ' ' && l[1] != '#' {
			lines[i] = l[1:]
		}
	}
	return strings.Join(lines, "\n")
}

func TestLimits(t *testing.T) {
	for name, c := range map[string]struct{ data, want string }{
		"size":     {strings.Repeat("#", MaxFile+1), "f:1: the file has 262145 bytes: at most 262144 are read"},
		"binary":   {"links: \x00\xff", "f:1: not a text file: configuration is YAML in UTF-8"},
		"Latin-1":  {"# a\r\n\nname: caf\xe9\n", "f:3: not a text file: configuration is YAML in UTF-8"},
		"brackets": {"links: " + strings.Repeat("[", 40), "f:1: not a configuration: lists or brackets are nested 40 deep"},
		"dashes":   {strings.Repeat("- ", 40), "f:1: not a configuration: lists or brackets are nested 40 deep"},
	} {
		if _, err := ParseEdge("f", []byte(c.data)); err == nil || err.Error() != c.want {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	ruler := "# " + strings.Repeat("-", 70) + "\n"
	if _, err := ParseEdge("f", []byte(ruler+minimalEdge)); err != nil {
		t.Errorf("a ruler of dashes in a comment: %v", err)
	}
}

func TestManyEdges(t *testing.T) {
	var b strings.Builder
	b.WriteString("edges:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "  - {name: e%d, key: \"%s\"}\n", i, base64Of(i))
	}
	c, err := ParseCloud("cloud.yaml", []byte(b.String()))
	if err != nil || len(c.Edges) != 1000 {
		t.Fatalf("got %v, %v", c, err)
	}
}

func TestEndpointString(t *testing.T) {
	for _, s := range []string{"203.0.113.10:7443", "[2001:db8::10]:443", "cloud.example.net:1"} {
		e, err := parseRemote(s)
		if err != nil || e.String() != s {
			t.Errorf("parseRemote(%q) = %q, %v", s, e, err)
		}
		if ap, ok := e.AddrPort(); ok && ap.String() != s || ok == strings.HasPrefix(s, "cloud") {
			t.Errorf("%q: AddrPort = %v, %v", s, ap, ok)
		}
	}
	if e, err := parseRemote("[::ffff:203.0.113.10]:1"); err != nil || e.String() != "203.0.113.10:1" {
		t.Errorf("mapped address: got %q, %v", e, err)
	}
	if s := (PortRange{8000, 8100}).String() + (PortRange{443, 443}).String(); s != "8000-8100443" {
		t.Errorf("port ranges print as %q", s)
	}
	if s := TransportQUIC.String() + CompressOff.String() + EgressSocket.String() + Transport(9).String(); s != "quicoffsocketinvalid" {
		t.Errorf("enumerations print as %q", s)
	}
}

// TestNever: what the word stands for is told from what is left out.
func TestNever(t *testing.T) {
	for text, want := range map[string][2]int{
		"{unused: never}":    {NoUnused, DefaultSYNFlood},
		"{syn_flood: never}": {DefaultUnused, NoSYNFlood},
	} {
		e, err := ParseEdge("edge.yaml", []byte("limits: "+text+"\n"+minimalEdge))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := [2]int{e.Limits.Unused, e.Limits.SYNFlood}; got != want {
			t.Errorf("%s gives %v, want %v", text, got, want)
		}
	}
}
