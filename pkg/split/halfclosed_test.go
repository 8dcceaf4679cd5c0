package split

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestHalfClosedIsProbed: connection tracking forgets a connection after a minute of
// silence as soon as one end has sent its FIN, and after days before.
func TestHalfClosedIsProbed(t *testing.T) {
	for name, end := range map[string]func(client *net.TCPConn, w *watcher) error{
		"client": func(client *net.TCPConn, w *watcher) error {
			must(t, client.CloseWrite())
			_, err := w.read(1)
			if err == io.EOF {
				err = nil
			}
			return err
		},
		"party": func(_ *net.TCPConn, w *watcher) error { return w.conn.CloseWrite() },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, true)
			_, client, w := accepted(t, l, l.options(0, 1))
			if idle := probedAfter(t, w.conn); idle < 5*time.Minute {
				t.Errorf("probed after %v while both ends may speak", idle)
			}
			must(t, end(client, w))
			if idle := probedAfter(t, w.conn); idle > 30*time.Second {
				t.Errorf("probed after %v of silence", idle)
			}
			client.Close()
			w.conn.Abort()
		})
	}
}

func probedAfter(t *testing.T, c *Conn) time.Duration {
	t.Helper()
	var idle tcpip.KeepaliveIdleOption
	if err := c.ep.GetSockOpt(&idle); err != nil {
		t.Fatal(err)
	}
	return time.Duration(idle)
}

// TestServersAreProbedSooner: on the way to a server balancers and NATs forget what rests for
// 350 s; who is silent is given up as late as a client.
func TestServersAreProbedSooner(t *testing.T) {
	l := newLab(t, true)
	l.route(l.host, netlink.Route{Type: unix.RTN_BLACKHOLE}, "198.18.77.0/24", "", "")
	s, _, client := accepted(t, l, l.options(0, 1))
	server, err := s.Dial(netip.MustParseAddrPort("198.18.77.1:9"), "")
	must(t, err)
	most := func(c *Conn) time.Duration {
		var every tcpip.KeepaliveIntervalOption
		if err := c.ep.GetSockOpt(&every); err != nil {
			t.Fatal(err)
		}
		n, err := c.ep.GetSockOptInt(tcpip.KeepaliveCountOption)
		if err != nil {
			t.Fatal(err)
		}
		return probedAfter(t, c) + time.Duration(n)*time.Duration(every)
	}
	if idle := probedAfter(t, server); idle < 5*time.Minute || idle > 350*time.Second {
		t.Errorf("a server is probed after %v", idle)
	}
	if c, s := most(client.conn), most(server); c != 20*time.Minute || s != c {
		t.Errorf("a client is given up after %v, a server after %v", c, s)
	}
	client.conn.Abort()
	server.Abort()
}
