package split

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// icmpFrame is the frame of an error that quotes the beginning of a segment of the
// stack's. rest are the four bytes after the checksum.
func icmpFrame(v6 bool, kind, code byte, rest uint32) []byte {
	body := binary.BigEndian.AppendUint32([]byte{kind, code, 0, 0}, rest)
	src, dst := test4[0], test4[1]
	if v6 {
		src, dst = test6[0], test6[1]
	}
	quoted := tcpSegment(dst, src, nil)
	if v6 {
		q := make(header.IPv6, header.IPv6MinimumSize)
		q.Encode(&header.IPv6Fields{PayloadLength: uint16(len(quoted)), HopLimit: 64, TransportProtocol: 6, SrcAddr: dst, DstAddr: src})
		body = slices.Concat(body, []byte(q), quoted)
		sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, src, dst, uint16(len(body)))
		binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, sum))
		ip := make(header.IPv6, header.IPv6MinimumSize)
		ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(body)), HopLimit: 64, TransportProtocol: header.ICMPv6ProtocolNumber, SrcAddr: src, DstAddr: dst})
		return slices.Concat(ether(header.IPv6ProtocolNumber), ip, body)
	}
	encode := func(proto tcpip.TransportProtocolNumber, from, to tcpip.Address, n int) header.IPv4 {
		ip := make(header.IPv4, header.IPv4MinimumSize)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(ip) + n), TTL: 64, Protocol: uint8(proto), SrcAddr: from, DstAddr: to})
		ip.SetChecksum(^ip.CalculateChecksum())
		return ip
	}
	body = slices.Concat(body, encode(6, dst, src, len(quoted)), quoted)
	binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, 0))
	return slices.Concat(ether(header.IPv4ProtocolNumber), encode(header.ICMPv4ProtocolNumber, src, dst, len(body)), body)
}

// TestTemper: what netstack would misunderstand is changed, with a right checksum, and
// nothing else is.
func TestTemper(t *testing.T) {
	for _, tc := range []struct {
		v6       bool
		kind     byte
		code     byte
		rest     uint32
		wantCode byte
		wantRest uint32
	}{
		{false, 3, 4, 0, 4, 552},
		{false, 3, 4, 68, 4, 552},
		{false, 3, 4, 551, 4, 552},
		{false, 3, 4, 552, 4, 552},
		{false, 3, 4, 1400, 4, 1400},
		{false, 3, 1, 0, 1, 0},
		{false, 3, 13, 7, 13, 7},
		{true, 2, 0, 0, 0, 1280},
		{true, 2, 0, 1279, 0, 1280},
		{true, 2, 0, 1280, 0, 1280},
		{true, 2, 0, 1<<16 + 5, 0, 1<<16 + 5},
		{true, 1, 0, 0, 0, 0},
		{true, 1, 1, 0, 0, 0},
		{true, 1, 3, 0, 0, 0},
		{true, 1, 4, 0, 4, 0},
		{true, 1, 6, 0, 0, 0},
		{true, 3, 1, 9, 1, 9},
		{true, 4, 1, 9, 1, 9},
	} {
		frame := icmpFrame(tc.v6, tc.kind, tc.code, tc.rest)
		whole := slices.Clone(frame)
		p, v := parseFrame(frame, len(frame), testHub)
		if v != verdictPass || !p.verify(frame[etherLen:], nil) {
			t.Fatalf("%+v: verdict %d, or a wrong checksum", tc, v)
		}
		p.temper(frame[etherLen:])
		icmp := frame[etherLen+p.start:]
		if got := binary.BigEndian.Uint32(icmp[4:]); icmp[0] != tc.kind || icmp[1] != tc.wantCode || got != tc.wantRest {
			t.Errorf("%+v: became type %d, code %d, %d", tc, icmp[0], icmp[1], got)
		}
		if !p.verify(frame[etherLen:], nil) {
			t.Errorf("%+v: the checksum is wrong", tc)
		}
		if tc.code == tc.wantCode && tc.rest == tc.wantRest && !slices.Equal(frame, whole) {
			t.Errorf("%+v: was changed", tc)
		}
		for n := range len(frame) - etherLen { // a slot's head may hold less, and so may the packet
			p.temper(frame[etherLen : etherLen+n])
		}
	}
}

// TestTinyPathMTU: a router of the client's side says that it takes nothing, or less than
// the least. The client gets everything all the same, and not byte by byte.
func TestTinyPathMTU(t *testing.T) {
	for _, tc := range []struct {
		v6        bool
		mtu       uint32
		low, high int // of what a full segment then carries
	}{{false, 0, 400, 512}, {true, 1000, 1100, 1220}} {
		t.Run(fmt.Sprintf("%v, %d bytes", tc.v6, tc.mtu), func(t *testing.T) {
			t.Parallel()
			l := newLab(t, true)
			l.steerErrors()
			l.offloads(l.host, "lan0", false) // the capture is to see single segments
			p := newPump(t)
			l.start(l.options(0, 1), func(c *Conn) { p.echo(c, nil) })
			server := anywhere(tc.v6, 80)
			c := l.dial(server)
			must(t, pingPong(c, random(1000)))
			l.tooBig(c.LocalAddr().(*net.TCPAddr).AddrPort(), netip.MustParseAddrPort(server), tc.mtu)
			must(t, pingPong(c, random(64<<10))) // behind the error
			sniff := l.sniff()
			const size = 256 << 10
			must(t, pingPong(c, random(size)))
			segments, longest := 0, 0
			for _, f := range sniff.of(c.LocalAddr().(*net.TCPAddr).Port) {
				if !f.out && f.payload > 0 {
					segments, longest = segments+1, max(longest, f.payload)
				}
			}
			if longest < tc.low || longest > tc.high || segments > 2*size/tc.low {
				t.Errorf("%d bytes came in %d segments of %d bytes at most, want %d to %d", size, segments, longest, tc.low, tc.high)
			}
		})
	}
}

// pingPong sends data to an echo and gets it back, and leaves the connection open.
func pingPong(c *net.TCPConn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	back := make([]byte, len(data))
	if _, err := io.ReadFull(c, back); err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return errors.New("the echo differs")
	}
	return <-sent
}

// steerErrors routes the client's ICMP to the hub, too.
func (l *lab) steerErrors() {
	l.t.Helper()
	l.with(l.host, func(h *netlink.Handle) error {
		for family, proto := range map[int]int{netlink.FAMILY_V4: unix.IPPROTO_ICMP, netlink.FAMILY_V6: unix.IPPROTO_ICMPV6} {
			r := netlink.NewRule()
			r.Family, r.IifName, r.IPProto, r.Table, r.Priority = family, "lan0", proto, 100, 101
			if err := h.RuleAdd(r); err != nil {
				return err
			}
		}
		return nil
	})
}

// tooBig sends the error of a router on the client's side about a segment of the
// server's.
func (l *lab) tooBig(client, server netip.AddrPort, mtu uint32) {
	l.t.Helper()
	v6 := server.Addr().Is6()
	src, dst := address(server.Addr()), address(client.Addr().Unmap())
	tcp := make([]byte, header.TCPMinimumSize)
	header.TCP(tcp).Encode(&header.TCPFields{SrcPort: server.Port(), DstPort: client.Port(), DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck})
	network, body := "ip4:icmp", binary.BigEndian.AppendUint32([]byte{3, 4, 0, 0}, mtu)
	if v6 {
		network, body[0], body[1] = "ip6:ipv6-icmp", 2, 0
		q := make(header.IPv6, header.IPv6MinimumSize)
		q.Encode(&header.IPv6Fields{PayloadLength: 1460, HopLimit: 64, TransportProtocol: 6, SrcAddr: src, DstAddr: dst})
		body = slices.Concat(body, []byte(q), tcp)
	} else {
		q := make(header.IPv4, header.IPv4MinimumSize)
		q.Encode(&header.IPv4Fields{TotalLength: 1500, TTL: 64, Protocol: 6, SrcAddr: src, DstAddr: dst})
		q.SetChecksum(^q.CalculateChecksum())
		body = slices.Concat(body, []byte(q), tcp)
		binary.BigEndian.PutUint16(body[2:], ^checksum.Checksum(body, 0))
	}
	in(l.t, l.client, func() {
		raw, err := net.Dial(network, server.Addr().String())
		must(l.t, err)
		defer raw.Close()
		_, err = raw.Write(body)
		must(l.t, err)
	})
}
