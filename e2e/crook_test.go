package e2e

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"hawser/e2e/lab"
	"hawser/pkg/guard"
)

// crook is a client that makes its segments itself, at an address that its
// kernel does not have.
type crook struct {
	r        *rig
	t        *testing.T
	heard    *capture
	fd       int
	to, from net.HardwareAddr
	addr     netip.Addr
	ends     guard.Ends
	v6       bool
	port     int // its own
}

// crook appears beside the client, as somebody who talks to a port of the origin.
func (r *rig) crook(t *testing.T, f lab.Family, from, to int) *crook {
	t.Helper()
	c := &crook{r: r, t: t, v6: f == lab.IPv6, port: from, heard: r.capture("client")}
	c.addr = r.Address("client", f).Next().Next()
	c.ends = guard.Ends{Client: c.addr.As16(), Server: r.Address("origin", f).As16(), ClientPort: uint16(from), ServerPort: uint16(to)}
	mac := func(node, dev string) (hw net.HardwareAddr) {
		if err := r.Do(node, func() error {
			at, err := net.InterfaceByName(dev)
			if err == nil {
				hw = at.HardwareAddr
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return hw
	}
	c.to, c.from = mac("edge", lab.LAN), mac("client", "eth0")
	if err := r.Do("client", func() (err error) { c.fd, err = packetSocket("eth0", 0); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.fd) })
	r.mustExec("edge", "ip", "neigh", "replace", c.addr.String(), "lladdr", c.from.String(), "dev", lab.LAN, "nud", "permanent")
	t.Cleanup(func() { _, _ = r.Exec("edge", "ip", "neigh", "del", c.addr.String(), "dev", lab.LAN) })
	return c
}

// packet is a segment with a payload of zeros as an IP packet.
func (c *crook) packet(s guard.Segment, payload int) []byte {
	ip := append(s.Append(nil, &c.ends, c.v6, guard.ToServer), make([]byte, payload)...)
	if c.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(ip)-40))
	} else {
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		fixIP(ip)
	}
	fixTCP(ip, c.v6)
	return ip
}

// send sends a segment; spoil, if any, may change the packet.
func (c *crook) send(s guard.Segment, payload int, spoil func(ip []byte)) {
	ip := c.packet(s, payload)
	if spoil != nil {
		spoil(ip)
	}
	c.raw(ip)
}

func (c *crook) raw(ip []byte) {
	c.t.Helper()
	kind := []byte{8, 0}
	if c.v6 {
		kind = []byte{0x86, 0xdd}
	}
	frame := append(append(append(append([]byte{}, c.to...), c.from...), kind...), ip...)
	if _, err := unix.Write(c.fd, frame); err != nil {
		c.t.Fatal(err)
	}
}

// fixIP sets the checksum of an IPv4 header without options.
func fixIP(ip []byte) {
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip[:20], 0))
}

// fixTCP sets the checksum of a packet's TCP segment.
func fixTCP(ip []byte, v6 bool) {
	addrs, tcp := ip[12:20], ip[20:]
	if v6 {
		addrs, tcp = ip[8:40], ip[40:]
	}
	tcp[16], tcp[17] = 0, 0
	sum := checksum.Combine(checksum.Checksum(addrs, unix.IPPROTO_TCP), uint16(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^checksum.Checksum(tcp, sum))
}

// answers waits for the n-th segment that comes to the crook and returns all.
func (c *crook) answers(n int) []frame {
	c.t.Helper()
	for range 100 {
		var in []frame
		for _, f := range c.heard.of(c.port) {
			if !f.out {
				in = append(in, f)
			}
		}
		if len(in) >= n {
			return in
		}
	}
	c.t.Fatalf("no answer number %d", n)
	return nil
}

// syn is the crook's usual SYN.
var syn = guard.Segment{Flags: guard.FlagSYN, Seq: 1000, Window: 64000, MSS: 1460, Scale: guard.NoScale}

// greet makes the handshake up to the SYN-ACK, which must be the n-th answer,
// and returns the ACK that would end it.
func (c *crook) greet(n int) guard.Segment {
	c.t.Helper()
	c.send(syn, 0, nil)
	f := c.answers(n)[n-1]
	if f.flags != header.TCPFlagSyn|header.TCPFlagAck || f.ack != syn.Seq+1 {
		c.t.Fatalf("the SYN is answered by %+v", f)
	}
	return guard.Segment{Flags: guard.FlagACK, Seq: syn.Seq + 1, Ack: f.seq + 1, Window: 64000, Scale: guard.NoScale}
}

// counted waits until a counter of the edge has grown by n since before.
func (r *rig) counted(t *testing.T, before map[string]uint64, name string, n uint64) {
	t.Helper()
	var got uint64
	for range 100 {
		s, err := r.pair.Status("edge")
		if err != nil {
			t.Fatal(err)
		}
		if got = s.Counters[name] - before[name]; got >= n {
			break
		}
		time.Sleep(30 * ms)
	}
	if got != n {
		t.Errorf("%s has grown by %d, want %d", name, got, n)
	}
}

// counters are the edge's.
func (r *rig) counters(t *testing.T) map[string]uint64 {
	t.Helper()
	s, err := r.pair.Status("edge")
	if err != nil {
		t.Fatal(err)
	}
	return s.Counters
}
