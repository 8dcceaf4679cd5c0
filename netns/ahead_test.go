package netns

import (
	"bytes"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// aheadWorld is an edge with a keeper and what it has logged.
func aheadWorld(t *testing.T) (w *world, h *Host, k *keeper, log *bytes.Buffer) {
	w, log = newWorld(t), new(bytes.Buffer)
	h, err := Install(w.plan, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	must(t, err)
	t.Cleanup(func() { must(t, h.Close()) })
	return w, h, &keeper{host: h}, log
}

// order is what the preferences of a family's rules are, ours as "own", from the first on; the
// kernel's own are left out.
func (w *world) order(family int) string {
	w.t.Helper()
	rules, err := listRules(netlinkFamily(family))
	must(w.t, err)
	var found []string
	for _, r := range rules {
		name := "other"
		switch {
		case r.Protocol == routeTag:
			name = "own"
		case r.Priority == 0 || r.Priority >= 32766:
			continue
		}
		if part := fmt.Sprintf("%s %d", name, r.Priority); len(found) == 0 || found[len(found)-1] != part {
			found = append(found, part)
		}
	}
	return strings.Join(found, ", ")
}

// TestRulesOfOthersComeAfter: the kernel puts a rule that is added without a preference before
// ours, as wg-quick's for a VPN that takes all. One look later ours are first, and when the
// other's are gone back at their place. What an uplink's new address needs goes there, too.
func TestRulesOfOthersComeAfter(t *testing.T) {
	w, h, k, log := aheadWorld(t)
	installed := w.atRest()
	const own = "own 470, own 471, own 472"
	look := func(want string) {
		t.Helper()
		k.look(time.Now())
		for _, family := range []int{4, 6} {
			if got := w.order(family); got != want {
				t.Errorf("IPv%d: %s, want %s", family, got, want)
			}
		}
	}
	look(own)
	add := []string{"rule add not fwmark 51820 table 51820", "rule add table main suppress_prefixlength 0"}
	for _, family := range []string{"-4 ", "-6 "} {
		w.run("ip "+family+add[0], "ip "+family+add[1])
	}
	if got := w.order(4); got != "other 468, other 469, "+own {
		t.Fatalf("the kernel's order is %s", got)
	}
	look("own 465, own 466, own 467, other 468, other 469")
	look("own 465, own 466, own 467, other 468, other 469")
	few := w.plan
	few.Links = few.Links[:len(few.Links)-1]
	must(t, h.Change(few))
	must(t, h.Change(w.plan))
	look("own 465, own 466, own 467, other 468, other 469") // nor do those of an uplink that comes now
	w.run("ip rule add from 10.9.0.0/24 table 200", "ip -6 rule add from fd09::/64 table 200")
	look("own 461, own 462, own 463, other 464, other 468, other 469")
	if said := log.String(); strings.Count(said, "hawser's are first again") != 4 || !strings.Contains(said, "469 (not from all fwmark 0xca6c lookup 51820)") {
		t.Errorf("the log says %q", said)
	}

	w.run("ip addr add 198.18.3.77/24 dev wan1")
	h.refresh("wan1")
	source := func() bool {
		out, err := exec.Command("ip", "rule").Output()
		must(t, err)
		return strings.Contains(string(out), "463:\tfrom 198.18.3.77 ")
	}
	if !source() {
		t.Error("no rule for a new address of an uplink")
	}
	w.run("ip addr del 198.18.3.77/24 dev wan1")
	h.retire()
	if source() {
		t.Error("the rule for a former address stays")
	}

	w.run("ip rule del from 10.9.0.0/24 table 200", "ip -6 rule del from fd09::/64 table 200")
	look("own 461, own 462, own 463, other 468, other 469")
	for _, family := range []string{"-4 ", "-6 "} {
		w.run("ip "+family+strings.Replace(add[0], "add", "del", 1), "ip "+family+strings.Replace(add[1], "add", "del", 1))
	}
	look(own)
	w.unchanged(installed, "rules of others that have come and gone")
}

// TestRulesThatAreMeantToBeFirst stay so, and the log names each that may take clients'
// connections, once.
func TestRulesThatAreMeantToBeFirst(t *testing.T) {
	w, _, k, log := aheadWorld(t)
	w.run("ip rule add to 10.8.0.0/16 lookup 200 pref 100", "ip rule add fwmark 0x1 lookup 200 pref 101", "ip rule add from 10.9.0.0/24 lookup 200 pref 5210")
	w.run("ip rule add lookup local pref 469") // as who moves the local table's behind rules of his own
	for range 2 {
		k.look(time.Now())
	}
	if got, want := w.order(4), "other 100, other 101, other 469, own 470, own 471, own 472, other 5210"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	const line = `msg="a policy rule comes before hawser's: what it leads elsewhere is not carried" rule="IPv4: 100 (from all to 10.8.0.0/16 lookup 200)"`
	if said := log.String(); strings.Count(said, line) != 1 || strings.Count(said, "\n") != 1 {
		t.Errorf("the log says %q", said)
	}
}

// TestNoRoomAhead: where others have a rule at every preference, that is an error.
func TestNoRoomAhead(t *testing.T) {
	w, _, k, log := aheadWorld(t)
	k.host.moved = map[int]int{4: 3 - prefSteer}
	for _, p := range []string{"1", "2"} {
		w.run("ip rule add from 10.9.0.0/24 lookup 200 pref " + p)
	}
	k.look(time.Now())
	if said := log.String(); !strings.Contains(said, "there is no room before them") {
		t.Errorf("the log says %q", said)
	}
	k.host.moved = nil
}
