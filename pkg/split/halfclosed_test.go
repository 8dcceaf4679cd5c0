package split

import (
	"io"
	"net"
	"testing"
	"time"

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
