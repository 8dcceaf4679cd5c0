package e2e

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
	"hawser/pkg/admin"
)

// What the kernel tells about an uplink's interface must count at once. The
// bounds are for a busy test machine; the logged figures are the measure.
const (
	noticed = time.Second // from the change to "down" in status
	regain  = time.Second // from the interface's return to "up" in status
)

// TestDeviceEvents takes the interface of one uplink down and up, and its
// address away, while a download runs over both.
func TestDeviceEvents(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{})
	device, addr := r.Interface("lte"), r.EdgeAddress("lte", lab.IPv4).String()
	other := addr[:strings.LastIndex(addr, ".")+1] + "77"
	for _, c := range []struct {
		name        string
		lose, again []string
		why         string
	}{
		{"interface down", []string{"ip link set " + device + " down"}, []string{"ip link set " + device + " up"}, "interface " + device + " is down"},
		{"address removed", []string{"ip addr del " + addr + "/24 dev " + device}, []string{"ip addr add " + addr + "/24 dev " + device}, "lost its address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.fairly(t, func() []string {
				var out bounds
				g := r.during(t, func() {
					r.onEdge(t, c.lose...)
					took := r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "down" && strings.Contains(l.LastError, c.why) })
					t.Logf("noticed after %v", took)
					out.within("noticed after", took, noticed)
					time.Sleep(1500 * ms)
					r.onEdge(t, c.again...)
					took = r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" })
					t.Logf("up again after %v", took)
					out.within("up again after", took, regain)
				})
				out.within("the download's stall", g.stall, maxStall)
				return out
			})
		})
	}
	t.Run("address changed", func(t *testing.T) {
		r.fairly(t, func() []string {
			var b bounds
			before := r.link(t, "lte").Reconnects
			g := r.during(t, func() {
				r.onEdge(t, "ip addr add "+other+"/24 dev "+device, "ip addr del "+addr+"/24 dev "+device, "ip addr replace "+other+"/24 dev "+device)
				took := r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" && l.Reconnects > before })
				t.Logf("up by the new address after %v", took)
				b.within("up by the new address after", took, regain)
			})
			b.within("the download's stall", g.stall, maxStall)
			addr, other = other, addr
			return b
		})
	})
	r.quiet()
}

// TestHotPlug: an uplink's interface need not be there at the start, and may go
// away altogether.
func TestHotPlug(t *testing.T) {
	r := prepare(t, fast(), pair.Options{})
	device := r.Interface("lte")
	unplug := []string{"ip link set " + device + " down", "ip link set " + device + " name unplugged0"}
	plug := []string{"ip link set unplugged0 name " + device, "ip link set " + device + " up"}
	r.onEdge(t, unplug...)
	if err := r.pair.StartCloud(); err != nil {
		t.Fatal(err)
	}
	if err := r.pair.StartEdge(); err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		r.untilLink(t, "wifi", func(l admin.Link) bool { return l.State == "up" })
		r.untilLink(t, "lte", func(l admin.Link) bool {
			return l.State == "down" && strings.Contains(l.LastError, "there is no such interface")
		})
		plugged := false
		r.fairly(t, func() []string {
			if plugged {
				r.onEdge(t, unplug...)
				r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "down" })
			}
			plugged = true
			r.onEdge(t, plug...)
			took := r.untilLink(t, "lte", func(l admin.Link) bool { return l.State == "up" })
			t.Logf("up %v after it was plugged in", took)
			var b bounds
			b.within("up after it was plugged in", took, 3*regain)
			return b
		})
		if round == 0 {
			r.onEdge(t, unplug...)
		}
	}
	r.startedBase()
	r.quiet()
}

// onEdge runs commands on the edge's host.
func (r *rig) onEdge(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		if _, err := r.Exec("edge", "sh", "-c", c); err != nil {
			t.Fatal(err)
		}
	}
}

// link is one link of the edge's status.
func (r *rig) link(t *testing.T, name string) admin.Link {
	t.Helper()
	links, err := r.pair.Links()
	if err != nil {
		t.Fatal(err)
	}
	return links[name]
}

// untilLink waits until a link is as wanted and returns how long that took.
func (r *rig) untilLink(t *testing.T, name string, ok func(admin.Link) bool) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		l := r.link(t, name)
		took := time.Since(begin)
		if ok(l) {
			return took.Round(ms)
		}
		if took > 20*time.Second {
			t.Fatalf("link %s after %v: %+v", name, took, l)
		}
		time.Sleep(10 * ms)
	}
}

// during runs do in the middle of a download that lasts as long, and returns
// what the client saw of it.
func (r *rig) during(t *testing.T, do func()) gauge {
	t.Helper()
	ln := r.listen("origin", 0)
	defer ln.Close()
	stop := make(chan struct{})
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		src := newNoise(1, 1<<40)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := io.CopyN(c, src, 64<<10); err != nil {
				return
			}
		}
	}()
	done := make(chan gauge, 1)
	go func() { done <- r.fetch(r.origin(lab.IPv4, ln.Addr().(*net.TCPAddr).Port), time.Minute) }()
	time.Sleep(time.Second)
	do()
	time.Sleep(500 * ms)
	close(stop)
	g := await(t, done)
	t.Log(fmt.Sprint(g))
	if g.err != nil {
		t.Error(g.err)
	}
	return g
}
