package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// TestRemovedAgain: who removes chains often does it again a moment later, as firewalld does
// when it reloads and ufw when it is switched on. The next look comes after no longer than
// the one before took, and what it puts back is logged, too.
func TestRemovedAgain(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	h, err := Install(w.plan, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	must(t, err)
	defer func() { must(t, h.Close()) }()
	installed := w.atRest()
	k, now := keeper{host: h}, time.Now()
	k.look(now)
	for i, table := range []string{"filter", "mangle"} {
		w.run("iptables -t " + table + " -F")
		if now = now.Add(keepMost); i > 0 {
			k.said = now // as if the first time had been just now
		}
		begun := time.Now()
		k.look(now)
		took := time.Since(begun)
		w.unchanged(installed, "iptables -t "+table+" -F")
		if next := k.next.Sub(now); next > took {
			t.Errorf("%s: the look took %v, the next one comes after %v", table, took, next)
		}
	}
	if strings.Contains(log.String(), "mangle") {
		t.Errorf("two lines within a minute:\n%s", &log)
	}
	now = now.Add(keepAgain)
	if k.look(now); !strings.Contains(log.String(), "PRE in table mangle") {
		t.Errorf("what was put back second is never told:\n%s", &log)
	}
}

// TestPauses: two programs that fight do so less and less often.
func TestPauses(t *testing.T) {
	k, now := keeper{generation: 1}, time.Now()
	for i, c := range []struct {
		after  time.Duration
		mended bool
		want   time.Duration
	}{
		{0, false, 50 * time.Second}, {0, true, time.Second}, {time.Second, true, 2 * time.Second},
		{2 * time.Second, true, 4 * time.Second}, {time.Second, false, 50 * time.Second}, {time.Second, true, 8 * time.Second},
		{keepAgain, true, time.Second},
	} {
		now = now.Add(c.after)
		if got := k.pause(now, time.Second, c.mended); got != c.want {
			t.Errorf("look %d: %v, want %v", i, got, c.want)
		}
	}
	for range 10 {
		k.pause(now, time.Second, true)
	}
	if got := k.pause(now, time.Second, true); got != keepShare*time.Second {
		t.Errorf("of a long fight: %v", got)
	}
}

// TestHubIsPutBack: who switches IPv6 off and on again, as VPNs do, or whose program sees to
// interfaces that are not its own, leaves hub0 without addresses and the stack without
// connections. While IPv6 is off there is nothing to put back, and nothing to say.
func TestHubIsPutBack(t *testing.T) {
	for _, kind := range []string{RoleEdge, RoleCloud} {
		t.Run(kind, func(t *testing.T) {
			w := newWorld(t)
			var log bytes.Buffer
			h, err := Install(w.planOf(kind), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
			must(t, err)
			defer func() { must(t, h.Close()) }()
			installed := w.atRest()
			k, now := keeper{host: h}, time.Now()
			look := func() string {
				log.Reset()
				for range 2 { // a route that has only just gone is none of ours to judge
					now = now.Add(keepMost)
					k.look(now)
				}
				return log.String()
			}
			for _, command := range []string{
				"sysctl -qw net.ipv6.conf.hub0.disable_ipv6=1 && sysctl -qw net.ipv6.conf.hub0.disable_ipv6=0",
				"ip address flush dev hub0 && ip link set hub0 down",
				"ip link set hub0 address 02:00:00:00:00:09",
			} {
				w.run(command)
				said := look()
				w.unchanged(installed, command)
				if !strings.Contains(said, "of hub0") || strings.Contains(said, "ERROR") {
					t.Errorf("%s: the log says %q", command, said)
				}
			}
			w.run("sysctl -qw net.ipv6.conf.hub0.disable_ipv6=1")
			if said := look(); said != "" {
				t.Errorf("while IPv6 is off: %s", said)
			}
		})
	}
}

// TestSettingsArePutBack: who applies files of sysctl.d again, or hardens a host, may switch
// on a strict check of reverse paths, which kills all links but one and hub0, or switch the
// clients' interfaces' forwarding off.
func TestSettingsArePutBack(t *testing.T) {
	w := newWorld(t)
	var log bytes.Buffer
	p := w.plan
	h, err := Install(p, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	must(t, err)
	k, now := keeper{host: h}, time.Now()
	if k.look(now); log.Len() > 0 {
		t.Fatalf("of an untouched host: %s", &log)
	}
	want := map[string]string{
		confPath(4, "wan0", "rp_filter"): "2", confPath(4, "wan1", "rp_filter"): "2", confPath(4, hubHost, "rp_filter"): "2",
		confPath(4, "lan0", "forwarding"): "1", confPath(4, hubHost, "forwarding"): "1",
		"net/netfilter/nf_conntrack_tcp_be_liberal": "1",
	}
	others := map[string]string{confPath(4, "all", "rp_filter"): "1"}
	for path := range want {
		others[path] = map[bool]string{true: "1", false: "0"}[strings.HasSuffix(path, "rp_filter")]
	}
	for path, value := range others {
		must(t, writeSysctl(path, value))
	}
	k.look(now.Add(time.Second))
	for path, value := range want {
		if got, err := readSysctl(path); err != nil || got != value {
			t.Errorf("afterwards %s is %q, %v; want %s", path, got, err, value)
		}
	}
	for _, what := range []string{"wan1/rp_filter = 2", "hub0/rp_filter = 2", "forwarding of lan0", "be_liberal = 1"} {
		if !strings.Contains(log.String(), what) {
			t.Errorf("the log does not say %q:\n%s", what, &log)
		}
	}
	log.Reset()
	if k.look(now.Add(2 * keepAgain)); log.Len() > 0 {
		t.Errorf("when all is well again: %s", &log)
	}
	must(t, h.Close())
	for path, value := range others {
		if got, err := readSysctl(path); err == nil && got != value {
			t.Errorf("after the end %s is %s, not %s as it was set", path, got, value)
		}
	}
}

// watch runs Watch until end, or the test's end.
func (w *world) watch(h *Host) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Watch(ctx, nil) }()
	end = sync.OnceFunc(func() {
		cancel()
		must(w.t, <-ended)
	})
	w.t.Cleanup(end)
	return end
}

// TestInterfaceMadeAnew: who configures the clients' bridge anew, or plugs a modem in
// again, has an interface whose settings are those of a new one. By one that was not there
// before servers answer, too, but nothing else is forwarded unless the host does so itself,
// also not when it gets another name.
func TestInterfaceMadeAnew(t *testing.T) {
	w := newWorld(t)
	p := w.plan
	p.Direct = true
	t.Cleanup(func() { // when the host is closed
		if v, err := readSysctl(confPath(4, "new0", "forwarding")); err != nil || v != "0" {
			t.Errorf("afterwards new0's forwarding is %q, %v", v, err)
		}
	})
	h := w.install(p)
	end := w.watch(h)
	settings := func(device string) (all []string) {
		for _, s := range []string{confPath(4, device, "forwarding"), confPath(6, device, "force_forwarding")} {
			if v, err := readSysctl(s); err == nil {
				all = append(all, v)
			}
		}
		return all
	}
	on := func(device string) bool {
		all := settings(device)
		return len(all) > 0 && !slices.Contains(all, "0")
	}
	for _, device := range []string{"lan0", "wan1"} {
		if !on(device) {
			t.Fatalf("Install has not switched %s on: %q", device, settings(device))
		}
	}
	w.run("ip link del lan0", "ip link del wan1")
	w.wire("lan0", "c0", w.client, 1, 1)
	w.wire("wan1", "s1", w.server, 3, 2)
	w.wire("usb0", "n0", w.other, 5, 1)
	eventually(t, "usb0 forwarding", func() bool { return on("usb0") })
	w.run("ip link set usb0 down", "ip link set usb0 name new0", "ip link set new0 up") // as udev does
	eventually(t, "a guard by the new name", func() bool {
		return strings.Contains(output(t, "ip6tables -S "+h.names.chain("FWD")), "-i new0 -j DROP") || !sysctlExists(confPath(6, "all", "force_forwarding"))
	})
	for _, device := range []string{"lan0", "wan1", "new0"} {
		eventually(t, device+" forwarding", func() bool { return on(device) })
	}
	if got := output(t, "iptables -S "+h.names.chain("FWD")); strings.Count(got, "-i new0 -j DROP") != 1 || strings.Count(got, "-i lan0 -j DROP") != 1 {
		t.Errorf("the guards:\n%s", got)
	}
	end()
	w.run("iptables -F " + h.names.chain("FWD"))
	k := keeper{host: h}
	k.look(time.Now())
	if got := output(t, "iptables -S "+h.names.chain("FWD")); !strings.Contains(got, "-i new0 -j DROP") {
		t.Errorf("the guards, put back:\n%s", got)
	}
	if !sysctlExists(confPath(6, "all", "force_forwarding")) {
		t.Skip("the rest needs IPv6 forwarding of single interfaces: Linux 6.17")
	}
	// A VPN, or what runs containers, has the host forward by itself.
	must(t, writeSysctl(confPath(6, "all", "forwarding"), "1"))
	k.look(time.Now())
	must(t, writeSysctl("net/ipv4/ip_forward", "1"))
	k.look(time.Now())
	for _, list := range []string{"ip6tables -S ", "iptables -S "} {
		if got := output(t, list+h.names.chain("FWD")); strings.Contains(got, "-i new0 -j DROP") || !strings.Contains(got, "-o hub0 -j DROP") {
			t.Errorf("the guards of a router:\n%s", got)
		}
	}
	// When it ends, it takes that back, from each interface.
	must(t, writeSysctl(confPath(6, "all", "forwarding"), "0"))
	must(t, writeSysctl("net/ipv4/ip_forward", "0"))
	if on("lan0") || on("hub0") {
		t.Fatal("interfaces forward although the host does not")
	}
	k.look(time.Now())
	for _, device := range []string{"hub0", "lan0", "wan1", "new0"} {
		if !on(device) {
			t.Errorf("afterwards %s does not forward: %q", device, settings(device))
		}
	}
	for _, list := range []string{"ip6tables -S ", "iptables -S "} {
		if got := output(t, list+h.names.chain("FWD")); strings.Count(got, "-i new0 -j DROP") != 1 || strings.Count(got, "-i lan0 -j DROP") != 1 {
			t.Errorf("the guards, once more:\n%s", got)
		}
	}
}

// TestForwardingCannotBeTold: who has no descriptor left to read a setting with says nothing
// of the host, and changes nothing.
func TestForwardingCannotBeTold(t *testing.T) {
	var log bytes.Buffer
	k := keeper{host: &Host{plan: Plan{Role: RoleEdge}, log: slog.New(slog.NewTextHandler(&log, nil))}, forwards: [2]bool{true, true}}
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Max: limit.Max}))
	err := k.forwarding()
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	if !errors.Is(err, unix.EMFILE) || !k.forwards[0] || !k.forwards[1] || log.Len() > 0 {
		t.Errorf("error %v, the host forwards %v, the log says %q", err, k.forwards, &log)
	}
}

// TestClientsInterfaceIsGone: that is said once, and when it is back.
func TestClientsInterfaceIsGone(t *testing.T) {
	var log bytes.Buffer
	k := keeper{host: &Host{plan: Plan{Clients: []string{"lo", "gone0"}}, log: slog.New(slog.NewTextHandler(&log, nil))}}
	for range 2 {
		k.clients()
	}
	if said := log.String(); strings.Count(said, "is gone") != 1 || !strings.Contains(said, "interface=gone0") || strings.Contains(said, "interfaces is back") {
		t.Errorf("the log says %q", said)
	}
	k.gone["lo"] = true
	log.Reset()
	for range 2 {
		k.clients()
	}
	if said := log.String(); strings.Count(said, "interfaces is back") != 1 || !strings.Contains(said, "interface=lo") {
		t.Errorf("when it is back the log says %q", said)
	}
}

// TestRouterWithAnException: an interface that a router's owner has kept from forwarding
// forwards what is hawser's, and nothing else, until somebody has the host forward anew,
// which writes to every interface.
func TestRouterWithAnException(t *testing.T) {
	w := newWorld(t, "net/ipv4/ip_forward=1")
	must(t, writeSysctl(confPath(4, "lan0", "forwarding"), "0"))
	h := w.install(w.plan)
	k := keeper{host: h}
	guards := func(when string, want int) {
		t.Helper()
		for range 2 {
			k.look(time.Now())
		}
		if got := output(t, "iptables -S "+h.names.chain("FWD")); strings.Count(got, "-i lan0 -j DROP") != want {
			t.Errorf("%s: the guards, of which there should be %d:\n%s", when, want, got)
		}
		if on, err := readSysctl(confPath(4, "lan0", "forwarding")); err != nil || on != "1" {
			t.Errorf("%s: lan0's forwarding is %q, %v", when, on, err)
		}
	}
	guards("of a router", 1)
	must(t, writeSysctl("net/ipv4/ip_forward", "0"))
	guards("of a host", 1)
	must(t, writeSysctl("net/ipv4/ip_forward", "1"))
	guards("of a router anew", 0)
	must(t, writeSysctl(confPath(4, "lan0", "forwarding"), "0"))
	guards("with the exception made again", 1)
	w.run("ip link del lan0")
	w.wire("lan0", "c0", w.client, 1, 1) // which has what is the host's default
	h.refresh("lan0")
	guards("with the interface made anew", 0)
}

// TestTooManyToForward: an interface beyond those that are guarded gets no forwarding, and
// the log does not say that it has got it back.
func TestTooManyToForward(t *testing.T) {
	w := newWorld(t)
	p := w.plan
	p.Direct = true
	var log bytes.Buffer
	h, err := Install(p, slog.New(slog.NewTextHandler(&log, nil)))
	must(t, err)
	defer func() { must(t, h.Close()) }()
	for i := range guardedMost {
		h.guarded[4] = append(h.guarded[4], fmt.Sprintf("no%d", i))
	}
	w.run("ip link add more0 type veth peer name more1")
	k := keeper{host: h}
	k.look(time.Now())
	if on, err := readSysctl(confPath(4, "more0", "forwarding")); err != nil || on != "0" {
		t.Errorf("more0's forwarding is %q, %v", on, err)
	}
	if strings.Contains(log.String(), "put back") {
		t.Errorf("the log says %s", &log)
	}
}
