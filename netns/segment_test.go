package netns

import (
	"context"
	"slices"
	"strings"
	"testing"
)

// TestOneSegment: a gateway that looks for the addresses of two uplinks in its segment finds
// each at its own interface, whichever answers first.
func TestOneSegment(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	w.in(w.server, "ip link add seg0 type bridge", "ip addr flush dev s0", "ip addr flush dev s1", "ip link set s0 master seg0",
		"ip link set s1 master seg0", "ip addr add 198.18.2.1/24 dev seg0", "ip link set seg0 up")
	w.run("ip addr del 198.18.3.2/24 dev wan1", "ip addr add 198.18.2.20/24 dev wan1")
	before := w.snapshot()
	h := w.install(w.plan)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Watch(ctx, nil) }()
	own := func() {
		t.Helper()
		eventually(t, "the uplinks' settings", func() bool { return answers(t, "wan0") == "1" && answers(t, "wan1") == "1" })
		w.foundAt("198.18.2.2", "wan0")
		w.foundAt("198.18.2.20", "wan1")
	}
	own()
	must(t, writeSysctl(confPath(4, "wan1", "arp_ignore"), "0")) // as a new interface has it
	w.run("ip addr del 198.18.2.20/24 dev wan1", "ip addr add 198.18.2.20/24 dev wan1")
	own()
	cancel()
	must(t, <-ended)
	must(t, h.Close())
	w.unchanged(before, "after Close")
}

func answers(t *testing.T, device string) string {
	t.Helper()
	value, err := readSysctl(confPath(4, device, "arp_ignore"))
	must(t, err)
	return value
}

// foundAt has the server look for an address of the host anew.
func (w *world) foundAt(address, device string) {
	w.t.Helper()
	_, hardware, _ := strings.Cut(output(w.t, "ip -o link show "+device), "link/ether ")
	hardware, _, _ = strings.Cut(hardware, " ")
	w.in(w.server, "ip neigh flush all", "ping -c 1 -W 5 "+address)
	w.in(w.server, "ip neigh show "+address+" | grep -q '"+hardware+"' || { ip neigh; exit 1; }")
}

// TestCrowded: uplinks apart keep their settings.
func TestCrowded(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name  string
		wan1  string // its address
		links func([]LinkRoute) []LinkRoute
		want  []string
	}{
		{name: "apart", wan1: "198.18.3.2/24"},
		{name: "one subnet", wan1: "198.18.2.20/24", want: []string{"wan0", "wan1"}},
		{name: "one within the other", wan1: "198.18.0.20/16", want: []string{"wan0", "wan1"}},
		{name: "one borrows", wan1: ""},
		{name: "an uplink that is not there", wan1: "198.18.2.20/24", links: func(l []LinkRoute) []LinkRoute {
			l[0].Interface = "absent0"
			return l
		}},
		{name: "one gateway", wan1: "198.18.9.2/32", want: []string{"wan0", "wan1"}, links: func(l []LinkRoute) []LinkRoute {
			l[0].Gateway = l[1].Gateway
			return l
		}},
		{name: "two links of one uplink", wan1: "198.18.2.20/24", links: func(l []LinkRoute) []LinkRoute { return l[1:] }},
	} {
		w.run("ip -4 addr flush dev wan1")
		if c.wan1 != "" {
			w.run("ip addr add " + c.wan1 + " dev wan1")
		}
		links := slices.Clone(w.plan.Links)
		if c.links != nil {
			links = c.links(links)
		}
		got, err := crowded(links)
		if must(t, err); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
