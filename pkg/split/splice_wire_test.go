package split

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// checkSACK checks the SACK blocks that came to an end whose connections have sent
// size bytes each: every block is of these bytes, in the end's numbers (RFC 2018).
// It returns how many there were.
func checkSACK(t *testing.T, s *sniffer, size uint32) (blocks int) {
	t.Helper()
	s.catchUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	type ports struct{ mine, other uint16 }
	initial := map[ports]uint32{}
	for _, f := range s.all {
		p := ports{binary.BigEndian.Uint16(f.tcp), binary.BigEndian.Uint16(f.tcp[2:])}
		if f.out {
			if f.flags&header.TCPFlagSyn != 0 {
				initial[p] = f.seq
			}
			continue
		}
		first, known := initial[ports{p.other, p.mine}]
		if !known {
			continue // a recorder that is late loses frames
		}
		for _, b := range sackBlocks(f.tcp) {
			blocks++
			if left, right := b[0]-first, b[1]-first; left == 0 || left >= right || right > size+2 {
				t.Errorf("SACK of %d to %d after the initial number, %d bytes were sent", left, right, size)
				return blocks
			}
		}
	}
	return blocks
}

// sackBlocks are the edges of a header's SACK blocks.
func sackBlocks(tcp []byte) (blocks [][2]uint32) {
	for o := tcp[20:]; len(o) > 1 && o[0] != 0; {
		if o[0] == 1 {
			o = o[1:]
			continue
		}
		n := int(o[1])
		if n < 2 || n > len(o) {
			return blocks
		}
		if o[0] == 5 {
			for b := o[2:n]; len(b) >= 8; b = b[8:] {
				blocks = append(blocks, [2]uint32{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])})
			}
		}
		o = o[n:]
	}
	return blocks
}

// TestSpliceLostHandshakes: each segment of both handshakes may be lost: it is
// sent again, by whoever has sent it, and the connection works.
func TestSpliceLostHandshakes(t *testing.T) { bothWays(t, spliceLostHandshakes) }

func spliceLostHandshakes(t *testing.T, l *lab) {
	if _, err := exec.LookPath("iptables"); err != nil {
		t.Skip("needs iptables: apt-get install iptables")
	}
	s := l.splicing()
	cases := []struct{ name, from, to, flags, port string }{
		{"the client's SYN", "lan0", "hub0", "SYN", "dport"},
		{"our SYN-ACK", "hub0", "lan0", "SYN,ACK", "sport"},
		{"the client's ACK", "lan0", "hub0", "ACK", "dport"},
		{"our SYN", "hub0", "wan0", "SYN", "dport"},
		{"the server's SYN-ACK", "wan0", "hub0", "SYN,ACK", "sport"},
		{"our ACK", "hub0", "wan0", "ACK", "dport"},
	}
	for i, c := range cases {
		port := fmt.Sprint(100 + i)
		in(t, l.host, func() {
			out, err := exec.Command("iptables", "-A", "FORWARD", "-i", c.from, "-o", c.to, "-p", "tcp", "--"+c.port, port, "--tcp-flags", "SYN,ACK", c.flags,
				"-m", "statistic", "--mode", "nth", "--every", "1000000", "--packet", "0", "-j", "DROP").CombinedOutput()
			if err != nil {
				t.Skipf("the kernel has no statistic match: %s", out)
			}
		})
		// The server speaks first, so that the client has nothing to send.
		l.serve("198.18.2.2:"+port, func(c *net.TCPConn) {
			defer c.Close()
			if _, err := c.Write(make([]byte, 1000)); err == nil {
				_, _ = io.Copy(c, c)
			}
		})
	}
	var wg sync.WaitGroup
	for i, c := range cases {
		wg.Go(func() {
			conn, err := l.dialNearWrap(serverAt(false, uint16(100+i)), ample)
			if err == nil {
				defer conn.Close()
				if _, err = io.ReadFull(conn, make([]byte, 1000)); err == nil {
					err = roundTrip(conn, random(100_000))
				}
			}
			if err != nil {
				t.Errorf("without %s: %v", c.name, err)
			}
		})
	}
	wg.Wait()
	in(t, l.host, func() {
		out, err := exec.Command("iptables", "-v", "-x", "-n", "-L", "FORWARD").CombinedOutput()
		must(t, err)
		if n := strings.Count(string(out), "\n       1 "); n != len(cases) {
			t.Errorf("%d segments were dropped, want one of each kind:\n%s", n, out)
		}
	})
	if st := s.Stats(); st.Spliced.Opened != uint64(len(cases)) || st.Spliced.Malformed != 0 {
		t.Errorf("%+v", st.Spliced)
	}
}
