package netns

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	nsh "github.com/vishvananda/netns"
)

var quiet = slog.New(slog.DiscardHandler)

// kinds are the hosts that Install meets: plain, a router, a strict one, and a
// kernel that forwards IPv6 everywhere or nowhere.
var kinds = []struct {
	name    string
	sysctls []string
	variant variant
}{
	{name: "not forwarding"},
	{name: "router", sysctls: []string{"net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"}},
	{name: "strict", sysctls: []string{"net/ipv4/conf/all/rp_filter=1", "net/ipv4/conf/default/rp_filter=1", "net/ipv4/conf/all/src_valid_mark=1"}},
	{name: "no force_forwarding", variant: variant{noForce: true}},
}

func TestCloseLeavesTheHostAsItWas(t *testing.T) {
	t.Parallel()
	for _, k := range kinds {
		for _, role := range planKinds {
			t.Run(k.name+"/"+role, func(t *testing.T) {
				w := newWorld(t, k.sysctls...)
				w.useAllTables()
				w.run("echo 0 > /proc/sys/net/ipv6/conf/wan1/accept_ra", "echo 1 > /proc/sys/net/ipv6/conf/oth0/forwarding")
				p := w.planOf(role)
				before := w.snapshot()
				h, err := install(p, quiet, k.variant)
				must(t, err)
				if len(differences(before, w.snapshot())) < 7 {
					t.Error("Install changed next to nothing: this test compares the wrong things")
				}
				if v, err := readSysctl(liberal); err != nil || (v == "1") != (p.Role == RoleEdge && p.Intercept != InterceptTPROXY) {
					t.Errorf("%s is %q, %v", liberal, v, err)
				}
				must(t, h.Close())
				w.unchanged(before, "after Close")
				must(t, h.Close())
			})
		}
	}
}

// builtins are the built-in chains that we add to, by table.
var builtins = map[string][]string{
	"mangle": {"PREROUTING", "OUTPUT"}, "filter": {"INPUT", "FORWARD", "OUTPUT"}, "nat": {"POSTROUTING"},
}

// TestUnusedTablesAreLeftEmpty: tables that came with us have no chain afterwards, and
// so no hook, however the run ends.
func TestUnusedTablesAreLeftEmpty(t *testing.T) {
	t.Parallel()
	crashed := func(t *testing.T, p Plan) {
		partial(t, p, 1000, true, nil)
		must(t, os.Remove(journalPath(p.RunDir, p.Namespace)))
	}
	for name, run := range map[string]func(t *testing.T, w *world){
		"closed": func(t *testing.T, w *world) { must(t, w.install(w.plan).Close()) },
		"closed twice": func(t *testing.T, w *world) {
			must(t, w.install(w.plan).Close())
			must(t, w.install(w.plan).Close())
		},
		"crashed without a journal": func(t *testing.T, w *world) {
			crashed(t, w.plan)
			_, err := Cleanup(w.plan.Namespace, w.plan.RunDir)
			must(t, err)
		},
		"started again without a journal": func(t *testing.T, w *world) {
			crashed(t, w.plan)
			must(t, w.install(w.plan).Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if out := output(t, "iptables-save; ip6tables-save"); out != "" {
				t.Fatalf("the host has tables already: %s", out)
			}
			run(t, w)
			for _, command := range []string{"iptables", "ip6tables"} {
				for line := range strings.Lines(output(t, command+"-save")) {
					if strings.HasPrefix(line, "-A") || strings.Contains(line, "HAWSER") {
						t.Errorf("%s: left over: %s", command, line)
					}
				}
				for table, chains := range builtins {
					for _, chain := range chains {
						// It prints them whether they are there or not, and removes only those that are.
						if exec.Command(command, "-t", table, "-X", chain).Run() == nil {
							t.Errorf("%s: left over: chain %s of table %s", command, chain, table)
						}
					}
				}
			}
		})
	}
}

// TestLegacyIptables also does without iptables-restore.
func TestLegacyIptables(t *testing.T) {
	for kind, commands := range map[string][]string{RoleEdge: {"", "-save"}, InterceptTPROXY: {"", "-save", "-restore"}} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{"iptables", "ip6tables"} {
				path, err := exec.LookPath(name + "-legacy")
				if err != nil {
					t.Skip("needs iptables-legacy")
				}
				for _, c := range commands { // scripts: a link would lead to where there are all of them
					must(t, os.WriteFile(filepath.Join(dir, name+c), []byte("#!/bin/sh\nexec "+path+c+" \"$@\"\n"), 0o755))
				}
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			w := newWorld(t)
			w.useAllTables()
			before := w.snapshot()
			h := w.install(w.planOf(kind))
			if out := output(t, "iptables-legacy -t mangle -S"); !strings.Contains(out, "HAWSER") {
				t.Errorf("no chain in the legacy tables:\n%s", out)
			}
			must(t, h.Close())
			w.unchanged(before, "after Close")
		})
	}
}

// partial takes the first steps of a plan as Install does and then leaves the
// host like a process that was killed: with whole, after step k has run, else
// when only its journal entries are written. cleared is called when the
// leftovers of the run before are gone.
func partial(t *testing.T, p Plan, k int, whole bool, cleared func()) (steps int) {
	t.Helper()
	p, err := p.prepared()
	must(t, err)
	home, err := nsh.Get()
	must(t, err)
	h := &Host{plan: p, names: namesOf(p.Role, p.Namespace), log: quiet, home: home, space: nsh.None()}
	defer h.closeHandles()
	h.journal, err = openJournal(p.RunDir, p.Namespace, true)
	must(t, err)
	defer h.journal.file.Close()
	u := newUndoer()
	must(t, h.clear(u))
	if cleared != nil {
		cleared()
	}
	list, err := h.steps(u)
	must(t, err)
	for i, s := range list[:min(k+1, len(list))] {
		if i == k && !whole {
			s.do = func() error { return nil }
		}
		must(t, h.take(s))
	}
	return len(list)
}

// walk returns the steps to try: every third from a random one on, so that a
// few runs see all of them; with HAWSER_EVERY_STEP (make steps) every one.
func walk(t *testing.T) (first, stride int) {
	if os.Getenv("HAWSER_EVERY_STEP") != "" {
		return 0, 1
	}
	first = rand.IntN(3)
	t.Logf("every third step, from number %d on", first)
	return first, 3
}

func TestCrashAtEveryStep(t *testing.T) {
	for _, role := range planKinds {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t)
			w.useAllTables()
			p := w.planOf(role)
			before := w.snapshot()
			first, stride := walk(t)
			for k, steps := first, first+1; k < steps; k += stride {
				cleared := func() {
					now := w.snapshot()
					now["journal"] = before["journal"] // the present run holds it
					if left := differences(before, now); len(left) > 0 {
						t.Fatalf("step %d of %d: left by the crash before: %s", k, steps, strings.Join(left, "\n"))
					}
				}
				steps = partial(t, p, k, false, cleared) // over the leftovers, as a second start does
				partial(t, p, k, true, cleared)
				if k%8 == 0 {
					_, err := Cleanup(p.Namespace, p.RunDir)
					must(t, err)
				}
			}
			h, err := Install(p, quiet)
			must(t, err)
			must(t, h.Close())
			w.unchanged(before, "after a whole run")
		})
	}
}

func TestCleanupWithoutJournal(t *testing.T) {
	t.Parallel()
	for _, role := range planKinds {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t, "net/ipv4/conf/default/rp_filter=1") // the uplinks' is changed
			w.useAllTables()
			p := w.planOf(role)
			before := w.snapshot()
			for k, steps := 0, 1; k < steps; k += 3 {
				steps = partial(t, p, k, true, nil)
				must(t, os.Remove(journalPath(p.RunDir, p.Namespace)))
				_, err := Cleanup(p.Namespace, p.RunDir)
				must(t, err)
				w.unchanged(before, "after Cleanup")
				if t.Failed() {
					t.Fatalf("at step %d of %d", k, steps)
				}
			}
			partial(t, p, 1000, true, nil)
			must(t, os.Remove(journalPath(p.RunDir, p.Namespace)))
			done, err := Cleanup(p.Namespace, p.RunDir)
			must(t, err)
			wants := []string{"namespace ", "interface hub0", "chain HAWSER-", "forwarding = 0"}
			if role == InterceptTPROXY {
				wants = []string{"routes of table 0", "lookup 26743", "chain HAWSER-", "wan1/rp_filter = 1"}
			}
			for _, want := range wants {
				if !strings.Contains(strings.Join(done, "\n"), want) {
					t.Errorf("Cleanup does not tell that it removed %q: %q", want, done)
				}
			}
			done, err = Cleanup(p.Namespace, p.RunDir)
			if len(done) > 0 || err != nil {
				t.Errorf("second Cleanup: %q, %v", done, err)
			}
		})
	}
}

func TestFailingStepRollsBack(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken on purpose")
	for _, role := range planKinds {
		t.Run(role, func(t *testing.T) {
			w := newWorld(t)
			w.useAllTables()
			p := w.planOf(role)
			before := w.snapshot()
			first, stride := walk(t)
			for k, steps := first, first+1; k < steps; k += stride {
				what := ""
				_, err := install(p, quiet, variant{change: func(list []step) []step {
					steps, what = len(list), list[k].what
					do := list[k].do
					list[k].do = func() error { // the step is done in part or whole, then fails
						if k%2 == 0 {
							must(t, do())
						}
						return broken
					}
					return list
				}})
				if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), what) {
					t.Fatalf("step %d %q: error %v", k, what, err)
				}
				w.unchanged(before, "after step "+what)
				if t.Failed() {
					t.FailNow()
				}
			}
		})
	}
}

func TestOwnerIsAlive(t *testing.T) {
	w := newWorld(t)
	w.install(w.plan)
	for name, try := range map[string]func() error{
		"Install": func() error { _, err := Install(w.plan, quiet); return err },
		"Cleanup": func() error { _, err := Cleanup(w.plan.Namespace, w.plan.RunDir); return err },
	} {
		err := try()
		if err == nil || !strings.Contains(err.Error(), "running hawser-edge with pid "+pidText()) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s beside a running owner: %v", name, err)
		}
	}
}

func TestPlaceIsTaken(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, setup, undo, want string
		change                  func(*Plan)
	}{
		{name: "client interface missing", change: func(p *Plan) { p.Clients = []string{"br-lan"} }, want: "steer.interfaces: interface br-lan: there is no such interface"},
		{name: "client's alternative name", setup: "ip link property add dev lan0 altname lan0alt", undo: "ip link property del dev lan0 altname lan0alt",
			change: func(p *Plan) { p.Clients = []string{"lan0alt"} }, want: "steer.interfaces: interface lan0alt: that is another name of lan0: write lan0 in its place"},
		{name: "uplink's alternative name", setup: "ip link property add dev wan1 altname wan1alt", undo: "ip link property del dev wan1 altname wan1alt",
			change: func(p *Plan) { p.Links = []LinkRoute{{Name: "lte", Interface: "wan1alt", Cloud: p.Links[1].Cloud}} }, want: "link lte: interface wan1alt: that is another name of wan1"},
		{name: "foreign hub0", setup: "ip link add hub0 type bridge", undo: "ip link del hub0", want: "interface hub0 ("},
		{name: "table in use", setup: "ip route add 203.0.113.0/24 via 198.18.2.1 table 26743", undo: "ip route flush table 26743", want: "routing table 26743 is in use"},
		{name: "foreign namespace", setup: "ip netns add NAME", undo: "ip netns del NAME", want: "exists and is not hawser's"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.useAllTables()
			p := w.plan
			if tt.change != nil {
				tt.change(&p)
			}
			w.run(strings.ReplaceAll(tt.setup, "NAME", p.Namespace))
			before := w.snapshot()
			_, err := Install(p, quiet)
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("Install: %v, want %q", err, tt.want)
			}
			failed := false
			for _, f := range Check(p) {
				failed = failed || f.Level == LevelFail && f.Remedy != ""
			}
			if !failed {
				t.Errorf("Check finds nothing: %+v", Check(p))
			}
			w.unchanged(before, "after the failed Install")
			w.run(strings.ReplaceAll(tt.undo, "NAME", p.Namespace))
		})
	}
}

// TestOtherHawserIsLeftAlone: cleaning up after one namespace on a host where
// another one runs must not hurt it.
func TestOtherHawserIsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, kind := range planKinds {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			w.install(w.planOf(kind))
			before := w.atRest()
			done, err := Cleanup(w.plan.Namespace+"b", t.TempDir())
			if err != nil || len(done) > 0 {
				t.Errorf("Cleanup removed %q, error %v", done, err)
			}
			for _, second := range planKinds {
				p := w.planOf(second)
				p.Namespace += "b"
				if _, err := Install(p, quiet); err == nil || !strings.Contains(err.Error(), "does not belong to namespace") {
					t.Errorf("%s beside %s: %v", second, kind, err)
				}
			}
			w.unchanged(before, "after Cleanup of another namespace")
		})
	}
}

func TestDockerStartsMeanwhile(t *testing.T) {
	w := newWorld(t)
	h := w.install(w.plan)
	must(t, writeSysctl("net/ipv4/ip_forward", "1"))
	must(t, h.Close())
	if v, _ := readSysctl(confPath(4, "lan0", "forwarding")); v != "1" {
		t.Error("Close turned forwarding off that somebody else had turned on for all interfaces")
	}
}
