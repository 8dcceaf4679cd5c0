package netns

import (
	"bytes"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// switchable makes the host's iptables a link, as update-alternatives does, which use leads
// to one kind or the other.
func switchable(t *testing.T) (use func(kind string)) {
	t.Helper()
	dir, lead := t.TempDir(), map[string]map[string]string{kindNFT: {}, kindLegacy: {}}
	for kind, to := range lead {
		for _, name := range []string{"iptables", "ip6tables"} {
			path, err := exec.LookPath(name + "-" + kind)
			if err != nil {
				t.Skip("needs both kinds of iptables")
			}
			for _, c := range []string{"", "-save", "-restore"} {
				to[name+c] = path + c
			}
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func(kind string) {
		for name, to := range lead[kind] {
			_ = os.Remove(filepath.Join(dir, name))
			must(t, os.Symlink(to, filepath.Join(dir, name)))
		}
	}
}

// TestIptablesIsSwitched: what was made by one kind of iptables is kept, and removed in the
// end, although the host's own is the other one by then, which has rules of its own.
func TestIptablesIsSwitched(t *testing.T) {
	for from, to := range map[string]string{kindNFT: kindLegacy, kindLegacy: kindNFT} {
		for _, role := range planKinds {
			t.Run(from+" to "+to+"/"+role, func(t *testing.T) {
				use := switchable(t)
				w := newWorld(t)
				look := func() map[string]string {
					both := map[string]string{}
					for _, kind := range []string{to, from} {
						use(kind)
						for key, value := range w.snapshot() {
							both[key+" "+kind] = value
						}
					}
					return both
				}
				use(to)
				w.useAllTables()
				use(from)
				w.useAllTables()
				p, before := w.planOf(role), look()
				unchanged := func(when string) {
					t.Helper()
					for _, d := range differences(before, look()) {
						t.Errorf("%s: %s", when, d)
					}
				}
				w.runsOn(p, use, to)
				unchanged("after a run")
				cleanup := func() {
					_, err := Cleanup(p.Namespace, p.RunDir)
					must(t, err)
				}
				for when, end := range map[string]func(){
					"after Cleanup": cleanup,
					"after Cleanup without a journal": func() {
						must(t, os.Remove(journalPath(p.RunDir, p.Namespace)))
						cleanup()
					},
					"after another run": func() {
						h, err := Install(p, quiet)
						must(t, err)
						must(t, h.Close())
					},
				} {
					partial(t, p, 1000, true, nil)
					use(to)
					end()
					unchanged(when)
				}
			})
		}
	}
}

// runsOn has a host run while its iptables is switched.
func (w *world) runsOn(p Plan, use func(string), to string) {
	w.t.Helper()
	var log bytes.Buffer
	h, err := Install(p, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	must(w.t, err)
	use(to)
	k, now := keeper{host: h}, time.Now()
	k.look(now)
	if p.Intercept == InterceptTPROXY {
		must(w.t, h.PauseTaking(true))
		must(w.t, h.PauseTaking(false))
	}
	if strings.Contains(log.String(), "put back") {
		w.t.Errorf("the log says %s", &log)
	}
	must(w.t, h.Close())
}

// TestKindIsGone: rules that nothing can remove any more are not taken for removed.
func TestKindIsGone(t *testing.T) {
	use := switchable(t)
	w := newWorld(t)
	use(kindNFT)
	w.useAllTables()
	before := w.snapshot()
	partial(t, w.plan, 1000, true, nil)
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	_, err := Cleanup(w.plan.Namespace, w.plan.RunDir)
	if err == nil || strings.Count(err.Error(), "tables is not installed: install the package iptables") != 2 {
		t.Errorf("Cleanup says %v", err)
	}
	t.Setenv("PATH", path)
	_, err = Cleanup(w.plan.Namespace, w.plan.RunDir)
	must(t, err)
	w.unchanged(before, "after the second Cleanup")
}

// TestOtherKindDrops: what hawser's own rules have accepted the other kind of iptables drops
// all the same, as it does where Docker has one and the host the other. check says so.
func TestOtherKindDrops(t *testing.T) {
	for kind, other := range map[string]struct{ kind, chain string }{
		kindNFT:    {kindLegacy, "iptables-legacy filter FORWARD"},
		kindLegacy: {kindNFT, "ip filter FORWARD"},
	} {
		use := switchable(t)
		use(kind)
		w := newWorld(t)
		w.useAllTables() // of its own kind: hawser's come first
		told := func() (chains []string) {
			for _, f := range Check(w.plan) {
				if name, ok := strings.CutPrefix(f.What, "the chain "); ok && f.Level == LevelWarn {
					name, _, _ = strings.Cut(name, " of ")
					chains = append(chains, name)
				}
			}
			return chains
		}
		w.run("iptables-"+other.kind+" -P FORWARD ACCEPT", "iptables-"+other.kind+" -A FORWARD -d 192.0.2.1 -j DROP")
		if chains := told(); len(chains) > 0 {
			t.Errorf("%s: told of %q", kind, chains)
		}
		w.run("iptables-" + other.kind + " -P FORWARD DROP")
		if chains := told(); !slices.Equal(chains, []string{other.chain}) {
			t.Errorf("%s: told of %q, want %s", kind, chains, other.chain)
		}
		w.run("iptables-"+other.kind+" -P FORWARD ACCEPT", "iptables-"+other.kind+" -A FORWARD -j REJECT")
		if chains := told(); !slices.Equal(chains, []string{other.chain}) {
			t.Errorf("%s: told of %q, want %s", kind, chains, other.chain)
		}
		w.run("iptables-" + other.kind + " -I FORWARD -o hub0 -j ACCEPT")
		if chains := told(); len(chains) > 0 {
			t.Errorf("%s: told of %q, which somebody has taught hub0", kind, chains)
		}
	}
}
