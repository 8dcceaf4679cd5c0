package e2e

import (
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/netns"
)

// tproxy are the options of a pair whose edge has no hub.
func tproxy(t *testing.T, o pair.Options) pair.Options {
	t.Helper()
	needTPROXY(t)
	o.Intercept = netns.InterceptTPROXY
	return o
}

// needTPROXY skips the test with what check says where the kernel cannot do it.
func needTPROXY(t *testing.T) {
	t.Helper()
	for _, f := range netns.Check(netns.Plan{Role: netns.RoleEdge, Intercept: netns.InterceptTPROXY, Namespace: "probe", RunDir: t.TempDir()}) {
		if f.Level == netns.LevelFail && strings.Contains(f.Remedy, "TPROXY") {
			t.Skipf("needs TPROXY: %s: %s", f.What, f.Remedy)
		}
	}
}

// TestTproxyTransfers is TestTransfers by transparent sockets, with two workers
// and a kernel socket at the other end, too.
func TestTproxyTransfers(t *testing.T) {
	t.Parallel()
	for _, egress := range []string{"hub", "socket"} {
		t.Run(egress, func(t *testing.T) {
			r := transfers(t, twins(), tproxy(t, pair.Options{Egress: egress, Workers: 2}), 20_000_000)
			s, err := r.pair.Status("edge")
			if err != nil || s.Intercept != "tproxy" || s.Counters["sockets_accepted"] != 6 || s.Counters["hub_frames_in"] != 0 {
				t.Errorf("status: intercept %q, counters %v, %v", s.Intercept, s.Counters, err)
			}
			r.noHub()
		})
	}
}

// noHub checks that the edge has done without namespace and hub.
func (r *rig) noHub() {
	r.t.Helper()
	out, err := r.Exec("edge", "sh", "-c", "ip -o link; ip netns list")
	if err != nil || strings.Contains(out, "hub0") || strings.Contains(out, r.pair.Namespace("edge")) {
		r.t.Errorf("the edge has a hub: %v\n%s", err, out)
	}
}

func TestTproxyHalfClose(t *testing.T) {
	t.Parallel()
	halfClose(t, tproxy(t, pair.Options{}))
}

func TestTproxyRefused(t *testing.T) { refused(t, tproxy(t, pair.Options{})) }

func TestTproxyClientAbort(t *testing.T) {
	t.Parallel()
	clientAbort(t, tproxy(t, pair.Options{}))
}

func TestTproxyServerAbort(t *testing.T) {
	t.Parallel()
	serverAbort(t, tproxy(t, pair.Options{}))
}

func TestTproxyLastWords(t *testing.T) {
	t.Parallel()
	lastWords(t, tproxy(t, pair.Options{}))
}

func TestTproxyUnaffected(t *testing.T) { unaffected(t, tproxy(t, pair.Options{})) }

func TestTproxyLocal(t *testing.T) { local(t, tproxy(t, pair.Options{Local: true})) }

// TestTproxyStop: an orderly stop of the edge resets its flows and leaves
// nothing; a killed one leaves resets on both sides, too, and either a new
// start or cleanup removes the rest.
func TestTproxyStop(t *testing.T) {
	t.Parallel()
	t.Run("stop", func(t *testing.T) { stopWithOpenFlows(t, "edge", tproxy(t, pair.Options{})) })
	t.Run("kill", func(t *testing.T) { kill(t, "edge", tproxy(t, pair.Options{})) })
	t.Run("kill and cleanup", func(t *testing.T) { killThenCleanup(t, tproxy(t, pair.Options{})) })
	t.Run("ports again", func(t *testing.T) { portsAgain(t, tproxy(t, pair.Options{})) })
}

// portsAgain: a client that takes a port again to the same server after the edge
// has stopped gets through at once, although the edge's kernel has had a socket of
// that connection in TIME_WAIT, where the server had closed first.
func portsAgain(t *testing.T, o pair.Options) {
	r := start(t, fast(), o)
	r.serve(80, sender(1000)) // and closes
	dial := func(f lab.Family, limit time.Duration) error {
		d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{Port: 5000}, Control: func(_, _ string, rc syscall.RawConn) error {
			return setSockopt(rc, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		}}
		return r.Do("client", func() error {
			c, err := d.Dial("tcp", r.origin(f, 80))
			if err != nil {
				return err
			}
			defer c.Close()
			_ = c.SetDeadline(time.Now().Add(limit))
			_, err = io.ReadAll(c) // the server closes first
			return err
		})
	}
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		if err := dial(f, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.pair.WaitIdle(10 * time.Second); err != nil {
		t.Fatal(err)
	}
	if err := r.stop("edge"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []lab.Family{lab.IPv4, lab.IPv6} {
		began := time.Now()
		if err := dial(f, 20*time.Second); err != nil {
			t.Errorf("IPv%d, after %v: %v", f, time.Since(began), err)
		}
	}
}

// TestTproxyBridge: two clients behind a bridge, as most edges have it, are
// told apart; with br_netfilter on that bridge the edge says why it cannot.
func TestTproxyBridge(t *testing.T) {
	o := tproxy(t, pair.Options{})
	lab.NeedRoot(t)
	lab.NeedTools(t, "iptables", "ip6tables")
	spec := lab.Spec{Name: "e2e", IPv6: true, Uplinks: fast(), Seed: 1, Clients: 2}
	r := &rig{Lab: lab.Build(t, spec), t: t}
	var err error
	if r.pair, err = pair.New(r.Lab, spec, o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.finish)
	const call = "/proc/sys/net/bridge/bridge-nf-call-iptables"
	if _, err := r.Exec("edge", "sh", "-c", "echo 1 > "+call); err == nil {
		out, err := r.run("edge", "run", "-c", r.pair.EdgeConf())
		if want := "steer.intercept: tproxy cannot take connections from bridge lan0"; err == nil || !strings.Contains(out+err.Error(), want) {
			t.Errorf("with br_netfilter: %v\n%s", err, out)
		}
		if _, err := r.Exec("edge", "sh", "-c", "echo 0 > "+call); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	r.startedBase()
	r.serve(80, tellRemote)
	for _, client := range []string{"client1", "client2"} {
		families(t, func(t *testing.T, f lab.Family) {
			c := r.mustDialFrom(client, r.origin(f, 80))
			defer c.Close()
			if seen := remoteSeen(t, c); seen == r.Address(client, f).String() {
				t.Errorf("%s: the server sees its own address %s: not steered", client, seen)
			}
		})
	}
	s, err := r.pair.Status("edge")
	if err != nil || s.Counters["sockets_accepted"] != 4 {
		t.Errorf("status counts %d connections, want 4: %v", s.Counters["sockets_accepted"], err)
	}
	r.quiet()
}

// mustDialFrom connects from one of several clients.
func (r *rig) mustDialFrom(client, to string) (c net.Conn) {
	r.t.Helper()
	err := r.Do(client, func() (err error) {
		c, err = net.DialTimeout("tcp", to, 10*time.Second)
		return err
	})
	if err != nil {
		r.t.Fatalf("dial %s from %s: %v", to, client, err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	return c
}
