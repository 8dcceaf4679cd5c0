package netns

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// damage is what others do to a host without a thought of hawser, by kind of plan. Who
// flushes iptables writes his own rules again.
var damage = map[string]string{
	RoleEdge: "for t in mangle filter nat; do iptables -t $t -F; ip6tables -t $t -F; done" +
		"; iptables-restore --noflush < $SAVED4; ip6tables-restore --noflush < $SAVED6" +
		"; for p in 470 471 472; do while ip rule del pref $p; do :; done; while ip -6 rule del pref $p; do :; done; done 2>/dev/null" +
		"; for t in 26743 26744 26745 26746; do ip route flush table $t; ip -6 route flush table $t; done 2>/dev/null; true",
	InterceptTPROXY: "iptables-restore < $SAVED4; ip6tables-restore < $SAVED6",
}

// TestWhatOthersRemoveIsPutBack: afterwards the host is as Install left it, and the log
// says so once; where nothing is missing nothing is touched and nothing said.
func TestWhatOthersRemoveIsPutBack(t *testing.T) {
	for kind, command := range damage {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.useAllTables()
			saved4, saved6 := t.TempDir()+"/4", t.TempDir()+"/6"
			w.run("iptables-save > "+saved4, "ip6tables-save > "+saved6)
			t.Setenv("SAVED4", saved4)
			t.Setenv("SAVED6", saved6)
			var log bytes.Buffer
			h, err := Install(w.planOf(kind), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
			must(t, err)
			defer func() { must(t, h.Close()) }()
			if kind == InterceptTPROXY {
				must(t, h.PauseTaking(true))
			}
			installed := w.atRest()
			k, now := keeper{host: h}, time.Now()
			look := func() {
				now = now.Add(keepMost)
				k.look(now)
			}
			if look(); log.Len() > 0 {
				t.Errorf("of an untouched host: %s", &log)
			}
			w.run(command)
			if len(differences(installed, w.snapshot())) == 0 {
				t.Fatal("nothing is missing")
			}
			look()
			look() // a route that has only just gone is none of ours to judge
			if said := log.String(); !strings.Contains(said, "put back what another program had removed") {
				t.Errorf("the log says %q", said)
			}
			for _, left := range differences(installed, w.snapshot()) {
				t.Errorf("afterwards: %s", left)
			}
		})
	}
}
