package netns

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestChainsThatDrop: check names chains of nf_tables, as firewalld has them, that drop
// what hawser's own rules have accepted; none of iptables', ahead of which hawser's are.
func TestChainsThatDrop(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	found, err := droppers(hookForward)
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
}
