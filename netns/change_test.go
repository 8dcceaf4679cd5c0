package netns

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestChange: a host that was changed while it stands is as one that was installed so, and
// nothing is left of it after Close, nor after a crash, with the journal (tproxy) or without.
func TestChange(t *testing.T) {
	t.Parallel()
	for _, intercept := range []string{InterceptHub, InterceptTPROXY} {
		t.Run(intercept, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.useAllTables()
			for _, device := range []string{"wan0", "wan1"} {
				must(t, writeSysctl(confPath(4, device, "rp_filter"), "1"))
			}
			few := w.plan
			if few.Direct = true; intercept == InterceptTPROXY {
				few = w.planOf(InterceptTPROXY)
			}
			all := few
			few.Links = []LinkRoute{all.Links[0]}
			all.Exclude = append(all.Exclude, netip.MustParsePrefix("198.18.100.7/32"))
			all.Ports = []PortRange{{80, 80}, {443, 445}}
			other := all
			other.Links = []LinkRoute{{}, all.Links[1], {Name: "new", Interface: "oth0", Gateway: netip.MustParseAddr("198.18.4.2"), Cloud: all.Links[0].Cloud},
				{Name: "unplugged", Interface: "wan9", Gateway: netip.MustParseAddr("198.18.9.2"), Cloud: all.Links[0].Cloud}}
			before := w.snapshot()
			stand := map[string]map[string]string{}
			for name, p := range map[string]Plan{"few": few, "all": all, "other": other} {
				h, err := Install(p, quiet)
				must(t, err)
				stand[name] = sorted(w.atRest())
				must(t, h.Close())
				w.unchanged(before, "after "+name)
			}
			plans := map[string]Plan{"few": few, "all": all, "other": other}
			change := func(names ...string) *Host {
				t.Helper()
				h, err := Install(few, quiet)
				must(t, err)
				for _, name := range names {
					must(t, h.Change(plans[name]))
					for _, d := range differences(stand[name], sorted(w.atRest())) {
						t.Errorf("changed to %s: %s", name, d)
					}
				}
				return h
			}
			h := change("all", "other", "all", "few", "other")
			must(t, h.Close())
			w.unchanged(before, "after Close")
			if err := h.Change(all); err == nil || !strings.Contains(err.Error(), "closed") {
				t.Errorf("Change of a closed host: %v", err)
			}
			h = change("all", "other")
			must(t, h.journal.file.Close()) // as a crash does
			h.closeHandles()
			if intercept == InterceptHub {
				must(t, os.Remove(journalPath(few.RunDir, few.Namespace)))
			}
			_, err := Cleanup(few.Namespace, few.RunDir)
			for end := time.Now().Add(patient); errors.As(err, &inUse{}) && time.Now().Before(end); { // commands of other tests share the lock
				time.Sleep(10 * time.Millisecond)
				_, err = Cleanup(few.Namespace, few.RunDir)
			}
			must(t, err)
			w.unchanged(before, "after a crash")
		})
	}
}

// sorted is a snapshot without the number of hub0, and the notes of former values sorted.
func sorted(all map[string]string) map[string]string {
	all["ip -d address"] = regexp.MustCompile(`(?m)^\d+: hub0`).ReplaceAllString(all["ip -d address"], "hub0")
	var notes, rest []string
	for line := range strings.Lines(all["iptables-save"]) {
		if strings.HasPrefix(line, "-A ") && strings.Contains(line, "-WAS ") {
			notes = append(notes, line)
		} else {
			rest = append(rest, line)
		}
	}
	slices.Sort(notes)
	all["iptables-save"] = strings.Join(append(rest, notes...), "")
	return all
}

// TestChangeIsWatched: an uplink that was added is told of, and has its table.
func TestChangeIsWatched(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.strictServer()
	all := w.plan
	few := all
	few.Links = all.Links[:1]
	h := w.install(few)
	ctx, cancel := context.WithCancel(context.Background())
	told, ended := make(chan UplinkEvent, 64), make(chan error, 1)
	go func() { ended <- h.Watch(ctx, func(e UplinkEvent) { told <- e }) }()
	must(t, h.Change(all))
	for end := time.After(patient); ; {
		select {
		case e := <-told:
			if e.Link < 2 {
				continue
			}
		case <-end:
			t.Fatal("the last link is not told of")
		}
		break
	}
	w.asks("second", here, bound{BypassMark, "wan1", ""}, "198.18.100.9:7443", "cloud 198.18.3.2")
	must(t, h.Change(few))
	w.patience = impatient
	w.asks("removed", here, bound{BypassMark, "wan1", ""}, "198.18.100.9:7443", nobody)
	cancel()
	must(t, <-ended)
}

// TestChangeRefused: what cannot be leaves the host as it is.
func TestChangeRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	few := w.plan
	few.Links = w.plan.Links[:1]
	w.run("ip route add 192.0.2.0/24 dev wan0 table 26745")
	h := w.install(few)
	stands := w.atRest()
	if err := h.Admits(w.plan); err == nil || !strings.Contains(err.Error(), "routing table 26745 is in use") {
		t.Errorf("a table that is in use is admitted: %v", err)
	}
	must(t, h.Admits(few))
	if err := h.Change(w.plan); err == nil || !strings.Contains(err.Error(), "routing table 26745 is in use") {
		t.Errorf("a table that is in use: %v", err)
	}
	bad := few
	bad.Links = append(few.Links[:1:1], LinkRoute{Name: "x", Interface: "lan0", Cloud: few.Links[0].Cloud})
	if err := h.Change(bad); err == nil || !strings.Contains(err.Error(), "is also in steer.interfaces") {
		t.Errorf("a client interface as uplink: %v", err)
	}
	w.unchanged(stands, "after changes that were refused")
}
