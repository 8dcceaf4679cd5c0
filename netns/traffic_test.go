package netns

import (
	"net/netip"
	"testing"
)

// TestTraffic: the counters are those of the links' interfaces, which may be
// missing.
func TestTraffic(t *testing.T) {
	w := newWorld(t)
	w.plan.Links = append(w.plan.Links[:2:2], LinkRoute{Name: "gone", Interface: "wan9", Cloud: netip.MustParseAddrPort("198.18.100.9:7443")})
	w.run("ip link add wan9 type veth peer name wan9p")
	h := w.install(w.plan)
	w.run("ip link del wan9", "ping -c 3 -i 0.01 -s 1000 -W 1 -I wan1 198.18.3.1")
	all, err := h.Traffic()
	must(t, err)
	if len(all) != 3 || all[0] == nil || all[1] == nil || all[2] != nil {
		t.Fatalf("counted %+v", all)
	}
	got := *all[1]
	if got.SentBytes < 3000 || got.ReceivedBytes < 3000 || got.SentPackets < 3 || got.ReceivedPackets < 3 {
		t.Errorf("counted %+v", got)
	}
	if got.SentBytes == all[0].SentBytes && got.Index == all[0].Index {
		t.Error("both links have the same counters")
	}
	must(t, h.Close())
	if _, err := h.Traffic(); err == nil {
		t.Error("a closed host counts")
	}
}
