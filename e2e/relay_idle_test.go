package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"hawser/e2e/lab"
)

// TestRelayIdle holds many connections that have been used and are at rest,
// and looks at what each costs either side in memory.
func TestRelayIdle(t *testing.T) {
	const connections, most = 4000, 2500 // bytes each
	r := startRelay(t, 80)
	r.serve(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
	})
	used := r.mustDial(r.at(80), time.Minute)
	echoes(t, used) // what the first connection needs is not counted
	sides := map[string]*lab.Proc{"near": r.relay.Near, "far": r.relay.Far}
	before := map[string]int{}
	for side, p := range sides {
		before[side] = resident(t, p)
	}
	err := r.Do("client", func() error {
		for range connections {
			c, err := net.Dial("tcp", r.at(80))
			if err != nil {
				return err
			}
			t.Cleanup(func() { c.Close() })
			if _, err := c.Write([]byte("hello")); err != nil {
				return err
			}
			if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for side, p := range sides {
		each := 0
		for range 5 { // what the garbage collector has not given back yet is no flow's
			if each = (resident(t, p) - before[side]) / connections; each <= most {
				break
			}
			time.Sleep(time.Second)
		}
		t.Logf("%s: %d bytes resident per connection at rest", side, each)
		if each > most {
			t.Errorf("%s: %d bytes per connection, at most %d wanted", side, each, most)
		}
		s, err := r.relay.Status(side)
		if err != nil || s.Memory.Used != 0 {
			t.Errorf("%s: %d bytes of buffers at rest, %v", side, s.Memory.Used, err)
		}
	}
}

// resident is a process's resident memory in bytes.
func resident(t *testing.T, p *lab.Proc) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}
