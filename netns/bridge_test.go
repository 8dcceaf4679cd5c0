package netns

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBridgedFramesPass: clients at two ports of a bridge speak to each other past the host,
// also where br_netfilter has iptables see their frames, or comes to do so.
func TestBridgedFramesPass(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for _, when := range []string{"before", "meanwhile"} {
			t.Run(k.name+"/"+when, func(t *testing.T) { bridgedFramesPass(t, newWorld(t, k.sysctls...), k.variant, when == "before") })
		}
	}
}

func bridgedFramesPass(t *testing.T, w *world, v variant, before bool) {
	const call = "net/bridge/bridge-nf-call-"
	if !sysctlExists(call + "iptables") {
		t.Skip("needs br_netfilter: modprobe br_netfilter")
	}
	filter := func(on string) {
		must(t, writeSysctl(call+"iptables", on))
		must(t, writeSysctl(call+"ip6tables", on))
	}
	w.run("ip link add br0 type bridge", "ip addr flush dev lan0", "ip addr flush dev oth0",
		"ip link set lan0 master br0", "ip link set oth0 master br0",
		"ip addr add 198.18.1.1/24 dev br0", "ip addr add fd00:1::1/64 dev br0 nodad", "ip link set br0 up")
	w.in(w.other, "ip addr add 198.18.1.3/24 dev o0", "ip addr add fd00:1::3/64 dev o0 nodad")
	filter("0")
	w.plan.Clients = []string{"br0"}
	w.serve(w.other, "other", 8080)
	beside := []string{"198.18.1.3", "fd00:1::3"}
	for i := range families {
		eventually(t, "the bridge forwarding", func() bool { return w.ping(w.client, beside[i]) })
	}
	if before {
		filter("1")
	}
	h, err := install(w.plan, quiet, v)
	must(t, err)
	defer h.Close()
	newEchoStack(t, h, 1, FanoutSource, true)
	k := keeper{host: h}
	k.look(time.Now())
	if !before {
		filter("1")
		k.look(time.Now())
	}
	for i, e := range families {
		w.asks("client", w.client, bound{}, at(e.server, 80), "stack")
		w.asks("beside", w.client, bound{}, at(beside[i], 8080), "other "+e.client)
		if !w.ping(w.client, beside[i]) {
			t.Errorf("IPv%d: ping beside the host is not answered", e.family)
		}
	}
}

// TestPortOfABridge: what comes in by an interface that is part of a bridge or a bond comes
// in by that for the host, and no rule with the part's own name matches.
func TestPortOfABridge(t *testing.T) {
	w := newWorld(t)
	w.run("ip link add br0 type bridge", "ip link set lan0 master br0", "ip link set br0 up")
	const want = "lan0: that is a part of br0"
	if h, err := Install(w.plan, quiet); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("Install: %v", err)
		if err == nil {
			must(t, h.Close())
		}
	}
	w.run("ip link set wan0 master br0")
	findings := Check(w.plan)
	for _, want := range []Finding{{Level: LevelFail, What: want}, {Level: LevelWarn, What: "wan0: that is a part of br0"}} {
		if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Level == want.Level && strings.Contains(f.What, want.What) }) {
			t.Errorf("check does not tell that %s", want.What)
		}
	}
}
