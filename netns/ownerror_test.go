package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownErrors: where the way to a client is narrower than what the stack sends, it is the
// host itself that says so, to whom it takes for the sender: the stack hears it. What it
// says of the client's own packets the client hears, as ever.
func (w *world) ownErrors(stack *echoStack) {
	w.t.Helper()
	w.run("ip link set lan0 mtu 1300")
	for _, e := range families {
		if err := w.tooFar(e.family, at(e.server, 80)); !errors.Is(err, unix.EHOSTUNREACH) {
			w.t.Errorf("IPv%d: a client whose SYN has come too far: %v, want %v", e.family, err, unix.EHOSTUNREACH)
		}
		c, err := w.dial(w.client, bound{}, at(e.server, 80))
		must(w.t, err)
		defer c.Close()
		if got := w.talk(c); got != "stack" {
			w.t.Fatal(got)
		}
		long := segment{src: netip.MustParseAddrPort(at(e.server, 80)), dst: c.LocalAddr().(*net.TCPAddr).AddrPort(), seq: 1007, flags: flagACK, data: make([]byte, 1400)}
		stack.send(stack.fds[0], long)
		eventually(w.t, fmt.Sprintf("IPv%d: the host's error, with the MTU of 1300", e.family), func() bool {
			return slices.ContainsFunc(stack.arrivals(), func(a arrival) bool { return tooBigMTU(a.frame) == 1300 && int(a.frame[etherLen]>>4) == e.family })
		})
	}
}

// tooBigMTU is what an error in a frame says that a link takes, 0 if it is none.
func tooBigMTU(frame []byte) uint32 {
	switch ip := frame[etherLen:]; {
	case ip[0] == 0x45 && ip[9] == protoICMP && ip[20] == 3 && ip[21] == 4:
		return uint32(binary.BigEndian.Uint16(ip[26:]))
	case ip[0]>>4 == 6 && ip[6] == protoIP6I && ip[40] == 2:
		return binary.BigEndian.Uint32(ip[44:])
	}
	return 0
}

// tooFar connects to addr from the client, whose packets have come too far at the host.
func (w *world) tooFar(family int, addr string) error {
	level, option := unix.IPPROTO_IP, unix.IP_TTL
	if family == 6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
	}
	d := net.Dialer{Timeout: patient, Control: func(_, _ string, c syscall.RawConn) (err error) {
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
		return errors.Join(err, cerr)
	}}
	return w.visit(w.client, func() error {
		c, err := d.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err
	})
}
