package netns

import (
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestFormerNote: what a comment says is what was to be undone; what it cannot
// say is left out.
func TestFormerNote(t *testing.T) {
	forward := entry{Do: undoSysctl, Path: "net/ipv4/conf/lan0.7@x/forwarding", Was: "0", Set: "1", Guard: "net/ipv4/ip_forward", GuardWas: "0"}
	for _, e := range []entry{forward, {Do: undoSysctl, Path: "net/ipv6/conf/all/forwarding", Was: "0", Set: "1", Force: true}} {
		rule, ok := formerNote(e)
		if got, parsed := parseFormer(`-A HAWSER-1-WAS ` + strings.Join(rule, " ")); !ok || !parsed || !reflect.DeepEqual(got, e) {
			t.Errorf("%+v became %q and %+v", e, rule, got)
		}
		rule[3] = `"` + rule[3] + `"` // as some print it
		if got, ok := parseFormer(strings.Join(rule, " ")); !ok || !reflect.DeepEqual(got, e) {
			t.Errorf("quoted: %+v", got)
		}
	}
	for _, path := range []string{"net/ipv4/conf/a,b/forwarding", "net/ipv4/conf/a\"b/forwarding", "net/" + strings.Repeat("x", 255)} {
		e := forward
		e.Path = path
		if rule, ok := formerNote(e); ok {
			t.Errorf("noted as %q", rule)
		}
	}
	for _, line := range []string{"-N HAWSER-1-WAS", "-m comment --comment a,b,c", "-m comment --comment kernel/x,0,1,false,,", "-m comment --comment net/../kernel/x,0,1,false,,"} {
		if e, ok := parseFormer(line); ok {
			t.Errorf("%q is %+v", line, e)
		}
	}
}

// TestFormerValueOfAPluggedUplink: what is changed while the host runs is noted
// as well, once, whether there was something to note at the start or not.
func TestFormerValueOfAPluggedUplink(t *testing.T) {
	for _, at := range []string{"0", "1"} {
		w := newWorld(t)
		p := w.planOf(InterceptTPROXY)
		p.Local = false
		must(t, writeSysctl(confPath(4, "wan0", "rp_filter"), at))
		h := w.install(p)
		path := confPath(4, "wan1", "rp_filter")
		for range 2 {
			must(t, writeSysctl(path, "1"))
			h.devices = nil // another interface has the name
			must(t, h.replugged("wan1"))
		}
		found, err := formerValues(newUndoer(), h.names)
		must(t, err)
		want := entry{Do: undoSysctl, Path: path, Was: "1", Set: "2"}
		found = slices.DeleteFunc(found, func(e entry) bool { return !reflect.DeepEqual(e, want) })
		if len(found) != 1 {
			t.Errorf("noted %d times", len(found))
		}
		must(t, h.Close())
		if left, err := formerValues(newUndoer(), h.names); len(left) > 0 || err != nil {
			t.Errorf("after the end: %v, %v", left, err)
		}
	}
}

// TestUnreadableJournal: the next start finds former values although the
// journal's bytes make no sense.
func TestUnreadableJournal(t *testing.T) {
	w := newWorld(t)
	w.useAllTables()
	before := w.snapshot()
	partial(t, w.plan, 1000, true, nil)
	must(t, os.WriteFile(journalPath(w.plan.RunDir, w.plan.Namespace), make([]byte, 512), 0o644))
	h, err := Install(w.plan, quiet)
	must(t, err)
	must(t, h.Close())
	w.unchanged(before, "after a start over it")
}
