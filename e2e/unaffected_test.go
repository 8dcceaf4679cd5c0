package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// TestUnaffected: UDP, ICMP, excluded destinations and ports that are not
// steered take the way they took before, while TCP beside them is steered;
// connections that were open before the start go on.
func TestUnaffected(t *testing.T) { unaffected(t, pair.Options{}) }

func unaffected(t *testing.T, o pair.Options) {
	t.Parallel()
	lab.NeedTools(t, "ping")
	o.Exclude = []string{"198.18.200.64/26", "fd40::40/122"}
	r := prepare(t, fast(), o)
	if _, err := r.Exec("origin", "ip", "addr", "add", "198.18.200.70/24", "dev", "eth0"); err != nil {
		t.Fatal(err)
	}
	defer r.Exec("origin", "ip", "addr", "del", "198.18.200.70/24", "dev", "eth0")
	r.serve(80, tellRemote)
	r.serve(pair.DirectPort, tellRemote)
	old := r.mustDial(r.origin(lab.IPv4, 80), time.Minute)
	defer old.Close()
	if err := r.pair.Start(); err != nil {
		t.Fatal(err)
	}
	client := r.Address("client", lab.IPv4).String()
	if got := remoteSeen(t, old); got != client {
		t.Errorf("a connection from before the start comes from %s now", got)
	}
	for _, c := range []struct {
		name, to string
		direct   bool
	}{
		{"steered", r.origin(lab.IPv4, 80), false},
		{"steered IPv6", r.origin(lab.IPv6, 80), false},
		{"port that is not steered", r.origin(lab.IPv4, pair.DirectPort), true},
		{"excluded destination", "198.18.200.70:80", true},
	} {
		conn := r.mustDial(c.to, 10*time.Second)
		got := remoteSeen(t, conn)
		conn.Close()
		if direct := got == client; direct != c.direct {
			t.Errorf("%s: the server sees %s, direct %v, want %v", c.name, got, direct, c.direct)
		}
	}
	families(t, func(t *testing.T, f lab.Family) {
		if out, err := r.Exec("client", "ping", "-n", "-c", "3", "-i", "0.1", "-W", "2", r.Address("origin", f).String()); err != nil {
			t.Errorf("ping: %v\n%s", err, out)
		}
		if got := r.udpEcho(f); got != r.Address("client", f).String() {
			t.Errorf("UDP arrives from %s", got)
		}
	})
	r.startedBase()
	r.quiet()
}

// TestLocal: with steer.local the edge's own connections are carried too, and
// its links are not.
func TestLocal(t *testing.T) { local(t, pair.Options{Local: true}) }

func local(t *testing.T, o pair.Options) {
	t.Parallel()
	r := start(t, fast(), o)
	r.serve(80, tellRemote)
	families(t, func(t *testing.T, f lab.Family) {
		var conn net.Conn
		err := r.Do("edge", func() (err error) {
			conn, err = net.DialTimeout("tcp", r.origin(f, 80), 20*time.Second)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		got := remoteSeen(t, conn)
		for _, u := range fast() {
			if got == r.EdgeAddress(u.Name, f).String() {
				t.Errorf("the server sees the edge's own address %s: not steered", got)
			}
		}
	})
	r.quiet()
}

// tellRemote answers each line with the address that the server sees.
func tellRemote(c *net.TCPConn) {
	defer c.Close()
	buf := make([]byte, 16)
	for {
		if _, err := c.Read(buf); err != nil {
			return
		}
		at := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		fmt.Fprintf(c, "%-64s", at)
	}
}

func remoteSeen(t *testing.T, c net.Conn) string {
	t.Helper()
	p := make([]byte, 64)
	if _, err := c.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, p); err != nil {
		t.Fatal(err)
	}
	var seen string
	_, _ = fmt.Sscan(string(p), &seen)
	return seen
}

// udpEcho sends a datagram to the origin and returns whom the origin saw.
func (r *rig) udpEcho(f lab.Family) string {
	r.t.Helper()
	var server, conn net.Conn
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(r.origin(f, 5353)))
	err := r.Do("origin", func() (err error) {
		server, err = net.ListenUDP("udp", to)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	defer server.Close()
	err = r.Do("client", func() (err error) {
		conn, err = net.DialUDP("udp", nil, to)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("hello"))
	_ = server.SetDeadline(time.Now().Add(20 * time.Second))
	_, from, err := server.(*net.UDPConn).ReadFromUDPAddrPort(make([]byte, 16))
	if err != nil {
		r.t.Fatal(err)
	}
	return from.Addr().Unmap().String()
}
