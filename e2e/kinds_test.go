package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// kind is a way in which kernels and lines of clients and servers differ.
type kind struct {
	name           string
	client, origin map[string]string // keys of sysctl below net.ipv4, which hold for IPv6, too
	mtu            int               // of the client's line; 0: as it is
	v4             bool              // not for IPv6
	prepare        func(*net.Dialer)
}

// kinds are those of old, small, careful and modern hosts. MTUs of less than 1280 take
// IPv6 off the line, so they come last.
func kinds() []kind {
	type m = map[string]string
	bare := m{"tcp_timestamps": "0", "tcp_sack": "0", "tcp_window_scaling": "0"}
	small := m{"tcp_rmem": "2304 2304 4608"}
	return []kind{
		{name: "usual"},
		{name: "client without timestamps", client: m{"tcp_timestamps": "0"}},
		{name: "server without timestamps", origin: m{"tcp_timestamps": "0"}},
		{name: "client without SACK", client: m{"tcp_sack": "0"}},
		{name: "server without SACK", origin: m{"tcp_sack": "0"}},
		{name: "client without window scale", client: m{"tcp_window_scaling": "0"}},
		{name: "server without window scale", origin: m{"tcp_window_scaling": "0"}},
		{name: "both without options", client: bare, origin: bare},
		{name: "ECN", client: m{"tcp_ecn": "1"}, origin: m{"tcp_ecn": "1"}},
		{name: "fast open", client: m{"tcp_fastopen": "7"}, origin: m{"tcp_fastopen": "1027"}, prepare: fastOpen},
		{name: "MPTCP", prepare: func(d *net.Dialer) { d.SetMultipathTCP(true) }},
		{name: "server that answers with cookies", origin: m{"tcp_syncookies": "2", "tcp_timestamps": "0"}},
		{name: "windows of 2 KB", client: small, origin: small},
		{name: "MTU 9000", mtu: 9000},
		{name: "MTU 1280", mtu: 1280},
		{name: "MTU 576", mtu: 576, v4: true},
		{name: "MTU 296", mtu: 296, v4: true},
	}
}

// fastOpen has the first bytes go with the SYN.
func fastOpen(d *net.Dialer) {
	d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
		failed := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_FASTOPEN_CONNECT, 1)
		})
		return errors.Join(failed, err)
	}
}

// TestKinds: neither clients nor servers have to change, whatever their TCP does. Each
// kind fetches objects, sends one, and talks to a server that speaks first.
func TestKinds(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]pair.Options{
		"hub": {}, "zero window": {Handshake: "zero-window"}, "tproxy": {Intercept: "tproxy", Egress: "socket"},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, fast(), o)
			k := r.serveKinds()
			for _, c := range kinds() {
				t.Run(c.name, func(t *testing.T) {
					r.become(t, c)
					families(t, func(t *testing.T, f lab.Family) { k.visit(t, c, f) })
				})
			}
			r.quiet()
		})
	}
}

// kindServers are what the kinds visit.
type kindServers struct {
	*rig
	up chan gauge
}

func (r *rig) serveKinds() kindServers {
	k := kindServers{r, make(chan gauge, 1)}
	r.serve(80, func(c *net.TCPConn) { // as many bytes as are asked for
		defer c.Close()
		var n uint32
		if binary.Read(c, binary.BigEndian, &n) == nil {
			_, _ = io.Copy(c, newNoise(1, int64(n)))
		}
	})
	r.serve(81, func(c *net.TCPConn) {
		defer c.Close()
		k.up <- receive(c, nil)
	})
	r.serve(82, func(c *net.TCPConn) { // speaks first
		defer c.Close()
		fmt.Fprint(c, greeting)
		_, _ = io.Copy(c, c)
	})
	return k
}

const greeting = "220 hello\r\n"

func (k kindServers) visit(t *testing.T, c kind, f lab.Family) {
	if c.v4 && f == lab.IPv6 {
		return
	}
	const size = 2_000_000
	for _, n := range []uint32{1, 10_000, size} {
		conn := k.connect(t, c, f, 80)
		if err := binary.Write(conn, binary.BigEndian, n); err != nil {
			t.Error(err)
		}
		check(t, receive(conn, nil), 1, int64(n))
	}
	send(t, k.connect(t, c, f, 81), size)
	check(t, await(t, k.up), 2, size)
	conn := k.connect(t, c, f, 82)
	var said strings.Builder
	for i := range 50 { // a fast open connects with the first of them
		fmt.Fprintf(&said, "%04d", i)
		if _, err := fmt.Fprintf(conn, "%04d", i); err != nil {
			t.Error(err)
		}
	}
	_ = conn.CloseWrite()
	if p, err := io.ReadAll(conn); err != nil || string(p) != greeting+said.String() {
		t.Errorf("heard %q, %v", p, err)
	}
}

func (k kindServers) connect(t *testing.T, c kind, f lab.Family, port int) *net.TCPConn {
	t.Helper()
	d := &net.Dialer{}
	d.SetMultipathTCP(false)
	if c.prepare != nil {
		c.prepare(d)
	}
	const limit = 20 * time.Second
	var conn net.Conn
	err := k.Do("client", func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		conn, err = d.DialContext(ctx, "tcp", k.origin(f, port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(limit))
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}

// become gives client and origin the kind's settings until the test ends.
func (r *rig) become(t *testing.T, c kind) {
	t.Helper()
	r.settings(t, "client", c.client)
	r.settings(t, "origin", c.origin)
	if c.mtu > 0 {
		r.setLineMTU(t, c.mtu)
		t.Cleanup(func() { r.setLineMTU(t, 1500) })
	}
}

func (r *rig) settings(t *testing.T, node string, values map[string]string) {
	t.Helper()
	for key, value := range values {
		key = "net/ipv4/" + key
		var was []byte
		err := r.Do(node, func() (err error) {
			was, err = os.ReadFile("/proc/sys/" + key)
			return err
		})
		if err == nil {
			err = r.Sysctl(node, key, value)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Sysctl(node, key, strings.TrimSpace(string(was))); err != nil {
				t.Error(err)
			}
		})
	}
}

// setLineMTU sets both ends of the client's line.
func (r *rig) setLineMTU(t *testing.T, mtu int) {
	t.Helper()
	for node, name := range map[string]string{"client": "eth0", "edge": lab.LAN} {
		if out, err := r.Exec(node, "ip", "link", "set", "dev", name, "mtu", fmt.Sprint(mtu)); err != nil {
			t.Fatalf("MTU of %s: %v: %s", name, err, out)
		}
	}
}
