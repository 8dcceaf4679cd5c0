package netns

import (
	"bytes"
	"log/slog"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestChainsThatDrop: check names chains of nf_tables, as firewalld has them, that drop
// what hawser's own rules have accepted; none of iptables', ahead of which hawser's are.
func TestChainsThatDrop(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	found, err := droppers(hookForward, hubHost)
	must(t, err)
	if !strings.Contains(output(t, "iptables --version"), "nf_tables") {
		t.Skip("iptables keeps its rules elsewhere")
	}
	for _, family := range []string{"ip", "ip6"} {
		if !slices.Contains(found, baseChain{family, "filter", "FORWARD"}) {
			t.Errorf("%s: iptables -P FORWARD DROP is not seen in %v", family, found)
		}
	}
	told := func(p Plan) (chains []string) {
		for _, f := range Check(p) {
			if name, ok := strings.CutPrefix(f.What, "the chain "); ok && f.Level == LevelWarn && f.Remedy != "" {
				name, _, _ = strings.Cut(name, " of nf_tables drops")
				chains = append(chains, name)
			}
		}
		return chains
	}
	if chains := told(w.plan); len(chains) > 0 {
		t.Errorf("of iptables' own: %q", chains)
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the rest needs nft: apt-get install nftables")
	}
	w.run("nft add table inet fw", "nft add chain inet fw forwarded '{ type filter hook forward priority 10; policy drop; }'",
		"nft add chain inet fw taken '{ type filter hook input priority 10; policy drop; }'",
		"nft add chain inet fw open '{ type filter hook forward priority 20; policy accept; }'")
	for kind, want := range map[string]string{RoleEdge: "inet fw forwarded", RoleCloud: "inet fw forwarded", InterceptTPROXY: "inet fw taken"} {
		if chains := told(w.planOf(kind)); !slices.Equal(chains, []string{want}) {
			t.Errorf("%s: told of %q, want %s", kind, chains, want)
		}
	}
	w.run("nft flush chain inet fw forwarded", "nft add table inet fd",
		"nft add chain inet fd rest '{ type filter hook forward priority 10; policy accept; }'",
		"nft add rule inet fd rest iifname lo accept", "nft add rule inet fd rest ip daddr 192.0.2.1 drop")
	if chains := told(w.plan); !slices.Equal(chains, []string{"inet fw forwarded"}) {
		t.Errorf("of a chain that drops one address: %q", chains)
	}
	for _, last := range []string{"counter drop", "reject with icmpx admin-prohibited"} {
		w.run("nft add rule inet fd rest " + last)
		if chains := told(w.plan); !slices.Contains(chains, "inet fd rest") {
			t.Errorf("of a chain that ends with %s: %q", last, chains)
		}
		w.run("nft add rule inet fd rest ip daddr 192.0.2.1 accept") // no longer the last one
	}
	w.run("nft add rule inet fd rest reject", "nft add chain inet fd zone", "nft add rule inet fd zone oifname hub0 accept",
		"nft add set inet fw many '{ type ipv6_addr; }'", "nft add element inet fw many '{ fd00::1 }'",
		"nft add rule inet fw forwarded iifname '{ lan0, hub0 }' accept")
	if chains := told(w.plan); len(chains) > 0 {
		t.Errorf("of chains that somebody has taught hub0: %q", chains)
	}
}

// TestStanding: what nf_tables itself says of our chains is what iptables would say.
func TestStanding(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	h := w.install(w.plan)
	for _, fw := range h.walls {
		if !fw.nft {
			t.Skip("iptables keeps its rules elsewhere")
		}
		var mine []step
		for _, s := range h.kept {
			if e := s.undo[0]; e.Family == fw.family && (e.Do == undoChain || e.Do == undoJump) {
				mine = append(mine, s)
			}
		}
		if len(mine) < 4 {
			t.Fatalf("only %d steps are looked at", len(mine))
		}
		if !standing(fw.family, mine) {
			t.Fatalf("IPv%d: something is missing in what Install has made", fw.family)
		}
		for _, s := range mine {
			e := s.undo[0]
			if e.Do == undoJump {
				must(t, fw.Delete(e.Table, e.Chain, e.Rule...))
			} else {
				must(t, fw.Delete(e.Table, e.Chain, "1"))
			}
			if standing(fw.family, mine) {
				t.Errorf("it is not seen that this has gone: %s", s.what)
			}
			must(t, s.do())
			if !standing(fw.family, mine) {
				t.Fatalf("put back, and not seen: %s", s.what)
			}
		}
	}
}

// TestFirewallThatRefuses: a firewall that is switched on while an agent runs, and drops what
// clients send, is named in the log, once; one that is there for a moment is not.
func TestFirewallThatRefuses(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft: apt-get install nftables")
	}
	w := newWorld(t)
	var log bytes.Buffer
	h, err := Install(w.plan, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	must(t, err)
	defer func() { must(t, h.Close()) }()
	k, now := keeper{host: h}, time.Now()
	look := func(after time.Duration) {
		now = now.Add(after)
		k.next = now
		k.look(now)
	}
	add := []string{"nft add table inet fw", "nft add chain inet fw passing '{ type filter hook forward priority 10; policy drop; }'"}
	w.run(add...)
	look(0)
	w.run("nft delete table inet fw")
	look(keepDoubt)
	w.run(add...)
	if look(0); log.Len() > 0 {
		t.Errorf("of a chain that has just come: %s", &log)
	}
	for range 2 {
		look(keepDoubt)
	}
	if n := strings.Count(log.String(), "inet fw passing"); n != 1 || !strings.Contains(log.String(), "a firewall of this host drops") {
		t.Errorf("%d lines of a chain that stays:\n%s", n, &log)
	}
	w.run("nft delete table inet fw")
}
