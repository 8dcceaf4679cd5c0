package e2e

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

const bulk = 100_000_000

// TestTransfers moves 100 MB down, up and both ways at once over two uplinks,
// for IPv4 and IPv6 clients, and a quarter of that over IPv6 links to kernel sockets, and
// compares checksums.
func TestTransfers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		o    pair.Options
		size int64
	}{
		{"hub", pair.Options{}, bulk},
		{"IPv6 links, socket egress", pair.Options{IPv6Links: true, Egress: "socket"}, bulk / 4},
	} {
		t.Run(c.name, func(t *testing.T) { transfers(t, wide(), c.o, c.size) })
	}
}

// transfers moves size bytes each way and both ways at once.
func transfers(t *testing.T, uplinks []lab.Uplink, o pair.Options, size int64) *rig {
	r := start(t, uplinks, o)
	r.serve(80, func(c *net.TCPConn) { // download
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	up := make(chan gauge, 4)
	r.serve(81, func(c *net.TCPConn) { // upload
		defer c.Close()
		up <- receive(c, nil)
	})
	r.serve(82, func(c *net.TCPConn) { // both
		defer c.Close()
		var sending sync.WaitGroup
		sending.Go(func() {
			_, _ = io.Copy(c, newNoise(1, size))
			_ = c.CloseWrite()
		})
		up <- receive(c, nil)
		sending.Wait()
	})
	families(t, func(t *testing.T, f lab.Family) {
		t.Run("download", func(t *testing.T) {
			g := r.fetch(r.origin(f, 80), time.Minute)
			check(t, g, 1, size)
		})
		t.Run("upload", func(t *testing.T) {
			send(t, r.mustDial(r.origin(f, 81), time.Minute), size)
			check(t, await(t, up), 2, size)
		})
		t.Run("full duplex", func(t *testing.T) {
			c := r.mustDial(r.origin(f, 82), time.Minute)
			go send(t, c, size)
			check(t, receive(c, nil), 1, size)
			check(t, await(t, up), 2, size)
		})
	})
	r.quiet()
	return r
}

// TestTransferQUIC does the same download and upload over QUIC links.
func TestTransferQUIC(t *testing.T) {
	t.Parallel()
	r := start(t, twins(), pair.Options{Transport: "quic"})
	const size = bulk / 5
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, newNoise(1, size))
	})
	for range 2 {
		g := r.fetch(r.origin(lab.IPv4, 80), time.Minute)
		t.Log(g)
		if g.err != nil || g.sum != sumOf(1, size) {
			t.Errorf("%v: %v", g, g.err)
		}
	}
	links, err := r.pair.Links()
	for name, l := range links {
		if l.Transport != "quic" || l.BytesDown < size/4 {
			t.Errorf("link %s: %s carried %d bytes", name, l.Transport, l.BytesDown)
		}
	}
	if err != nil {
		t.Error(err)
	}
	r.quiet()
}

func send(t testing.TB, c *net.TCPConn, size int64) {
	if _, err := io.Copy(c, newNoise(2, size)); err != nil {
		t.Error(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
}

func await(t testing.TB, ch <-chan gauge) gauge {
	t.Helper()
	select {
	case g := <-ch:
		return g
	case <-time.After(time.Minute):
		t.Fatal("the server did not receive the end")
		return gauge{}
	}
}

func check(t testing.TB, g gauge, seed byte, size int64) {
	t.Helper()
	t.Log(g)
	if g.err != nil || g.size != size || g.sum != sumOf(seed, size) {
		t.Errorf("got %v, %v; want %d bytes and the right checksum", g, g.err, size)
	}
}
